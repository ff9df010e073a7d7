"""What a server does that is asked for four times as much as it can: whom it answers, how it refuses, and how it stops.

    python -m benchmarks.overload --seconds 60 --json build/overload.json

First the capacity is measured: as many callers as the server takes, each asking again when it has its answer. Then calls
come at a multiple of that rate, whether the others are answered or not, from a process of their own. Meanwhile this
process asks for the server's health on a connection of its own, and looks at its memory. At the end, SIGTERM comes while
the calls still come.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any, Self

import grpc
import numpy as np
import typer
from benchmarks.machine import describe_machine
from benchmarks.photographs import find_portraits, make_photographs
from benchmarks.report import Bar, Side, bars_as_json, print_bars, print_table, write_json
from benchmarks.server_process import ServerProcess
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from facedex.v1 import gallery_pb2, gallery_pb2_grpc, identification_pb2, identification_pb2_grpc

PEOPLE = Path(__file__).parent.parent / "tests" / "data" / "people"
PHOTOGRAPHS = 8
GALLERY = "staff"
# Calls of one server, unless it is told otherwise: the server's own default.
PLACES = 64
# As `facedex-server serve --drain-seconds` has it.
DRAIN_SECONDS = 10.0
PROBES_PER_SECOND = 20
# The first of the run: buffers and pools grow to what the load needs.
WARM_UP_SHARE = 0.2
CALL_SECONDS = 120.0

HEALTH_P99_MS = 50.0
# An answer waits for those who came before it, and cores are not shared out evenly.
LATENCY_FACTOR = 2.0
MEMORY_GROWTH = 1.1
LEAST_GOODPUT = 0.8
# The drain, and what closing takes on a busy machine.
STOP_SECONDS = DRAIN_SECONDS + 5.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call ended: `code` OK, or the status; `is_told_when` whether a refusal says when to come again."""

    code: str
    seconds: float
    is_told_when: bool


@dataclass(frozen=True, slots=True)
class Overload:
    """What was seen. Seconds and bytes; `refused_otherwise` are refusals that are none of being too many, by status."""

    capacity_per_second: float
    offered_per_second: float
    answered_per_second: float
    refused_count: int
    refused_otherwise: dict[str, int]
    latency_p50: float
    latency_p99: float
    latency_bound: float
    health_p50: float
    health_p99: float
    resident_bytes: tuple[int, ...] = field(repr=False)

    @property
    def memory_growth(self) -> float:
        """How much larger the process was in the last quarter than in the first, when it had warmed up."""
        seen = self.resident_bytes[int(len(self.resident_bytes) * WARM_UP_SHARE) :]
        quarter = max(1, len(seen) // 4)
        return statistics.median(seen[-quarter:]) / statistics.median(seen[:quarter])


def main(
    *,
    seconds: Annotated[float, typer.Option(help="How long too much is asked for.")] = 60.0,
    multiple: Annotated[float, typer.Option(help="Of the capacity.")] = 4.0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Finds the capacity, asks for more, and stops the server under the load."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(Path(folder) / "data", "--max-concurrent-requests", str(PLACES)) as server,
    ):
        seen, stop_seconds = overloaded(server, places=PLACES, multiple=multiple, seconds=seconds)
    _report(seen, stop_seconds)
    bars = bars_of(seen, stop_seconds)
    print_bars(bars)
    figures = {"machine": describe_machine(), "overload": asdict(seen), "stop_seconds": stop_seconds}
    write_json(json_path, {**figures, "bars": bars_as_json(bars)})


def overloaded(server: ServerProcess, *, places: int, multiple: float, seconds: float) -> tuple[Overload, float]:
    """Measures a server that takes so many calls at a time, and how long it takes to stop; it is stopped then."""
    photographs = make_photographs(find_portraits(PEOPLE, PHOTOGRAPHS))
    with grpc.insecure_channel(server.address) as channel:
        wanted = gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name=GALLERY))
        gallery_pb2_grpc.GalleryServiceStub(channel).CreateGallery(wanted)
    capacity = capacity_of(server.address, photographs, callers=places, seconds=max(2.0, seconds / 10))
    rate = multiple * capacity
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawning) as caller, Watch(server) as watch:
        calls = caller.submit(offer, server.address, photographs, rate=rate, seconds=seconds)
        ended = calls.result()
        seen = _seen(ended, watch, capacity=capacity, rate=rate, seconds=seconds, bound=_bound(places, capacity))
        with _still_offering(caller, server.address, photographs, rate):
            started = time.perf_counter()
            server.stop()
            return seen, time.perf_counter() - started


def _bound(places: int, capacity: float) -> float:
    return LATENCY_FACTOR * places / capacity


def capacity_of(address: str, photographs: Sequence[bytes], *, callers: int, seconds: float) -> float:
    """Answers a second to so many callers who ask again and again."""
    deadline = threading.Event()

    def answers(place: int) -> int:
        with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = identification_pb2_grpc.IdentificationServiceStub(channel)
            for count, photograph in enumerate(cycle(photographs[place % len(photographs) :])):
                stub.Identify(_request(photograph), timeout=CALL_SECONDS)
                if deadline.is_set():
                    return count + 1
        return 0

    with ThreadPoolExecutor(callers) as threads:
        counts = [threads.submit(answers, place) for place in range(callers)]
        started = time.perf_counter()
        time.sleep(seconds)
        deadline.set()
        total = sum(each.result() for each in counts)
        return total / (time.perf_counter() - started)


def offer(address: str, photographs: Sequence[bytes], *, rate: float, seconds: float) -> list[Ended]:
    """Makes calls at a rate, whatever becomes of those before; how each ended. Runs in a process of its own."""
    with grpc.insecure_channel(address) as channel:
        identify = identification_pb2_grpc.IdentificationServiceStub(channel).Identify
        requests, started = cycle([_request(each) for each in photographs]), time.perf_counter()
        calls: list[Future[Ended]] = []
        for due in np.arange(0.0, seconds, 1 / rate):
            time.sleep(max(0.0, started + float(due) - time.perf_counter()))
            calls.append(_call(identify, next(requests)))
        return [each.result() for each in calls]


def _call(identify: Any, request: identification_pb2.IdentifyRequest) -> Future[Ended]:
    ended, started = Future[Ended](), time.perf_counter()
    call = identify.future(request, timeout=CALL_SECONDS)

    def note(done: Any) -> None:
        ended.set_result(_ended(done, time.perf_counter() - started))

    call.add_done_callback(note)
    return ended


def _ended(call: Any, seconds: float) -> Ended:
    return Ended(call.code().name, seconds, _is_told_when(call))


def _is_told_when(call: Any) -> bool:
    status = None if call.code() is grpc.StatusCode.OK else rpc_status.from_call(call)
    return status is not None and any(each.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for each in status.details)


def _request(photograph: bytes) -> identification_pb2.IdentifyRequest:
    return identification_pb2.IdentifyRequest(gallery=GALLERY, image=photograph)


class Watch:
    """Asks for a server's health all the time, and looks at its memory, inside a `with` block."""

    def __init__(self, server: ServerProcess) -> None:
        self.health_seconds: list[float] = []
        self.resident_bytes: list[int] = []
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """What is seen from now on does not count."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with grpc.insecure_channel(self._server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            while not self._over.wait(1 / PROBES_PER_SECOND):
                started = time.perf_counter()
                health.Check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS)
                self.health_seconds.append(time.perf_counter() - started)
                self.resident_bytes.append(self._server.resident_bytes)


def _seen(
    ended: Sequence[Ended], watch: Watch, *, capacity: float, rate: float, seconds: float, bound: float
) -> Overload:
    watch.end()
    latencies = [each.seconds for each in ended if each.code == "OK"]
    refused = [each for each in ended if each.code != "OK"]
    return Overload(
        capacity_per_second=capacity,
        offered_per_second=rate,
        answered_per_second=len(latencies) / seconds,
        refused_count=len(refused),
        refused_otherwise=dict(Counter(each.code for each in refused if not _is_proper(each))),
        latency_p50=_percentile(latencies, 50),
        latency_p99=_percentile(latencies, 99),
        latency_bound=bound,
        health_p50=_percentile(watch.health_seconds, 50),
        health_p99=_percentile(watch.health_seconds, 99),
        resident_bytes=tuple(watch.resident_bytes),
    )


def _is_proper(refusal: Ended) -> bool:
    return refusal.code == "RESOURCE_EXHAUSTED" and refusal.is_told_when


def _percentile(values: Iterable[float], share: float) -> float:
    return float(np.percentile(list(values) or [0.0], share))


@contextmanager
def _still_offering(
    caller: ProcessPoolExecutor, address: str, photographs: Sequence[bytes], rate: float
) -> Generator[None]:
    """Calls go on coming; how they end is not looked at, since the server goes away."""
    calls = caller.submit(offer, address, photographs, rate=rate, seconds=STOP_SECONDS / 3)
    time.sleep(STOP_SECONDS / 10)
    try:
        yield
    finally:
        calls.result()


def bars_of(seen: Overload, stop_seconds: float) -> list[Bar]:
    """What is promised of a server under too much load, beside what was seen."""
    return [
        Bar("refusals but RESOURCE_EXHAUSTED with RetryInfo", Side.AT_MOST, 0, sum(seen.refused_otherwise.values())),
        Bar("health, p99, ms", Side.AT_MOST, HEALTH_P99_MS, 1_000 * seen.health_p99),
        Bar("latency of who is admitted, p99, s", Side.AT_MOST, seen.latency_bound, seen.latency_p99),
        Bar("memory, end and beginning", Side.AT_MOST, MEMORY_GROWTH, seen.memory_growth),
        Bar(
            "answers, share of the capacity",
            Side.AT_LEAST,
            LEAST_GOODPUT,
            seen.answered_per_second / seen.capacity_per_second,
        ),
        Bar("SIGTERM to exit under the load, s", Side.AT_MOST, STOP_SECONDS, stop_seconds),
    ]


def _report(seen: Overload, stop_seconds: float) -> None:
    rows: list[tuple[str, str]] = [
        ("capacity, calls/s", f"{seen.capacity_per_second:.1f}"),
        ("offered, calls/s", f"{seen.offered_per_second:.1f}"),
        ("answered, calls/s", f"{seen.answered_per_second:.1f}"),
        ("refused, calls", str(seen.refused_count)),
        ("latency of who is admitted, p50 and p99, s", f"{seen.latency_p50:.2f}, {seen.latency_p99:.2f}"),
        ("health, p50 and p99, ms", f"{1_000 * seen.health_p50:.1f}, {1_000 * seen.health_p99:.1f}"),
        ("largest memory, MiB", f"{max(seen.resident_bytes) / 2**20:.0f}"),
        ("SIGTERM to exit, s", f"{stop_seconds:.1f}"),
    ]
    print_table("Asked for too much", ("", ""), rows)


if __name__ == "__main__":
    typer.run(main)
