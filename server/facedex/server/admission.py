"""How much is done at the same time."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Generator


HEALTH = "/grpc.health."
REFLECTION = "/grpc.reflection."


class Overloaded(Exception):
    """As many requests as the server takes are being handled."""

    reason: ClassVar[str] = "OVERLOADED"

    def __init__(self, *, limit: int, retry_after_seconds: float) -> None:
        super().__init__(f"{limit} requests are being handled, no more are taken; try again in {retry_after_seconds} s")
        self.limit = limit
        self.retry_after_seconds = retry_after_seconds


class Stopping(Exception):
    """The server stops: a stream is not continued."""

    reason: ClassVar[str] = "STOPPING"

    def __init__(self) -> None:
        super().__init__("the server stops; connect again, and send again what was not answered")


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


@dataclass(frozen=True, slots=True)
class Places:
    """How many calls of each kind are handled at the same time, so that none of them crowds out another."""

    requests: Admission
    streams: Admission
    reflections: Admission
    health_checks: Admission
    health_watches: Admission

    @property
    def count(self) -> int:
        kinds = (self.requests, self.streams, self.reflections, self.health_checks, self.health_watches)
        return sum(kind.limit for kind in kinds)

    def of_calls(self, method: str) -> Admission:
        """The places of a method with one request and one answer."""
        return self.health_checks if method.startswith(HEALTH) else self.requests

    def of_streams(self, method: str) -> Admission:
        """The places of a method that goes on."""
        if method.startswith(HEALTH):
            return self.health_watches
        return self.reflections if method.startswith(REFLECTION) else self.streams
