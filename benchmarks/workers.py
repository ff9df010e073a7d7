"""Callers in processes of their own, each of which does one thing again and again."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Protocol, Self

import numpy as np

# All callers of a round begin at the same moment; by then every one of them has heard of it.
LEAD_SECONDS = 0.2

Task = Callable[[], object]


class Job(Protocol):
    """What a caller does: `open` is called once, in the caller's process, and gives the thing to repeat."""

    def open(self, number: int) -> Task: ...


@dataclass(frozen=True, slots=True)
class Round:
    """What callers did in one round: seconds each call took, and calls a second of all callers together."""

    seconds: list[float]
    per_second: float

    def percentile_ms(self, percent: float) -> float:
        return 1000 * float(np.percentile(self.seconds, percent))


class Workers:
    """Processes that wait, using no processor, until a round begins."""

    def __init__(self, job: Job, count: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["benchmarks.workers", type(job).__module__])
        pipes = [context.Pipe() for _ in range(count)]
        self._pipes = [ours for ours, _ in pipes]
        self._processes = [
            context.Process(target=_work, args=(job, number, theirs), daemon=True)
            for number, (_, theirs) in enumerate(pipes)
        ]
        for process in self._processes:
            process.start()
        for pipe in self._pipes:
            pipe.recv()

    def run(self, count: int, *, seconds: float) -> Round:
        """The first `count` callers, each of them without a pause between its calls."""
        begin = time.perf_counter() + LEAD_SECONDS
        chosen = self._pipes[:count]
        for pipe in chosen:
            pipe.send((begin, begin + seconds))
        return joined([pipe.recv() for pipe in chosen])

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run_in_threads(tasks: list[Task], *, seconds: float) -> Round:
    """Each task in a thread of its own in this process, without a pause between its calls."""
    begin = time.perf_counter() + LEAD_SECONDS
    with ThreadPoolExecutor(len(tasks)) as pool:
        return joined(list(pool.map(partial(repeat, begin=begin, end=begin + seconds), tasks)))


def repeat(task: Task, *, begin: float, end: float) -> list[float]:
    """Seconds of each call; the last one began before the end."""
    time.sleep(max(0.0, begin - time.perf_counter()))
    times: list[float] = []
    started = time.perf_counter()
    while started < end:
        task()
        finished = time.perf_counter()
        times.append(finished - started)
        started = finished
    return times


def joined(times: list[list[float]]) -> Round:
    """A caller's rate is over the time until its last answer, so that a slow call does not count as none."""
    return Round([each for caller in times for each in caller], sum(len(caller) / sum(caller) for caller in times))


def _work(job: Job, number: int, pipe: Connection) -> None:
    task = job.open(number)
    task()  # connects and warms up
    pipe.send("ready")
    while (span := pipe.recv()) is not None:
        pipe.send(repeat(task, begin=span[0], end=span[1]))
