"""Erasing over the wire: the receipt, the question whether anything is left, and every byte of the data folder."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import zipfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
from tests.indexer.erasure_scan import Traces
from tests.server import running_server
from tests.server.conftest import StartServer, vectors_of
from tests.server.faces import enrol_request, identify_request, photograph
from tests.server.running_server import RunningServer, Wire, refusal
from tests.waiting import wait_until

from facedex.client import Client, OnHoldError, PublicKeyInvalidError, ReceiptInvalidError, verify_receipt
from facedex.v1 import enrolment_pb2, erasure_pb2, gallery_pb2

ADA = "ada-4711-lovelace"
NAME = "Ada Lovelace of Marylebone"
HORIZON_SECONDS = 3
OPTIONS = ("--erasure-horizon-seconds", str(HORIZON_SECONDS))


def enrol_ada(wire: Wire, data: Path) -> Traces:
    """Ada, by two photographs, among others; what is to be gone when she is erased."""
    gallery = gallery_pb2.Gallery(name="staff", keep_crops=True)
    wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery))
    for person in range(2, 6):
        wire.enrolment.Enrol(enrol_request("staff", f"person-{person}", photograph(person)))
    request = enrol_request("staff", ADA, photograph(1), photograph(1, 2), request_id=f"enrol {ADA}")
    request.identity.display_name = NAME
    wire.enrolment.Enrol(request)
    return traces_in(data)


def traces_in(data: Path) -> Traces:
    traces = Traces()
    with closing(sqlite3.connect(data / "facedex.db")) as database:
        rows = database.execute(
            "SELECT t.id, t.vector, t.crop FROM template t JOIN identity i ON i.id = identity_id WHERE external_id = ?",
            [ADA],
        ).fetchall()
    for number, vector, crop in rows:
        traces.add_vector(f"vector {number}", np.frombuffer(vector, "<f2").astype(np.float32))
        traces.add_crop(f"face {number}", crop)
    assert len(rows) == 2
    traces.add_text("external id", ADA)
    traces.add_text("display name", NAME)
    return traces


def delete_identity(wire: Wire) -> str:
    return wire.enrolment.DeleteIdentity(enrolment_pb2.DeleteIdentityRequest(gallery="staff", identity_id=ADA)).receipt


def delete_gallery(wire: Wire) -> str:
    return wire.galleries.DeleteGallery(gallery_pb2.DeleteGalleryRequest(name="staff")).receipt


def held(wire: Wire, receipt: str) -> list[str]:
    return list(wire.erasures.CheckErasure(erasure_pb2.CheckErasureRequest(receipt=receipt)).held)


@pytest.mark.parametrize("erase", [delete_identity, delete_gallery])
def test_after_the_horizon_no_byte_of_somebody_erased_is_in_the_folder_or_the_log(
    start_server: StartServer, tmp_path: Path, erase: Callable[[Wire], str]
) -> None:
    server = start_server(*OPTIONS)
    with Wire(server.address) as wire:
        traces = enrol_ada(wire, server.data)
        assert traces.found_in(tmp_path)
        receipt = erase(wire)
        wait_until(lambda: not held(wire, receipt), within_seconds=4 * HORIZON_SECONDS + 10)
        assert traces.found_in(tmp_path) == set()
    verify_receipt(receipt)


STEPS = ("before-journal", "before-receipt", "after-vacuum")


@pytest.mark.parametrize("step", STEPS)
def test_an_erasure_that_was_killed_in_the_middle_is_finished_after_the_next_start(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    server = start_server(*OPTIONS)
    with Wire(server.address) as wire:
        traces = enrol_ada(wire, server.data)
    server.kill()
    monkeypatch.setitem(running_server.ENVIRONMENT, "FACEDEX_FAILPOINT", f"{step}:1")
    erase_until_death(server)
    monkeypatch.delitem(running_server.ENVIRONMENT, "FACEDEX_FAILPOINT")
    server.start()
    with Wire(server.address) as wire:
        wait_until(lambda: len(purged(wire)) == 1, within_seconds=4 * HORIZON_SECONDS + 10)
        assert traces.found_in(tmp_path) == set()
        (record,) = purged(wire)
        assert held(wire, record.receipt) == []


def erase_until_death(server: RunningServer) -> None:
    server.start()
    with Wire(server.address) as wire, suppress(grpc.RpcError):
        delete_identity(wire)
    assert server.wait() == -9


def purged(wire: Wire) -> list[erasure_pb2.Erasure]:
    erasures = wire.erasures.ListErasures(erasure_pb2.ListErasuresRequest()).erasures
    return [each for each in erasures if each.HasField("purge_time")]


def test_a_receipt_is_checked_offline_and_by_the_server_that_gave_it(
    server: RunningServer, wire: Wire, gallery: str, start_server: StartServer
) -> None:
    wire.enrolment.Enrol(enrol_request(gallery, ADA, photograph(1)))
    with Client.connect(server.address) as client:
        erased = client.delete_identity(gallery, ADA)
        receipt = verify_receipt(erased.receipt)
        assert (receipt.content["revision"], receipt.content["template_count"]) == (erased.revision, 1)
        assert verify_receipt(erased.receipt, public_key=receipt.public_key).is_of_trusted_key
        for no_key in ("", "\n", "deadbeef", receipt.public_key + "0"):
            with pytest.raises(PublicKeyInvalidError, match="64 hexadecimal digits"):
                verify_receipt(erased.receipt, public_key=no_key)
        check = client.check_erasure(erased.receipt)
        assert check.record is not None
        assert client.get_erasure(check.record.id).receipt == erased.receipt
        assert check.record.id in {each.id for each in client.list_erasures(page_size=1)}
    with Client.connect(start_server().address) as stranger, pytest.raises(ReceiptInvalidError):
        stranger.check_erasure(erased.receipt)


def test_an_erasure_that_there_was_not_is_not_found(wire: Wire) -> None:
    unknown = refusal(lambda: wire.erasures.GetErasure(erasure_pb2.GetErasureRequest(id="00" * 16)))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "ERASURE_NOT_FOUND")
    page = erasure_pb2.ListErasuresRequest(page_token="bm9uZQ==")  # noqa: S106  (a place in a list)
    assert refusal(lambda: wire.erasures.ListErasures(page)).code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_hold_is_set_and_cleared_over_the_wire_and_forbids_to_erase(
    server: RunningServer, wire: Wire, gallery: str
) -> None:
    wire.enrolment.Enrol(enrol_request(gallery, ADA, photograph(1)))
    with Client.connect(server.address) as client:
        held_now = client.update_identity(gallery, ADA, hold_reason="case 17", purpose="doors")
        assert (held_now.hold_reason, held_now.purpose) == ("case 17", "doors")
        refused = refusal(lambda: wire.enrolment.DeleteIdentity(_deletion(gallery)))
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ON_HOLD")
        assert "case 17" in refused.message
        with pytest.raises(OnHoldError):
            client.delete_gallery(gallery)
        client.update_identity(gallery, ADA, hold_reason="")
        assert client.delete_identity(gallery, ADA).template_count == 1
    assert "case 17" not in server.log()


def _deletion(gallery: str) -> enrolment_pb2.DeleteIdentityRequest:
    return enrolment_pb2.DeleteIdentityRequest(gallery=gallery, identity_id=ADA)


def test_the_commands_erase_with_a_receipt_check_it_and_export(
    server: RunningServer, wire: Wire, gallery: str, tmp_path: Path
) -> None:
    wire.enrolment.Enrol(enrol_request(gallery, ADA, photograph(1)))
    export, receipt = tmp_path / "ada.zip", tmp_path / "receipt.json"
    assert command(server, "identities", "export", gallery, ADA, "-o", str(export)).returncode == 0
    assert zipfile.is_zipfile(export)
    assert command(server, "identities", "delete", gallery, ADA, "--yes", "--receipt", str(receipt)).returncode == 0
    checked = command(server, "verify-erasure", str(receipt))
    assert checked.returncode == 3, checked.stderr
    assert "genuine" in checked.stdout
    assert "still held: perhaps copies" in checked.stdout
    assert command(server, "verify-erasure", str(receipt), "--offline").returncode == 0
    listed = command(server, "erasures", "list", "--json")
    # Other tests erase at the same server.
    assert receipt.read_text().strip() in [json.loads(line)["receipt"] for line in listed.stdout.splitlines()]
    key = tmp_path / "key"
    key.write_text("00" * 32)
    assert command(server, "verify-erasure", str(receipt), "--public-key", str(key)).returncode == 1
    receipt.write_text(receipt.read_text().replace('"template_count":1', '"template_count":2'))
    assert command(server, "verify-erasure", str(receipt), "--offline").returncode == 1


def command(server: RunningServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [str(running_server.COMMANDS / "facedex"), "--server", server.address, *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)


def test_a_server_with_data_keys_keeps_no_face_that_can_be_read(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--data-keys", str(tmp_path / "keys"))
    with Wire(server.address) as wire:
        gallery = gallery_pb2.Gallery(name="staff", keep_crops=True)
        wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery))
        vectors = vectors_of(wire)
        wire.enrolment.Enrol(enrol_request("staff", ADA, vectors.vector(1)))
        traces = Traces()
        traces.add_vector("vector", vectors.components(1))
        assert traces.found_in(tmp_path) == set()
    assert server.stop() == 0
    server.start()
    with Wire(server.address) as wire:
        answer = wire.identification.Identify(identify_request("staff", vectors.vector(1)))
        assert [each.identity_id for each in answer.faces[0].candidates] == [ADA]
