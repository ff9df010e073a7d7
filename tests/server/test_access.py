"""Who may do what, over the wire: for every method of every service."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tests.server.conftest import vectors_of
from tests.server.faces import enrol_request, identify_request, photograph
from tests.server.own_server import app_over
from tests.server.running_server import Refusal, RunningServer, Wire, refusal, refusal_of
from tests.server.wire_requests import all_methods, all_services, call, path_of, request_naming
from tests.waiting import wait_until
from typer.testing import CliRunner

from facedex.indexer.api_key import KeyTerms, KeyText, Role
from facedex.indexer.cli import app as index_app
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.store import Store
from facedex.server.access_rules import RULES
from facedex.server.app import SERVICES
from facedex.server.key_ring import LEAST_AGE_SECONDS
from facedex.v1 import (
    calibration_pb2,
    enrolment_pb2,
    erasure_pb2,
    gallery_pb2,
    identification_pb2,
    operations_pb2,
)

EVERYTHING = frozenset(Role)
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
# No gallery can have this name: whoever is let in is told so, and nothing happens.
NO_GALLERY = "No Gallery!"

# What is promised: by method, the roles of which one is needed.
NEEDED = {
    "GalleryService/CreateGallery": {Role.ADMINISTER},
    "GalleryService/GetGallery": EVERYTHING,
    "GalleryService/ListGalleries": EVERYTHING,
    "GalleryService/UpdateGallery": {Role.ADMINISTER},
    "GalleryService/DeleteGallery": {Role.ADMINISTER},
    "EnrolmentService/Enrol": {Role.ENROL},
    "EnrolmentService/EnrolStream": {Role.ENROL},
    "EnrolmentService/GetIdentity": {Role.ENROL, Role.ADMINISTER},
    "EnrolmentService/ListIdentities": {Role.ENROL, Role.ADMINISTER},
    "EnrolmentService/UpdateIdentity": {Role.ENROL, Role.ADMINISTER},
    "EnrolmentService/DeleteIdentity": {Role.ENROL, Role.ADMINISTER},
    "EnrolmentService/DeleteTemplate": {Role.ENROL, Role.ADMINISTER},
    "IdentificationService/Identify": {Role.SEARCH},
    "IdentificationService/IdentifyStream": {Role.SEARCH},
    "IdentificationService/Verify": {Role.SEARCH},
    "IdentificationService/Detect": {Role.SEARCH, Role.ENROL},
    "CalibrationService/Calibrate": {Role.ADMINISTER},
    "CalibrationService/GetCertificate": EVERYTHING,
    "CalibrationService/ResolveThreshold": EVERYTHING,
    "OperationsService/GetServerInfo": EVERYTHING,
    "OperationsService/GetJob": {Role.ENROL, Role.ADMINISTER},
    "OperationsService/ListJobs": {Role.ENROL, Role.ADMINISTER},
    "OperationsService/ListJobFindings": {Role.ENROL, Role.ADMINISTER},
    "OperationsService/CancelJob": {Role.ADMINISTER},
    "OperationsService/CheckConsistency": {Role.ADMINISTER},
    "ErasureService/ListErasures": {Role.AUDIT, Role.ADMINISTER},
    "ErasureService/GetErasure": {Role.AUDIT, Role.ADMINISTER},
    "ErasureService/CheckErasure": EVERYTHING,
    "ErasureService/ExportIdentity": {Role.ADMINISTER},
}
# Methods whose request names no gallery; what they answer is tested one by one below.
ANSWERS_OF_OWN_GALLERIES = {
    "GalleryService/ListGalleries",
    "IdentificationService/Detect",
    "OperationsService/GetServerInfo",
    "OperationsService/GetJob",
    "OperationsService/ListJobs",
    "OperationsService/ListJobFindings",
    "OperationsService/CancelJob",
    "ErasureService/ListErasures",
    "ErasureService/GetErasure",
    "ErasureService/CheckErasure",
}


def short_name(method: MethodDescriptor) -> str:
    return f"{method.containing_service.name}/{method.name}"


METHODS = {short_name(each): each for each in all_methods()}


# That nothing is forgotten


def test_every_service_is_served_and_every_method_has_a_rule() -> None:
    assert {each.full_name for each in all_services()} == set(SERVICES)
    assert set(RULES) == {path_of(each) for each in all_methods()} | {REFLECTION}
    assert set(NEEDED) == set(METHODS)


def test_a_method_without_a_rule_is_denied_to_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = {path: rule for path, rule in RULES.items() if not path.endswith("/ListGalleries")}
    monkeypatch.setattr("facedex.server.app.RULES", rest)
    with app_over(tmp_path) as app, Wire(app.address, authorization=key_of(app._store, *Role)) as wire:
        refused = refusal(lambda: wire.galleries.ListGalleries(gallery_pb2.ListGalleriesRequest()))
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")


# A server with keys


def key_of(store: Store, *roles: Role, galleries: set[str] | None = None, **limits: Any) -> str:
    """A new key, as it is sent."""
    among = None if galleries is None else frozenset(galleries)
    issued = store.api_keys.create(KeyTerms("a test", frozenset(roles), galleries=among, **limits))
    time.sleep(2 * LEAST_AGE_SECONDS)  # so that a server that does not know it looks again
    return f"Bearer {issued.text}"


@dataclass
class Guarded:
    """A server that asks for keys, with two galleries, each with somebody, a job and an erasure; and what opens it."""

    server: RunningServer
    store: Store

    def key(self, *roles: Role, galleries: set[str] | None = None, **limits: Any) -> str:
        return key_of(self.store, *roles, galleries=galleries, **limits).removeprefix("Bearer ")

    def wire(self, key: str) -> Wire:
        return Wire(self.server.address, authorization=f"Bearer {key}")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    data = tmp_path_factory.mktemp("guarded") / "data"
    server = RunningServer(data)
    store = Store.open(sqlite_url(data / "facedex.db"))
    guarded = Guarded(server, store)
    with guarded.wire(guarded.key(*Role)) as wire:
        for name in ("mine", "theirs"):
            wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name=name)))
            vectors = vectors_of(wire)
            for number, person in enumerate(("stays", "goes")):
                wire.enrolment.Enrol(enrol_request(name, person, vectors.vector(number)))
            wire.enrolment.DeleteIdentity(enrolment_pb2.DeleteIdentityRequest(gallery=name, identity_id="goes"))
            wire.calibration.Calibrate(calibration_pb2.CalibrateRequest(gallery=name))
    yield guarded
    store.close()
    assert server.stop() == 0


@pytest.fixture(scope="module")
def of_mine(guarded: Guarded) -> Iterator[Wire]:
    """Who may do everything, in one gallery."""
    with guarded.wire(guarded.key(*Role, galleries={"mine"})) as wire:
        yield wire


def is_denied(channel: Any, method: MethodDescriptor, gallery: str = NO_GALLERY) -> str:
    """The reason why a call is not allowed; empty where it is, whatever becomes of it then."""
    try:
        call(channel, method, request_naming(method, gallery))
    except grpc.RpcError as error:
        refused = refusal_of(error)
        assert refused.code is not grpc.StatusCode.UNAUTHENTICATED
        return refused.reason if refused.code is grpc.StatusCode.PERMISSION_DENIED else ""
    return ""


# Keys


def test_without_a_key_nothing_answers_but_health(guarded: Guarded) -> None:
    with Wire(guarded.server.address) as wire:
        for method in METHODS.values():
            refused = refusal(partial(call, wire.channel, method, request_naming(method, "mine")))
            assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_MISSING"), method.name
            assert "facedex-index keys create" in refused.message
        assert wire.health_of("") == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            ProtoReflectionDescriptorDatabase(wire.channel).get_services()
        assert refusal_of(caught.value).code == grpc.StatusCode.UNAUTHENTICATED


def test_any_key_is_told_the_services(guarded: Guarded) -> None:
    with guarded.wire(guarded.key(Role.SEARCH)) as wire:
        call_reflection: Any = wire.channel
        assert set(SERVICES) <= set(ProtoReflectionDescriptorDatabase(call_reflection).get_services())


def refused_with(guarded: Guarded, authorization: str) -> Refusal:
    with Wire(guarded.server.address, authorization=authorization) as wire:
        refused = refusal(wire.info)
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED
    return refused


def test_what_is_no_key_of_this_server_gets_nobody_in(guarded: Guarded) -> None:
    key = guarded.key(Role.SEARCH)
    last = "0" if key[-1] != "0" else "1"
    wrong = [f"Bearer {key[:-1]}{last}", f"Bearer {key}0", f"Basic {key}", key, "", "Bearer ", "Bearer facedex"]
    for authorization in [*wrong, f"Bearer {KeyText.new()}"]:
        refused = refused_with(guarded, authorization)
        assert refused.reason == "KEY_INVALID"
        assert key not in refused.message


def test_a_key_that_is_revoked_gets_nobody_in_within_a_second(guarded: Guarded) -> None:
    key = guarded.key(Role.SEARCH)
    parsed = KeyText.parsed(key)
    assert parsed is not None
    with guarded.wire(key) as wire:
        wait_until(lambda: wire.info().loaded_share == 1)
        guarded.store.api_keys.revoke(parsed.key_id)
        started = time.monotonic()
        wait_until(lambda: is_denied_entry(wire) == "KEY_REVOKED")
        assert time.monotonic() - started < 3
    changed = f"Bearer {key[:-1]}{'0' if key[-1] != '0' else '1'}"
    assert refused_with(guarded, changed).reason == "KEY_INVALID"  # only its holder is told what became of it


def test_a_stream_ends_when_its_key_is_revoked(guarded: Guarded) -> None:
    key = guarded.key(Role.SEARCH)
    parsed = KeyText.parsed(key)
    assert parsed is not None
    with guarded.wire(key) as wire:
        probe = identify_request("mine", vectors_of(wire).vector(0))
        frame = identification_pb2.IdentifyStreamRequest(identify=probe)
        answered = threading.Event()

        def frames() -> Iterator[identification_pb2.IdentifyStreamRequest]:
            yield frame
            assert answered.wait(10)
            guarded.store.api_keys.revoke(parsed.key_id)
            for _ in range(100):
                time.sleep(0.1)
                yield frame

        answers = 0

        def read() -> None:
            nonlocal answers
            for _ in wire.identification.IdentifyStream(frames()):
                answers += 1
                answered.set()

        refused = refusal(read)
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_REVOKED")
    assert 1 <= answers < 30


def is_denied_entry(wire: Wire) -> str:
    try:
        wire.info()
    except grpc.RpcError as error:
        return refusal_of(error).reason
    return ""


def test_a_key_whose_time_is_over_gets_nobody_in(guarded: Guarded) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    assert refused_with(guarded, f"Bearer {guarded.key(Role.SEARCH, expires_at=past)}").reason == "KEY_EXPIRED"


# Roles


@pytest.mark.parametrize("role", Role)
def test_a_role_is_good_for_its_methods_and_for_no_other(guarded: Guarded, role: Role) -> None:
    with guarded.wire(guarded.key(role)) as wire:
        denied = {name for name, method in METHODS.items() if is_denied(wire.channel, method) == "ROLE_MISSING"}
    assert denied == {name for name, roles in NEEDED.items() if role not in roles}


def test_a_search_key_cannot_enrol_and_an_enrol_key_cannot_administer(guarded: Guarded) -> None:
    with guarded.wire(guarded.key(Role.SEARCH)) as wire:
        vector = vectors_of(wire).vector(7)
        wire.identification.Identify(identify_request("mine", vector))
        refused = refusal(lambda: wire.enrolment.Enrol(enrol_request("mine", "somebody", vector)))
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")
        assert "enrol" in refused.message
    with guarded.wire(guarded.key(Role.ENROL)) as wire:
        wire.enrolment.Enrol(enrol_request("mine", "somebody", vector))
        refused = refusal(lambda: wire.galleries.DeleteGallery(gallery_pb2.DeleteGalleryRequest(name="mine")))
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")
        assert "administer" in refused.message


def test_vectors_need_a_role_of_their_own(guarded: Guarded) -> None:
    without, with_it = (
        guarded.key(Role.SEARCH, Role.ADMINISTER),
        guarded.key(Role.SEARCH, Role.ADMINISTER, Role.VECTORS),
    )
    with guarded.wire(without) as wire:
        for ask in asking_for_vectors(wire):
            refused = refusal(ask)
            assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")
            assert "vectors" in refused.message
    with guarded.wire(with_it) as wire:
        found = wire.identification.Identify(vector_search(wire)).faces[0]
        assert len(found.vector.values) == 4 * wire.info().embedder.dimension
        assert all(ask() for ask in asking_for_vectors(wire))


def vector_search(wire: Wire) -> identification_pb2.IdentifyRequest:
    request = identify_request("mine", vectors_of(wire).vector(0))
    request.return_vectors = True
    return request


def asking_for_vectors(wire: Wire) -> list[Callable[[], object]]:
    frame = identification_pb2.IdentifyStreamRequest(identify=vector_search(wire))
    person = erasure_pb2.ExportIdentityRequest(gallery="mine", identity_id="stays", include_vectors=True)
    detect = identification_pb2.DetectRequest(image=photograph(1), return_vectors=True)
    return [
        lambda: wire.identification.Identify(vector_search(wire)),
        lambda: list(wire.identification.IdentifyStream(iter([frame]))),
        lambda: wire.identification.Detect(detect),
        lambda: wire.erasures.ExportIdentity(person),
    ]


def test_whoever_enrols_cannot_lift_a_legal_hold(guarded: Guarded) -> None:
    identity = enrolment_pb2.Identity(id="stays", display_name="Ada")
    named, held = (
        enrolment_pb2.UpdateIdentityRequest(gallery="mine", identity=identity, update_mask=FieldMask(paths=paths))
        for paths in (["display_name"], ["display_name", "hold_reason"])
    )
    with guarded.wire(guarded.key(Role.ENROL)) as wire:
        wire.enrolment.UpdateIdentity(named)
        assert refusal(lambda: wire.enrolment.UpdateIdentity(held)).reason == "ROLE_MISSING"
    with guarded.wire(guarded.key(Role.ADMINISTER)) as wire:
        wire.enrolment.UpdateIdentity(held)


# Galleries


def test_every_method_names_a_gallery_or_is_known_to_name_none() -> None:
    without = {name for name, method in METHODS.items() if RULES[path_of(method)].gallery is None}
    assert without == ANSWERS_OF_OWN_GALLERIES


@pytest.mark.parametrize("name", sorted(set(METHODS) - ANSWERS_OF_OWN_GALLERIES))
def test_a_key_of_one_gallery_cannot_see_another(of_mine: Wire, name: str) -> None:
    method = METHODS[name]
    for other in ("theirs", "not-there"):  # whether a gallery exists is not told either
        request = request_naming(method, other)
        refused = refusal(partial(call, of_mine.channel, method, request))
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "GALLERY_DENIED")
        assert "theirs" not in refused.message
    if name != "GalleryService/DeleteGallery":
        assert is_denied(of_mine.channel, method, "mine") == ""


def test_lists_are_of_the_galleries_of_the_key(of_mine: Wire) -> None:
    listed = of_mine.galleries.ListGalleries(gallery_pb2.ListGalleriesRequest(page_size=1))
    assert ([each.name for each in listed.galleries], listed.next_page_token) == (["mine"], "")
    info = of_mine.info()
    assert {each.gallery for each in info.indexes} == {"mine"}
    jobs = of_mine.operations.ListJobs(operations_pb2.ListJobsRequest()).jobs
    assert {each.gallery for each in jobs} == {"mine"}
    erasures = of_mine.erasures.ListErasures(erasure_pb2.ListErasuresRequest()).erasures
    assert {each.gallery for each in erasures} == {"mine"}


def test_what_belongs_to_another_gallery_is_not_there(guarded: Guarded, of_mine: Wire) -> None:
    with guarded.wire(guarded.key(*Role)) as wire:
        jobs = {each.gallery: each.id for each in wire.operations.ListJobs(operations_pb2.ListJobsRequest()).jobs}
        listed = wire.erasures.ListErasures(erasure_pb2.ListErasuresRequest()).erasures
    erasures = {each.gallery: each for each in listed}

    def list_findings(job: int) -> bool:
        return not of_mine.operations.ListJobFindings(operations_pb2.ListJobFindingsRequest(id=job)).findings

    def of(gallery: str) -> list[Callable[[], object]]:
        receipt = erasures[gallery].receipt
        return [
            lambda: of_mine.operations.GetJob(operations_pb2.GetJobRequest(id=jobs[gallery])),
            lambda: list_findings(jobs[gallery]),
            lambda: of_mine.operations.CancelJob(operations_pb2.CancelJobRequest(id=jobs[gallery])),
            lambda: of_mine.erasures.GetErasure(erasure_pb2.GetErasureRequest(id=erasures[gallery].id)),
            lambda: of_mine.erasures.CheckErasure(erasure_pb2.CheckErasureRequest(receipt=receipt)),
        ]

    assert all(ask() for ask in of("mine"))
    not_there, denied = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED
    assert [refusal(ask).code for ask in of("theirs")] == [*[not_there] * 4, denied]


def test_a_stream_ends_at_the_first_request_for_another_gallery(of_mine: Wire) -> None:
    vectors = vectors_of(of_mine)
    requests = [
        enrolment_pb2.EnrolStreamRequest(
            enrol=enrol_request(gallery, f"streamed-{number}", vectors.vector(20 + number))
        )
        for number, gallery in enumerate(["mine", "theirs", "mine"])
    ]
    answered: list[str] = []
    stream = of_mine.enrolment.EnrolStream(iter(requests))
    refused = refusal(lambda: answered.extend(each.enrolled.identity_id for each in stream))
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "GALLERY_DENIED")
    assert answered == ["streamed-0"]


# How often


def test_a_key_that_calls_too_often_is_told_when_to_come_back(guarded: Guarded) -> None:
    with guarded.wire(guarded.key(Role.SEARCH, calls_per_second=0.5)) as wire:
        wire.info()
        refused = refusal(wire.info)
        assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_EXCEEDED")
        assert 0 < refused.detail(error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() <= 2_000


def test_a_stream_that_is_too_fast_is_slowed_down_and_wholly_answered(guarded: Guarded) -> None:
    with guarded.wire(guarded.key(*Role, calls_per_second=10.0)) as wire:
        probe = identify_request("mine", vectors_of(wire).vector(0))
        frames = [identification_pb2.IdentifyStreamRequest(identify=probe)] * 16
        started = time.monotonic()
        answers = list(wire.identification.IdentifyStream(iter(frames)))
        assert len(answers) == 16
        assert time.monotonic() - started > 0.5


def test_a_quota_is_of_a_day_and_counts_over_all_servers(tmp_path: Path) -> None:
    with app_over(tmp_path) as app:
        key = key_of(app._store, Role.SEARCH, calls_per_day=3)
        with Wire(app.address, authorization=key) as wire:
            assert [wire.info().loaded_share for _ in range(2)] == [1, 1]
    with app_over(tmp_path) as app, Wire(app.address, authorization=key) as wire:
        wire.info()
        refused = refusal(wire.info)
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_SPENT")
    assert 0 < refused.detail(error_details_pb2.RetryInfo).retry_delay.ToSeconds() <= 86_400


# The command


def asks_for_keys(address: str) -> bool:
    with Wire(address) as wire:
        return is_denied_entry(wire) == "KEY_MISSING"


def index_command(data: Path, *arguments: str) -> Any:
    """What `facedex-index keys` prints for programs."""
    done = CliRunner().invoke(index_app, ["--data", str(data), "keys", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_from_the_first_key_on_a_server_asks_for_keys(tmp_path: Path) -> None:
    with app_over(tmp_path) as app:
        assert not asks_for_keys(app.address)
        made = index_command(tmp_path, "create", "kiosk", "--role", "search")
        wait_until(lambda: asks_for_keys(app.address), within_seconds=5)
        with Wire(app.address, authorization=f"bearer {made['key']}") as wire:
            assert wire.info().loaded_share == 1
        index_command(tmp_path, "revoke", made["id"])
    with app_over(tmp_path) as app:
        assert asks_for_keys(app.address)  # revoking the last key opens the server to nobody


def test_the_secret_of_a_key_is_shown_once_and_stored_nowhere(tmp_path: Path) -> None:
    data = tmp_path / "before the first start"
    made = index_command(data, "create", "kiosk", "--role", "search", "--role", "vectors", "--gallery", "staff")
    (shown,) = index_command(data, "list")
    secret = made.pop("key").rpartition("_")[2]
    assert shown == made
    assert (shown["label"], shown["roles"], shown["galleries"]) == ("kiosk", ["search", "vectors"], ["staff"])
    assert not any(secret.encode() in each.read_bytes() for each in tmp_path.rglob("*") if each.is_file())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["  ", "--role", "search"], "label"),
        (["kiosk", "--role", "search", "--gallery", "No Gallery"], "gallery"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(tmp_path: Path, options: list[str], named: str) -> None:
    done = CliRunner().invoke(index_app, ["--data", str(tmp_path), "keys", "create", *options])
    assert done.exit_code == 1
    assert named in done.output
    assert CliRunner().invoke(index_app, ["--data", str(tmp_path), "keys", "list", "--json"]).stdout.strip() == "[]"


def test_a_key_that_is_not_there_cannot_be_revoked(tmp_path: Path) -> None:
    done = CliRunner().invoke(index_app, ["--data", str(tmp_path), "keys", "revoke", "0" * 16])
    assert (done.exit_code, "keys list" in done.output) == (1, True)
