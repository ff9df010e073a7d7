"""Pictures of many callers, run together: one thread a device takes what is queued, and never waits for more."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from facedex.indexer.vision.accelerated.engine import MOST_AT_ONCE, Pictures

Results = list[NDArray[np.float32]]


class BatchStarted(Protocol):
    """A batch under way."""

    def result(self) -> Results: ...


class StartsBatches(Protocol):
    """What an `Engine` does."""

    def start(self, parts: Sequence[Pictures]) -> BatchStarted: ...


class _Request:
    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        self.answer: Future[Results] = Future()


class Batches:
    """A queue of pictures in front of one or several devices.

    A lone picture starts at once. While a device works, callers queue up, and the next batch takes all of them that have
    pictures of one size, up to `most_at_once`. While that one runs, the one after it is put together.
    """

    def __init__(self, engines: Sequence[StartsBatches], *, most_at_once: int = MOST_AT_ONCE) -> None:
        self._most_at_once = most_at_once
        self._queue: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(engine,), name=f"device-{number}", daemon=True)
            for number, engine in enumerate(engines)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, pictures: Pictures) -> Results:
        """The outputs for pictures (n, 3, height, width), in their order. Raises what the device raised."""
        most = self._most_at_once
        parts = [_Request(pictures[start : start + most]) for start in range(0, len(pictures), most)]
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the device is closed")
            self._queue.extend(parts)
            self._changed.notify_all()
        answers = [part.answer.result() for part in parts]
        return answers[0] if len(answers) == 1 else [np.concatenate(each) for each in zip(*answers, strict=True)]

    def close(self) -> None:
        """Answers what is queued, and ends the threads."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self, engine: StartsBatches) -> None:
        under_way: tuple[list[_Request], BatchStarted] | None = None
        while True:
            together = self._taken(waits=under_way is None)
            if not together and under_way is None:
                return
            started = _started(engine, together) if together else None
            if under_way is not None:
                _answer(*under_way)
            under_way = (together, started) if started is not None else None

    def _taken(self, *, waits: bool) -> list[_Request]:
        """Who goes into the next batch; nobody where nobody is queued, after waiting until it is closed."""
        with self._changed:
            if waits:
                self._changed.wait_for(lambda: self._queue or self._is_closed)
            together: list[_Request] = []
            count = 0
            while self._queue and count + len(self._queue[0].pictures) <= self._most_at_once:
                if together and self._queue[0].pictures.shape[1:] != together[0].pictures.shape[1:]:
                    break
                together.append(self._queue.popleft())
                count += len(together[-1].pictures)
            return together


def _started(engine: StartsBatches, together: list[_Request]) -> BatchStarted | None:
    try:
        return engine.start([request.pictures for request in together])
    except BaseException as error:  # noqa: BLE001  (each of those who wait raises it)
        _fail(together, error)
        return None


def _answer(together: list[_Request], started: BatchStarted) -> None:
    try:
        outputs = started.result()
    except BaseException as error:  # noqa: BLE001
        _fail(together, error)
        return
    start = 0
    for request in together:
        end = start + len(request.pictures)
        request.answer.set_result([each[start:end] for each in outputs])
        start = end


def _fail(together: list[_Request], error: BaseException) -> None:
    for request in together:
        request.answer.set_exception(error)
