"""Who works on a photograph when: in the order in which they came, and nobody who has gone."""

from __future__ import annotations

import threading

import pytest
from tests.waiting import wait_until

from facedex.indexer.vision.workbench import Workbench


class Gone(Exception):
    """Nobody waits any more."""


def no_checkpoint() -> None:
    return


def test_callers_get_their_places_in_the_order_in_which_they_came_however_long_it_takes() -> None:
    bench = Workbench(1, patience_seconds=0.001)
    order: list[int] = []

    def work(number: int) -> None:
        with bench.place(no_checkpoint):
            order.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    with bench.place(no_checkpoint):
        for count, each in enumerate(threads, start=1):
            each.start()
            wait_until(lambda count=count: len(bench._waiting) == count)  # type: ignore[misc]
        threading.Event().wait(0.05)  # each has looked up many times by now
    for each in threads:
        each.join()
    assert order == list(range(20))


def test_who_goes_away_while_waiting_leaves_the_place_to_others() -> None:
    bench = Workbench(1, patience_seconds=0.001)
    looks = iter([None, None])

    def checkpoint() -> None:
        try:
            next(looks)
        except StopIteration:
            raise Gone from None

    with bench.place(no_checkpoint), pytest.raises(Gone), bench.place(checkpoint):
        raise AssertionError("there is no place")
    with bench.place(no_checkpoint):
        assert not bench._waiting
    assert bench._free == 1
