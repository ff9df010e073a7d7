"""`facedex-server status`: what it tells people and programs, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from tests.server.authority import Authority
from tests.server.conftest import vectors_of
from tests.server.faces import enrol_request
from tests.server.own_server import app_over
from tests.server.running_server import Wire
from typer.testing import CliRunner

from facedex.indexer.api_key import KeyTerms, Role
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.store import Store
from facedex.server.cli import app
from facedex.server.self_report import calls_of
from facedex.server.tls import TlsFiles
from facedex.v1 import gallery_pb2

PAGE = """
# TYPE facedex_call_duration_seconds histogram
facedex_call_duration_seconds_bucket{method="Enrol",le="+Inf"} 3.0
facedex_call_duration_seconds_count{method="Enrol"} 3.0
facedex_call_duration_seconds_sum{method="Enrol"} 0.6
facedex_call_duration_seconds_count{method="Identify"} 1.0
facedex_call_duration_seconds_sum{method="Identify"} 0.2
# TYPE facedex_calls_in_progress gauge
facedex_calls_in_progress 2.0
# TYPE facedex_refusals_total counter
facedex_refusals_total{reason="OVERLOADED"} 5.0
facedex_refusals_total{reason="KEY_MISSING"} 1.0
"""


def status(*options: str) -> Any:
    """In this process, where nothing has to be loaded."""
    return CliRunner().invoke(app, ["status", *options], env={"COLUMNS": "100", "NO_COLOR": "1"})


def told(*options: str) -> dict[str, Any]:
    done = status(*options, "--json")
    # The lines before are the log of the server in this process.
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert done.exit_code == (0 if document["is_well"] else 3)
    return document


def api_key(data: Path, *roles: Role, galleries: frozenset[str] | None = None) -> str:
    data.mkdir(exist_ok=True)
    store = Store.open(sqlite_url(data / "facedex.db"))
    text = str(store.api_keys.create(KeyTerms("a test", frozenset(roles), galleries)).text)
    store.close()
    return text


def test_it_tells_of_health_models_galleries_and_calls(tmp_path: Path) -> None:
    with app_over(tmp_path / "data", metrics_listen="127.0.0.1:0") as running, Wire(running.address) as wire:
        wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name="staff")))
        wire.enrolment.Enrol(enrol_request("staff", "ada", vectors_of(wire).vector(1)))
        with pytest.raises(grpc.RpcError):
            wire.enrolment.Enrol(enrol_request("nowhere", "ada", vectors_of(wire).vector(1)))
        document = told("--server", running.address, "--metrics", running.metrics_address)
        assert set(document["health"].values()) == {"SERVING"}
        assert "facedex.v1.IdentificationService" in document["health"]
        assert document["galleries"] == [{"name": "staff", "templates": 1, "revision": 1, "lag": 0}]
        assert (document["jobs"], document["is_encrypted"], document["loaded_share"]) == ([], False, 1.0)
        assert document["calls"]["refused"] == {"GALLERY_NOT_FOUND": 1}
        for_people = status("--server", running.address)
        assert for_people.exit_code == 0
        for words in ("SERVING", "the whole server", "staff", "no jobs under way", "--metrics HOST:PORT"):
            assert words in for_people.stdout


def test_a_page_of_metrics_that_is_none_is_one_line(tmp_path: Path) -> None:
    with app_over(tmp_path / "data") as running:
        done = status("--server", running.address, "--metrics", running.address)
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "page of metrics" in done.stderr


def test_a_server_of_which_a_part_does_not_serve_ends_with_3(tmp_path: Path) -> None:
    with app_over(tmp_path / "data") as running:
        running._tell_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        assert told("--server", running.address)["is_well"] is False
        assert "NOT_SERVING" in status("--server", running.address).stdout


def test_a_server_that_is_not_there_ends_with_1() -> None:
    done = status("--server", "127.0.0.1:1", "--timeout-seconds", "1")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("facedex-server: it does not say how it is: ")


def test_with_keys_and_tls_it_needs_both_and_sees_what_the_key_sees(tmp_path: Path) -> None:
    authority = Authority()
    certificate, private_key = authority.issue().written(tmp_path, "server")
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    key_file = tmp_path / "key"
    key_file.write_text(api_key(tmp_path / "data", Role.SEARCH, galleries=frozenset({"staff"})))
    ca = ("--ca", str(tmp_path / "ca.crt"))
    with app_over(tmp_path / "data", tls=TlsFiles(certificate, private_key)) as running:
        place = ("--server", running.address)
        assert "UNAUTHENTICATED" in status(*place, *ca).stderr
        assert status(*place, "--api-key-file", str(key_file), "--timeout-seconds", "2").exit_code == 1
        document = told(*place, *ca, "--api-key-file", str(key_file))
        assert (document["is_encrypted"], document["galleries"], document["jobs"]) == (True, [], None)
        assert "this key may not list them" in status(*place, *ca, "--api-key-file", str(key_file)).stdout


@pytest.mark.parametrize("server", ["faces.example.com:50051", "127.example.com:50051", "192.168.1.5:50051"])
def test_a_key_goes_unencrypted_to_this_machine_only(server: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("facedex_key")
    done = status("--server", server, "--api-key-file", str(tmp_path / "key"))
    assert done.exit_code == 2
    assert "give --ca or --tls" in done.stderr


def test_what_a_page_of_metrics_says_is_added_up_over_methods() -> None:
    calls = calls_of(PAGE)
    assert (calls.count, calls.in_progress) == (4, 2)
    assert calls.mean_ms == pytest.approx(200)
    assert calls.refused == {"OVERLOADED": 5, "KEY_MISSING": 1}
    assert calls_of("").count == 0
