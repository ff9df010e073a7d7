"""Searches that come at the same time are made together."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facedex.indexer.search.template_index import Hit

# Probes of one search: enough to read each code from memory for many of them, few enough to be answered soon.
MOST_PROBES = 64


class Search(Protocol):
    """Finds the best identities for each of the probes (n, dimension)."""

    def __call__(self, probes: NDArray[np.float32], *, limit: int, min_score: float) -> list[tuple[Hit, ...]]: ...


@dataclass(eq=False, slots=True)
class _Request:
    probes: NDArray[np.float32]
    limit: int
    min_score: float
    woken: threading.Event = field(default_factory=threading.Event)
    hits: list[tuple[Hit, ...]] | None = None
    error: BaseException | None = None

    @property
    def is_answered(self) -> bool:
        return self.hits is not None or self.error is not None

    def goes_with(self, other: _Request) -> bool:
        return (self.limit, self.min_score) == (other.limit, other.min_score)


class Company:
    """Merges searches without ever waiting for more of them.

    One search runs at a time, on all cores. Who comes meanwhile waits, and the first who waited then searches for everybody
    who waits for the same kind of answer. So a lone search is not delayed, and a crowd shares the way through the memory.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._waiting: list[_Request] = []
        self._is_led = False
        self._changing = threading.Lock()

    def search(self, probes: NDArray[np.float32], *, limit: int, min_score: float) -> list[tuple[Hit, ...]]:
        """What the search itself would find, which starts after this call."""
        request = _Request(probes, limit, min_score)
        if not self._is_first(request):
            request.woken.wait()
        if not request.is_answered:
            self._lead()
        if request.error is not None:
            raise request.error
        return request.hits or []

    @property
    def waiting(self) -> int:
        """Number of searches that wait for the one under way."""
        return len(self._waiting)

    def _is_first(self, request: _Request) -> bool:
        """Queues up; whether nobody searches now."""
        with self._changing:
            self._waiting.append(request)
            is_first, self._is_led = not self._is_led, True
        return is_first

    def _lead(self) -> None:
        """Answers everybody who goes with the first in the queue, and hands over to the next."""
        together = self._take()
        try:
            self._answer(together)
        finally:
            self._hand_over()
            for request in together:
                request.woken.set()

    def _take(self) -> list[_Request]:
        with self._changing:
            first = self._waiting[0]
            together: list[_Request] = []
            probes = 0
            for request in self._waiting:
                if request is first or (request.goes_with(first) and probes + len(request.probes) <= MOST_PROBES):
                    together.append(request)
                    probes += len(request.probes)
            self._waiting = [each for each in self._waiting if each not in together]
        return together

    def _answer(self, together: list[_Request]) -> None:
        first = together[0]
        try:
            probes = np.concatenate([each.probes for each in together])
            found = self._search(probes, limit=first.limit, min_score=first.min_score)
        except BaseException as error:  # noqa: BLE001  (each of those who wait raises it)
            for request in together:
                request.error = error
            return
        for request in together:
            request.hits, found = found[: len(request.probes)], found[len(request.probes) :]

    def _hand_over(self) -> None:
        with self._changing:
            self._is_led = bool(self._waiting)
            if self._waiting:
                self._waiting[0].woken.set()
