"""More callers than the server takes, and callers who keep it waiting."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from benchmarks.overload import bars_of, overloaded
from benchmarks.server_process import ServerProcess
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from tests.server.faces import enrol_request, photograph
from tests.server.own_server import app_over
from tests.server.running_server import RunningServer, Wire, refusal, refusal_of
from tests.waiting import wait_until

from facedex.indexer.api_key import ApiKey
from facedex.indexer.store.api_keys import ApiKeys
from facedex.v1 import enrolment_pb2, gallery_pb2, identification_pb2, operations_pb2

WAIT_SECONDS = 20
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that takes two calls and two streams at a time, and has a gallery."""
    limits = ("--max-concurrent-requests", "2", "--max-concurrent-streams", "2", "--workers", "1")
    running = RunningServer(tmp_path_factory.mktemp("small") / "data", *limits)
    with Wire(running.address) as wire:
        wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name="staff")))
    yield running
    assert running.stop() == 0


@pytest.fixture
def silence() -> Iterator[threading.Event]:
    """While it lasts, `say_nothing` keeps its calls open."""
    over = threading.Event()
    yield over
    over.set()


def say_nothing(silence: threading.Event) -> Iterator[Any]:
    """The requests of a caller who opens a call and sends no message."""
    silence.wait()
    yield from ()


def test_more_calls_than_the_server_takes_are_told_when_to_come_back(small: RunningServer) -> None:
    with Wire(small.address) as wire:
        requests = [
            enrol_request("staff", f"person {person}", *(photograph(person, take) for take in range(1, 6)))
            for person in range(1, 13)
        ]
        calls = [wire.enrolment.Enrol.future(each) for each in requests]
        started = time.monotonic()
        assert wire.health_of("") == SERVING
        assert time.monotonic() - started < 1
        errors = [each.exception() for each in calls]
        refusals = [refusal_of(each) for each in errors if each is not None]
        assert 2 <= errors.count(None) < 12
        for refused in refusals:
            assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert refused.detail(error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() > 0
        after = wire.enrolment.Enrol(requests[0])
        assert all(each.template_id for each in after.results)


def test_a_database_that_hangs_takes_no_more_threads_than_there_are_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, may_go_on = threading.Event(), threading.Event()
    read = ApiKeys.all

    def slow(keys: ApiKeys) -> list[ApiKey]:
        assert not hangs.is_set() or may_go_on.wait(WAIT_SECONDS)
        return read(keys)

    monkeypatch.setattr(ApiKeys, "all", slow)
    with app_over(tmp_path / "data", max_concurrent_requests=2) as app, Wire(app.address) as wire:
        request, any_key = operations_pb2.GetServerInfoRequest(), (("authorization", "Bearer any"),)
        hangs.set()
        calls = [wire.operations.GetServerInfo.future(request, metadata=any_key) for _ in range(200)]
        try:
            wait_until(lambda: sum(each.done() for each in calls) == 198)
            assert wire.health_of("") == SERVING
        finally:
            may_go_on.set()
        errors = [each.exception() for each in calls]
        assert errors.count(None) == 2
        assert {refusal_of(each).reason for each in errors if each is not None} == {"OVERLOADED"}


def test_a_stream_too_many_is_refused_until_another_one_ends(small: RunningServer, silence: threading.Event) -> None:
    with Wire(small.address) as wire:
        open_streams: list[Any] = [wire.enrolment.EnrolStream(say_nothing(silence)) for _ in range(2)]
        probe = enrolment_pb2.EnrolStreamRequest(enrol=enrol_request("staff", "ada", photograph(1)))

        def enrolled() -> bool:
            try:
                return [each.WhichOneof("answer") for each in wire.enrolment.EnrolStream(iter([probe]))] == ["enrolled"]
            except grpc.RpcError as error:
                assert refusal_of(error).reason == "OVERLOADED"  # noqa: PT017
                return False

        def is_full() -> bool:
            # One that was refused itself, since a probe had its place, comes again.
            for place, each in enumerate(open_streams):
                if not each.is_active():
                    open_streams[place] = wire.enrolment.EnrolStream(say_nothing(silence))
            return not enrolled()

        wait_until(is_full)
        open_streams[0].cancel()
        wait_until(enrolled)


def test_streams_whose_callers_hung_up_in_their_middle_leave_their_places(small: RunningServer) -> None:
    with Wire(small.address) as wire:
        for number in range(20):
            frame = enrolment_pb2.EnrolStreamRequest(enrol=enrol_request("staff", f"{number}", photograph(number + 1)))
            stream = wire.enrolment.EnrolStream(itertools.repeat(frame))
            wait_until(lambda each=stream: _has_answered(each))  # type: ignore[misc]
            stream.cancel()
        assert small.is_alive


def _has_answered(stream: Any) -> bool:
    try:
        next(stream)
    except grpc.RpcError as error:
        # The place of the stream before may not be free yet; this stream is over then, and so is its turn.
        assert refusal_of(error).reason == "OVERLOADED"  # noqa: PT017
    return True


SILENT_CALLS = {
    "calls without their message": ("stream_unary", "/facedex.v1.IdentificationService/Detect"),
    "idle streams": ("stream_stream", "/facedex.v1.IdentificationService/IdentifyStream"),
    "idle reflections": ("stream_stream", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
    "health watches without their message": ("stream_stream", "/grpc.health.v1.Health/Watch"),
}


@pytest.mark.parametrize(("kind", "method"), SILENT_CALLS.values(), ids=SILENT_CALLS.keys())
def test_a_hundred_silent_calls_do_not_silence_the_server(
    server: RunningServer, silence: threading.Event, kind: str, method: str
) -> None:
    with Wire(server.address) as hostile, Wire(server.address) as wire:
        make: Any = getattr(hostile.channel, kind)(method)
        start = make.future if kind == "stream_unary" else make
        calls = [start(say_nothing(silence)) for _ in range(150)]
        wait_until(lambda: sum(not each.is_active() for each in calls) > 50)
        assert wire.health.Check(health_pb2.HealthCheckRequest(), timeout=5).status == SERVING
        detect = identification_pb2.DetectRequest(image=photograph(1))
        if kind != "stream_unary":
            assert len(wire.identification.Detect(detect, timeout=10).faces) == 1
        else:
            assert refusal(lambda: wire.identification.Detect(detect, timeout=10)).reason == "OVERLOADED"
        for each in calls:
            each.cancel()
    with Wire(server.address) as wire:
        wait_until(lambda: _answers(wire))


def _answers(wire: Wire) -> bool:
    try:
        return len(wire.identification.Detect(identification_pb2.DetectRequest(image=photograph(1))).faces) == 1
    except grpc.RpcError:
        return False


@pytest.mark.timeout(300)
def test_four_times_too_much_is_refused_by_its_name_and_health_is_answered_meanwhile(tmp_path: Path) -> None:
    """What `python -m benchmarks.overload` shows in a minute, in a few seconds: no bound on a time that a busy machine breaks."""
    places = 4
    with ServerProcess(tmp_path / "data", "--max-concurrent-requests", f"{places}", "--workers", "1") as server:
        seen, _ = overloaded(server, places=places, multiple=4, seconds=3)
    assert seen.refused_count > 0
    assert seen.refused_otherwise == {}
    assert seen.answered_per_second > 0
    assert len(seen.resident_bytes) > 0
    assert seen.health_p50 < 1
    figures = {each.what: each for each in bars_of(replace(seen, refused_otherwise={"UNAVAILABLE": 1}), 0)}
    assert not figures["refusals but RESOURCE_EXHAUSTED with RetryInfo"].is_met
