"""How long a caller may keep the server waiting."""

from __future__ import annotations

import math
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import grpc

SWEEP_SECONDS = 0.25
# While the server stops, whoever is only waited for is sent away after this.
DRAINING_PATIENCE_SECONDS = 0.5
# A connection that is closed before its caller has read why its stream ended may take the reason with it.
LAST_WORDS_SECONDS = 1.0


@dataclass(slots=True)
class _Wait:
    context: grpc.ServicerContext
    since: float
    seconds: float


class Patience:
    """Ends calls whose next message does not arrive in time.

    A thread waits with each call, so a caller that opens calls and sends nothing would hold all of them for ever. A call
    whose work is under way is never ended from here.
    """

    def __init__(self) -> None:
        self._waits: dict[object, _Wait] = {}
        self._busy: dict[grpc.ServicerContext, Callable[[], bool]] = {}
        self._streams = 0
        self._changed = threading.Condition()
        self._limit = math.inf
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="patience", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def lose(self) -> None:
        """From now on nobody is waited for, for the server stops."""
        self._limit = DRAINING_PATIENCE_SECONDS

    @contextmanager
    def streaming(self) -> Generator[None]:
        """Inside this block, a stream is under way."""
        with self._changed:
            self._streams += 1
        try:
            yield
        finally:
            with self._changed:
                self._streams -= 1
                self._changed.notify_all()

    def wait_for_streams(self, seconds: float) -> None:
        """Until all streams have ended and their callers have had time to read why, at most this long."""
        with self._changed:
            if self._streams and self._changed.wait_for(lambda: not self._streams, seconds):
                self._changed.wait(LAST_WORDS_SECONDS)

    @property
    def is_lost(self) -> bool:
        return self._limit < math.inf

    @contextmanager
    def waiting(self, context: grpc.ServicerContext, *, seconds: float) -> Generator[None]:
        """The call waits for its caller inside this block, for as long as this."""
        key = object()
        self._waits[key] = _Wait(context, time.monotonic(), seconds)
        try:
            yield
        finally:
            del self._waits[key]

    @contextmanager
    def while_busy(self, context: grpc.ServicerContext, is_busy: Callable[[], bool]) -> Generator[None]:
        """Inside this block, the call's time of waiting begins when it is no longer busy with what came before."""
        self._busy[context] = is_busy
        try:
            yield
        finally:
            del self._busy[context]

    def _run(self) -> None:
        while not self._stopping.wait(SWEEP_SECONDS):
            now = time.monotonic()
            for wait in list(self._waits.values()):
                if self._is_busy(wait.context):
                    wait.since = now
                elif now - wait.since > min(wait.seconds, self._limit):
                    wait.context.cancel()

    def _is_busy(self, context: grpc.ServicerContext) -> bool:
        is_busy = self._busy.get(context)
        return is_busy is not None and is_busy()
