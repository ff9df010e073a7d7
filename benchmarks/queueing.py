"""A queue of searches, event after event: several servers, each of which searches for everybody who waits at once.

That is how the index works (`search/company.py`): one search runs at a time, and whoever came meanwhile is searched for by the
next. A search for b probes takes `fixed + b · each`: what is read once for all of them, and what each of them costs.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass
from statistics import quantiles

import numpy as np

# As many as a server answers at a time; further ones are refused in truth, and wait here.
MOST_TOGETHER = 64
ARRIVALS = 20_000


@dataclass(frozen=True, slots=True)
class Service:
    """Seconds of a search for b probes: fixed + b · each."""

    fixed: float
    each: float

    def seconds(self, probes: int) -> float:
        return self.fixed + probes * self.each

    @property
    def most_per_second(self) -> float:
        """Of one server, when as many wait as it takes together."""
        return MOST_TOGETHER / self.seconds(MOST_TOGETHER)


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from asking to the answer."""

    p50: float
    p99: float


def simulate(service: Service, *, servers: int, per_second: float, seed: int = 1) -> Latency:
    """Callers who come one after the other without knowing of each other (Poisson), and are sent round all servers."""
    moments = np.cumsum(np.random.default_rng(seed).exponential(1 / per_second, ARRIVALS))
    site = _Site(service, servers)
    for number, moment in enumerate(moments.tolist()):
        site.let_come(moment, number % servers)
    site.go_on_until(math.inf)
    cuts = quantiles(site.waits, n=100, method="inclusive")
    return Latency(cuts[49], cuts[98])


class _Site:
    """Servers, each with those who wait, and those for whom it searches now, by the moment at which they came."""

    def __init__(self, service: Service, servers: int) -> None:
        self._service = service
        self._waiting: list[deque[float]] = [deque() for _ in range(servers)]
        self._searched: list[list[float]] = [[] for _ in range(servers)]
        self._ends: list[tuple[float, int]] = []
        """When the searches end that are under way, the next one first, and of which server they are."""
        self.waits: list[float] = []

    def let_come(self, moment: float, server: int) -> None:
        self.go_on_until(moment)
        self._waiting[server].append(moment)
        if not self._searched[server]:
            self._begin(moment, server)

    def go_on_until(self, moment: float) -> None:
        while self._ends and self._ends[0][0] <= moment:
            ended, server = heapq.heappop(self._ends)
            self.waits += [ended - came for came in self._searched[server]]
            self._searched[server] = []
            if self._waiting[server]:
                self._begin(ended, server)

    def _begin(self, moment: float, server: int) -> None:
        waiting = self._waiting[server]
        self._searched[server] = [waiting.popleft() for _ in range(min(len(waiting), MOST_TOGETHER))]
        heapq.heappush(self._ends, (moment + self._service.seconds(len(self._searched[server])), server))
