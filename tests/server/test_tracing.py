"""Traces: what a collector gets of a server's calls, and what a server does that has none."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path

import grpc
import pytest
from tests.server.collector import Collector, SeenSpan
from tests.server.faces import enrol_request, photograph
from tests.server.running_server import RunningServer, Wire

from facedex.server.otlp import Lot
from facedex.server.tracing import NoTracing, tracing_to
from facedex.v1 import enrolment_pb2, gallery_pb2, identification_pb2

IDENTIFY = "facedex.v1.IdentificationService/Identify"
TRACE, CALLERS_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
NAMES = (b"ada-7341", b"Ada Lovelace", b"building-seven")
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
EVERY_CALL = {"OTEL_TRACES_SAMPLER": "parentbased_always_on"}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """A server that tells a collector of its calls, with somebody enrolled."""
    data = tmp_path_factory.mktemp("traced") / "data"
    running = RunningServer(data, "--otlp-endpoint", collector.endpoint, environment=SOON | EVERY_CALL)
    with Wire(running.address) as wire:
        wire.galleries.CreateGallery(
            gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name="building-seven"))
        )
        request = enrol_request("building-seven", "ada-7341", photograph(1))
        request.identity.display_name = "Ada Lovelace"
        wire.enrolment.Enrol(request)
        yield wire
    assert running.stop() == 0


def names(spans: list[SeenSpan]) -> set[str]:
    return {each.name for each in spans}


def test_a_search_is_one_span_with_its_steps_below_it_in_the_trace_of_its_caller(
    traced: Wire, collector: Collector
) -> None:
    answer = traced.identification.Identify(
        identification_pb2.IdentifyRequest(gallery="building-seven", image=photograph(1)),
        metadata=(("traceparent", f"00-{TRACE}-{CALLERS_SPAN}-01"), ("tracestate", "who=Ada Lovelace")),
    )
    assert answer.faces[0].candidates[0].identity_id == "ada-7341"
    root, steps = collector.trace_of(lambda each: each.trace_id == TRACE)
    assert (root.name, root.parent_id) == (IDENTIFY, CALLERS_SPAN)
    assert root.attributes["rpc.response.status_code"] == "OK"
    assert names(steps) == {"decode", "detect", "embed", "search", "sql read"}
    assert all(each.trace_id == TRACE for each in steps)
    assert 0 < sum(each.nanoseconds for each in steps) <= root.nanoseconds
    assert collector.services == {"facedex"}


@pytest.mark.usefixtures("traced")
def test_a_caller_without_a_trace_begins_one(collector: Collector) -> None:
    root, steps = collector.trace_of(lambda each: each.name == "facedex.v1.EnrolmentService/Enrol")
    assert root.parent_id == ""
    assert {"decode", "detect", "embed", "sql write"} <= names(steps)


def test_a_stream_is_one_span_whichever_threads_work_for_it(traced: Wire, collector: Collector) -> None:
    requests = [
        enrolment_pb2.EnrolStreamRequest(enrol=enrol_request("building-seven", f"{number}", photograph(number)))
        for number in range(2, 5)
    ]
    assert len(list(traced.enrolment.EnrolStream(iter(requests)))) == 3
    _, steps = collector.trace_of(lambda each: each.name == "facedex.v1.EnrolmentService/EnrolStream")
    assert [each.name for each in steps].count("embed") == 3
    assert "sql write" in names(steps)


def test_a_refused_call_says_why_and_is_no_error_of_the_server(traced: Wire, collector: Collector) -> None:
    with pytest.raises(grpc.RpcError):
        traced.galleries.GetGallery(gallery_pb2.GetGalleryRequest(name="nowhere"))
    root, _ = collector.trace_of(lambda each: each.name == "facedex.v1.GalleryService/GetGallery")
    assert root.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert root.attributes["facedex.reason"] == "GALLERY_NOT_FOUND"
    assert not root.is_error


def test_whom_nobody_wants_to_see_is_in_no_trace(traced: Wire, collector: Collector) -> None:
    traced.health_of("")
    unsampled = (("traceparent", f"00-{'7' * 32}-{CALLERS_SPAN}-00"),)
    traced.identification.Detect(identification_pb2.DetectRequest(image=photograph(1)), metadata=unsampled)
    traced.info()
    collector.trace_of(lambda each: each.name == "facedex.v1.OperationsService/GetServerInfo")
    assert not [each for each in collector.spans if "Health" in each.name or each.trace_id == "7" * 32]
    # The threads that follow the change log read all the time, and of no call.
    assert not [each for each in collector.spans if not each.is_server and each.parent_id == ""]


def test_a_tenth_of_the_calls_is_traced_if_nothing_else_is_said_and_all_that_their_callers_trace(
    tmp_path: Path,
) -> None:
    with Collector() as collector:
        running = RunningServer(tmp_path / "data", "--otlp-endpoint", collector.endpoint, environment=SOON)
        with Wire(running.address) as wire:
            for _ in range(200):
                wire.info()
            wire.galleries.ListGalleries(
                gallery_pb2.ListGalleriesRequest(), metadata=(("traceparent", f"00-{TRACE}-{CALLERS_SPAN}-01"),)
            )
        collector.trace_of(lambda each: each.trace_id == TRACE)
        assert running.stop() == 0
        assert 1 <= len([each for each in collector.spans if each.name.endswith("GetServerInfo")]) <= 60


def test_no_more_are_traced_in_a_second_than_the_machine_can_spare() -> None:
    now = 0.0
    lot = Lot(0.5, at_most=16, clock=lambda: now)
    drawn: list[float] = []
    for now in [call / 1_024 for call in [*range(3_072), *range(60_000, 61_024)]]:  # a pause saves up nothing
        drawn += [now] if lot.is_drawn() else []
    gaps = [later - earlier for earlier, later in pairwise(drawn)]
    assert min(gaps) >= 1 / 16
    assert 56 <= len(drawn) <= 64


def test_of_few_calls_a_share_is_traced() -> None:
    seconds = count()
    lot = Lot(0.5, at_most=20, clock=lambda: next(seconds))
    drawn = sum(lot.is_drawn() for _ in range(2_000))
    assert 900 <= drawn <= 1_100


def test_no_span_tells_of_anybody(traced: Wire, collector: Collector) -> None:
    traced.identification.Detect(identification_pb2.DetectRequest(image=photograph(2)))
    _, steps = collector.trace_of(
        lambda each: each.name == "facedex.v1.IdentificationService/Detect" and each.trace_id != "7" * 32
    )
    assert steps
    known = {"rpc.system.name", "rpc.method", "rpc.response.status_code", "facedex.reason"}
    for span in collector.spans:
        assert set(span.attributes) <= known
        assert not [name for name in NAMES if name in span.raw]
        assert len(span.raw) < 400  # neither a vector nor a photograph has room in it


def test_a_collector_that_is_not_there_holds_nobody_up(tmp_path: Path) -> None:
    running = RunningServer(tmp_path / "data", "--otlp-endpoint", "http://127.0.0.1:9")
    with Wire(running.address) as wire:
        assert wire.info().embedder.dimension > 0
    started = time.monotonic()
    assert running.stop() == 0
    assert time.monotonic() - started < 15


def test_the_variable_of_opentelemetry_turns_traces_on_and_a_server_without_its_packages_says_what_is_missing(
    tmp_path: Path,
) -> None:
    program = "import sys; sys.modules['opentelemetry'] = None; from facedex.server.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'facedex[tracing]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_where_nobody_collects_traces_opentelemetry_is_not_even_imported() -> None:
    assert isinstance(tracing_to(None), NoTracing)
    code = (
        "import sys, facedex.server.app; assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
