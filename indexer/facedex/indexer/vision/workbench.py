from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class Workbench:
    """One place a core: whoever works on a photograph holds one, others get theirs in the order in which they came.

    More threads than cores would only take time from each other. Waiting callers whose deadline passes are let go. A
    semaphore would not do: who looks up from waiting to see whether it still makes sense loses its turn there.
    """

    def __init__(self, places: int, *, patience_seconds: float = 0.25) -> None:
        self._free = places
        self._waiting: deque[threading.Event] = deque()
        self._changing = threading.Lock()
        self._patience_seconds = patience_seconds

    @contextmanager
    def place(self, checkpoint: Callable[[], None]) -> Generator[None]:
        checkpoint()
        turn = self._come()
        try:
            while not turn.wait(self._patience_seconds):
                checkpoint()
        except BaseException:
            self._leave(turn)
            raise
        try:
            yield
        finally:
            self._pass_on()

    def _come(self) -> threading.Event:
        """Set once there is a place."""
        turn = threading.Event()
        with self._changing:
            if self._free:
                self._free -= 1
                turn.set()
            else:
                self._waiting.append(turn)
        return turn

    def _leave(self, turn: threading.Event) -> None:
        with self._changing:
            if not turn.is_set():
                self._waiting.remove(turn)
                return
        self._pass_on()  # it got its place a moment too late

    def _pass_on(self) -> None:
        with self._changing:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
