"""How much is done at the same time."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator


class Overloaded(Exception):
    """As many requests as the server takes are being handled."""

    def __init__(self, *, limit: int, retry_after_seconds: float) -> None:
        super().__init__(f"{limit} requests are being handled, no more are taken; try again in {retry_after_seconds} s")
        self.limit = limit
        self.retry_after_seconds = retry_after_seconds


class Admission:
    """Lets `limit` callers in and turns further ones away at once, so that waiting never grows without bound."""

    def __init__(self, limit: int, *, retry_after_seconds: float = 0.5) -> None:
        self.limit = limit
        self._retry_after_seconds = retry_after_seconds
        self._places = threading.BoundedSemaphore(limit)

    @contextmanager
    def place(self) -> Generator[None]:
        if not self._places.acquire(blocking=False):
            raise Overloaded(limit=self.limit, retry_after_seconds=self._retry_after_seconds)
        try:
            yield
        finally:
            self._places.release()
