"""Items are looked at by several threads ahead of their turn, and come in their order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import count, islice

import pytest
from tests.waiting import wait_until

from facedex.indexer.jobs.bulk_item import BulkItem
from facedex.indexer.jobs.look_ahead import MOST_AHEAD, UNSEEN_PER_WORKER, LookAhead, Looked
from facedex.indexer.store.records import IdentityDetails

WORKERS = 2


class SourceBroken(Exception):
    """What a source raises that cannot be read to its end."""


def item(number: int) -> BulkItem:
    return BulkItem(f"{number}", IdentityDetails(f"p{number}"), lambda: b"")


def items(many: int) -> Iterator[BulkItem]:
    return (item(number) for number in range(many))


def place_of(each: BulkItem) -> str:
    return each.place


def look_ahead(
    items: Iterator[BulkItem], look: Callable[[BulkItem], Looked], *, checkpoint: Callable[[], None]
) -> LookAhead[BulkItem, BulkItem, Looked]:
    return LookAhead(items, look=look, kept=lambda each: each, workers=WORKERS, checkpoint=checkpoint)


def nothing() -> None:
    """Nobody stops it."""


def test_items_come_in_their_order_with_what_was_seen_of_them() -> None:
    with look_ahead(items(300), place_of, checkpoint=nothing) as looked:
        assert [(each.place, seen) for each, seen in looked] == [(f"{number}", f"{number}") for number in range(300)]


def test_the_others_look_on_while_the_last_ones_are_written() -> None:
    seen: list[str] = []
    endless = (item(each) for each in count())
    with look_ahead(endless, lambda each: seen.append(each.place), checkpoint=nothing) as looked:
        next(iter(looked))
        wait_until(lambda: len(seen) == 1 + MOST_AHEAD)  # though nobody asks for another one


def test_few_items_are_read_that_nobody_has_looked_at() -> None:
    read, may_look = [0], threading.Event()

    def counted() -> Iterator[BulkItem]:
        for number in range(100):
            read[0] = number + 1
            yield item(number)

    most = UNSEEN_PER_WORKER * WORKERS + 1  # one more waits for its place
    with look_ahead(counted(), lambda _: may_look.wait(), checkpoint=nothing) as looked:
        wait_until(lambda: read[0] == most)
        assert not may_look.wait(0.05)
        assert read[0] == most
        may_look.set()
        assert len(list(looked)) == 100


def test_a_source_that_breaks_is_told_behind_what_was_read() -> None:
    def broken() -> Iterator[BulkItem]:
        yield from items(3)
        raise SourceBroken

    with look_ahead(broken(), place_of, checkpoint=nothing) as looked:
        answers = iter(looked)
        assert [seen for _, seen in islice(answers, 3)] == ["0", "1", "2"]
        with pytest.raises(SourceBroken):
            next(answers)


def test_whoever_waits_for_an_item_is_told_to_stop() -> None:
    stop, is_stopped = threading.Event(), [False]

    def checkpoint() -> None:
        if is_stopped[0]:
            raise SourceBroken

    with look_ahead(items(1), lambda _: stop.wait(), checkpoint=checkpoint) as looked:
        is_stopped[0] = True
        with pytest.raises(SourceBroken):
            next(iter(looked))
        stop.set()
