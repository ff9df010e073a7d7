"""Searches that come at the same time are made together, and each is answered as if it were alone."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.indexer.search.oracle import unit_vectors
from tests.waiting import wait_until

from facedex.indexer.search.company import MOST_PROBES, Company
from facedex.indexer.search.crew import Crew
from facedex.indexer.search.fast import FastIndex, FastSettings
from facedex.indexer.search.template_index import Hit
from facedex.indexer.search.two_looks import LookSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Hits = list[tuple[Hit, ...]]


class Crowd:
    """Callers, each in a thread of its own, of a search that takes until it is let go."""

    def __init__(self) -> None:
        self.calls: list[list[float]] = []
        self.let_go = threading.Semaphore(0)
        self._company = Company(self._search)
        self._threads = ThreadPoolExecutor(100)

    def _search(self, probes: NDArray[np.float32], *, limit: int, min_score: float) -> Hits:
        self.calls.append(probes[:, 0].tolist())
        assert self.let_go.acquire(timeout=20)
        if (probes < 0).any():
            raise MemoryError("planted")
        return [(Hit(int(probe[0]), limit, min_score),) for probe in probes]

    def first(self, *numbers: float) -> Future[Hits]:
        """A search that is under way when this returns."""
        calls = len(self.calls)
        asked = self._ask(numbers, limit=1, min_score=0.5)
        wait_until(lambda: len(self.calls) > calls)
        return asked

    def next(self, *numbers: float, limit: int = 1, min_score: float = 0.5) -> Future[Hits]:
        """A search that waits for the one under way when this returns."""
        waiting = self._company.waiting
        asked = self._ask(numbers, limit=limit, min_score=min_score)
        wait_until(lambda: self._company.waiting > waiting)
        return asked

    def _ask(self, numbers: tuple[float, ...], *, limit: int, min_score: float) -> Future[Hits]:
        probes = np.array(numbers, np.float32)[:, None]
        return self._threads.submit(self._company.search, probes, limit=limit, min_score=min_score)


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    made = Crowd()
    yield made
    made.let_go.release(1_000)


def found(asked: Future[Hits]) -> list[int]:
    return [hit.template_id for (hit,) in asked.result(timeout=20)]


def test_a_lone_search_waits_for_nobody(crowd: Crowd) -> None:
    crowd.let_go.release()
    assert found(crowd.first(7)) == [7]


def test_who_comes_during_a_search_is_answered_by_the_next_one_together(crowd: Crowd) -> None:
    asked = [crowd.first(1), crowd.next(2), crowd.next(3, 4), crowd.next(5)]
    crowd.let_go.release(2)
    assert [found(each) for each in asked] == [[1], [2], [3, 4], [5]]
    assert crowd.calls == [[1], [2, 3, 4, 5]]


def test_only_questions_of_the_same_kind_are_asked_together(crowd: Crowd) -> None:
    asked = [crowd.first(1), crowd.next(2), crowd.next(3, limit=9), crowd.next(4), crowd.next(5, min_score=0.1)]
    crowd.let_go.release(4)
    hits = [hit for each in asked for (hit,) in each.result(timeout=20)]
    assert [(hit.template_id, hit.identity_id, hit.score) for hit in hits] == [
        (1, 1, 0.5),
        (2, 1, 0.5),
        (3, 9, 0.5),
        (4, 1, 0.5),
        (5, 1, 0.1),
    ]
    assert crowd.calls == [[1], [2, 4], [3], [5]]


def test_a_crowd_is_answered_in_parts(crowd: Crowd) -> None:
    first, *rest = [crowd.first(0), *(crowd.next(number) for number in range(1, MOST_PROBES + 3))]
    crowd.let_go.release(3)
    assert found(first) == [0]
    assert [found(each) for each in rest] == [[number] for number in range(1, MOST_PROBES + 3)]
    assert [len(each) for each in crowd.calls] == [1, MOST_PROBES, 2]


def test_a_failure_reaches_everybody_who_was_searched_for_and_nobody_else(crowd: Crowd) -> None:
    asked = [crowd.first(1), crowd.next(-2), crowd.next(3), crowd.next(4, limit=9)]
    crowd.let_go.release(3)
    assert found(asked[0]) == [1]
    for failed in asked[1:3]:
        with pytest.raises(MemoryError):
            failed.result(timeout=20)
    assert found(asked[3]) == [4]
    crowd.let_go.release()
    assert found(crowd.first(5)) == [5]


def test_many_callers_of_a_large_index_find_what_one_finds() -> None:
    rows = unit_vectors(20_000, seed=1)
    settings = FastSettings(look=LookSettings(shared_rows=10_000))
    index = FastIndex(64, settings, operating_score=0.7, crew=Crew(2))
    index.add(list(range(1, 20_001)), list(range(1, 20_001)), rows)
    alone = index.search(rows[:400], limit=3, min_score=0.7)  # too many probes to be merged

    def ask(number: int) -> tuple[Hit, ...]:
        return index.search(rows[number : number + 1], limit=3, min_score=0.7)[0]

    with ThreadPoolExecutor(32) as callers:
        assert list(callers.map(ask, range(400))) == alone
    assert all(hits[0].template_id == number + 1 for number, hits in enumerate(alone))
