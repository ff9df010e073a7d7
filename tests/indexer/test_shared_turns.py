"""Turns that are shared: one acts for all who wait, in their order, and each gets what is his."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest
from tests.waiting import wait_until

from facedex.indexer.shared_turns import SharedTurns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

AT_MOST = 4


class Counter:
    """Serves numbers, a group at a time, when it is let; odd ones are refused."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.begun = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.closes = False

    def serve(self, numbers: Sequence[int]) -> list[str | Exception]:
        self.groups.append([*numbers])
        self.begun.release()
        assert self.let.acquire(timeout=20)
        if self.closes:
            raise ConnectionError
        return [ValueError(each) if each % 2 else f"served {each}" for each in numbers]


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def turns(counter: Counter) -> SharedTurns[int, str]:
    return SharedTurns(counter.serve, at_most=AT_MOST)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def queue_up(turns: SharedTurns[int, str], counter: Counter, pool: ThreadPoolExecutor, count: int) -> list[Future[str]]:
    """Number 0 has its turn, and the others wait behind it, one after the other."""
    futures = [pool.submit(turns.result_of, 0)]
    assert counter.begun.acquire(timeout=20)
    for number in range(1, count):
        futures.append(pool.submit(turns.result_of, number))
        wait_until(partial(_are_waiting, turns, number))
    return futures


def _are_waiting(turns: SharedTurns[int, str], count: int) -> bool:
    return len(turns) == count


def test_who_comes_alone_is_served_alone(turns: SharedTurns[int, str], counter: Counter) -> None:
    counter.let.release(2)
    assert [turns.result_of(2), turns.result_of(4)] == ["served 2", "served 4"]
    assert counter.groups == [[2], [4]]


def test_who_came_meanwhile_shares_the_next_turns(
    turns: SharedTurns[int, str], counter: Counter, pool: ThreadPoolExecutor
) -> None:
    futures = queue_up(turns, counter, pool, 7)
    counter.let.release(3)
    assert [futures[number].result(20) for number in (0, 2, 4, 6)] == [f"served {number}" for number in (0, 2, 4, 6)]
    assert counter.groups == [[0], [1, 2, 3, 4], [5, 6]]


def test_what_one_is_refused_for_is_told_to_him_alone(
    turns: SharedTurns[int, str], counter: Counter, pool: ThreadPoolExecutor
) -> None:
    futures = queue_up(turns, counter, pool, 3)
    counter.let.release(2)
    with pytest.raises(ValueError, match="1"):
        futures[1].result(20)
    assert futures[2].result(20) == "served 2"


def test_a_turn_that_fails_fails_for_all_who_shared_it_and_the_next_one_comes(
    turns: SharedTurns[int, str], counter: Counter, pool: ThreadPoolExecutor
) -> None:
    counter.closes = True
    futures = queue_up(turns, counter, pool, 3)
    counter.let.release(2)
    for each in futures:
        with pytest.raises(ConnectionError):
            each.result(20)
    counter.closes = False
    counter.let.release()
    assert turns.result_of(2) == "served 2"
