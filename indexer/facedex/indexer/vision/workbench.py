from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class Workbench:
    """One place a core: whoever works on a photograph holds one, others wait in turn.

    More threads than cores would only take time from each other. Waiting callers whose deadline passes are let go.
    """

    def __init__(self, places: int, *, patience_seconds: float = 0.25) -> None:
        self._places = threading.BoundedSemaphore(places)
        self._patience_seconds = patience_seconds

    @contextmanager
    def place(self, checkpoint: Callable[[], None]) -> Generator[None]:
        checkpoint()
        while not self._places.acquire(timeout=self._patience_seconds):
            checkpoint()
        try:
            yield
        finally:
            self._places.release()


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
