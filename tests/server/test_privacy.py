"""What the server's log and its errors give away: nothing about anybody."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import grpc
import pytest
from tests.server.conftest import StartServer, vectors_of
from tests.server.faces import enrol_request, identify_request, photograph
from tests.server.running_server import Refusal, RunningServer, Wire, refusal

from facedex.v1 import enrolment_pb2, gallery_pb2
from facedex.v1.identification_pb2 import VerifyRequest

TELLING = ("zebedee-7431", "Zebedee Quux", "allergic-to-nuts", "form-9917", "request-5521", "cost-centre")


def say_everything(wire: Wire) -> None:
    """A session in which each field says something that nobody else should read, and some calls fail."""
    person, name, value, consent, request_id, key = TELLING
    wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name="staff")))
    request = enrol_request("staff", person, photograph(1), vectors_of(wire).vector(1), request_id=request_id)
    request.identity.display_name, request.identity.consent_reference = name, consent
    request.identity.attributes[key] = value
    wire.enrolment.Enrol(request)
    list(wire.enrolment.EnrolStream(iter([enrolment_pb2.EnrolStreamRequest(enrol=request)])))
    probe = identify_request("staff", photograph(1, 2))
    probe.filters.add(key=key, values=[value])
    probe.request_id = request_id
    wire.identification.Identify(probe)
    wire.identification.Verify(VerifyRequest(gallery="staff", image=photograph(1, 2), identity_id=person))
    for broken in _broken(wire, person, request_id):
        assert refusal(broken).code is not grpc.StatusCode.OK


def _broken(wire: Wire, person: str, request_id: str) -> list[Callable[[], object]]:
    other = enrol_request("staff", f"{person}-too", photograph(2), request_id=request_id)
    unknown = enrolment_pb2.GetIdentityRequest(gallery="staff", identity_id=f"{person}-three")
    return [
        lambda: wire.enrolment.Enrol(other),
        lambda: wire.enrolment.GetIdentity(unknown),
        lambda: wire.enrolment.Enrol(enrol_request("staff", f"{person}\n", photograph(2))),
        lambda: wire.identification.Identify(identify_request(person, photograph(1))),
        lambda: wire.raw_call("/facedex.v1.EnrolmentService/Enrol", person.encode()),
    ]


def assert_says_nothing(text: str) -> None:
    for telling in TELLING:
        assert telling not in text
        assert telling.encode().hex() not in text


def test_the_log_says_nothing_about_anybody(start_server: StartServer) -> None:
    server = start_server()
    with Wire(server.address) as wire:
        say_everything(wire)
    server.stop()
    assert_says_nothing(server.log())
    assert photograph(1)[:8].hex() not in server.log()
    assert max(len(line) for line in server.log().splitlines()) < 1_000
    calls = [each for each in server.events() if each["event"] == "call"]
    assert {"OK", "NOT_FOUND", "INVALID_ARGUMENT"} <= {each["code"] for each in calls}


BREAKAGES = {
    "a table is gone": ("DROP TABLE change", "STORE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE),
    "a policy is no policy": ("UPDATE gallery SET policy = '{}'", "INTERNAL", grpc.StatusCode.INTERNAL),
}


@pytest.mark.parametrize(("statement", "reason", "code"), BREAKAGES.values(), ids=BREAKAGES.keys())
def test_an_unexpected_error_is_named_without_a_stack_trace(
    start_server: StartServer, statement: str, reason: str, code: grpc.StatusCode
) -> None:
    server = start_server()
    with Wire(server.address) as wire:
        say_everything(wire)
        break_database(server, statement)
        person = TELLING[0]
        attempts: list[Callable[[], object]] = [
            lambda: wire.enrolment.Enrol(enrol_request("staff", person, photograph(3))),
            lambda: wire.galleries.GetGallery(gallery_pb2.GetGalleryRequest(name="staff")),
        ]
        refusals = [_refusal_or_none(each) for each in attempts]
        (refused, *_) = [each for each in refusals if each is not None]
        assert (refused.code, refused.reason) == (code, reason)
        for revealing in ("Traceback", ".py", "line ", "SELECT", "INSERT", person):
            assert revealing not in refused.message
        assert wire.info().version
    assert_says_nothing(server.log())
    assert "Traceback" not in server.log()


def _refusal_or_none(call: Callable[[], object]) -> Refusal | None:
    try:
        return refusal(call)
    except AssertionError:
        return None


def break_database(server: RunningServer, statement: str) -> None:
    with sqlite3.connect(server.data / "facedex.db", timeout=10) as database:
        database.execute(statement)
