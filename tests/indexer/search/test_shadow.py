"""Live searches that are done again exactly."""

from __future__ import annotations

import numpy as np
from tests.indexer.search.oracle import unit_vectors

from facedex.indexer.search.fast import FastIndex
from facedex.indexer.search.shadow import Shadow, missed_identities
from facedex.indexer.search.template_index import Hit

BEST, SECOND, THIRD = Hit(1, 1, 0.9), Hit(2, 2, 0.8), Hit(3, 3, 0.7)


def test_an_identity_that_should_have_been_on_the_list_is_counted() -> None:
    assert missed_identities((SECOND, THIRD), (BEST, SECOND), limit=2) == 1
    assert missed_identities((), (BEST,), limit=2) == 1


def test_who_moves_up_because_somebody_was_erased_was_not_missed() -> None:
    assert missed_identities((BEST, SECOND), (SECOND, THIRD), limit=2) == 0


def test_one_search_in_so_many_is_checked() -> None:
    shadow = Shadow(every=3)
    for _ in range(10):
        shadow.consider((BEST,), lambda: (BEST, SECOND), limit=2)
        shadow.settle()
    assert (shadow.checked, shadow.missed) == (3, 3)


def test_a_check_that_fails_is_logged_and_the_next_one_is_done() -> None:
    shadow = Shadow(every=1)
    shadow.consider((BEST,), lambda: (_ for _ in ()).throw(RuntimeError("planted")), limit=1)
    shadow.settle()
    shadow.consider((BEST,), lambda: (BEST,), limit=1)
    shadow.settle()
    assert (shadow.checked, shadow.missed) == (1, 0)


def filled(shadow: Shadow) -> tuple[FastIndex, np.ndarray]:
    index, rows = FastIndex(64, shadow=shadow), unit_vectors(9_000, seed=1)
    numbers = list(range(1, 9_001))
    index.add(numbers, numbers, rows)
    assert index.segments
    return index, rows


def test_searches_of_a_sound_index_miss_nobody() -> None:
    shadow = Shadow(every=1)
    index, rows = filled(shadow)
    for number in range(10):
        index.search(rows[number : number + 1], limit=3, min_score=0.5)
        shadow.settle()
    assert (shadow.checked, shadow.missed) == (10, 0)


def test_an_index_whose_codes_are_damaged_is_found_out() -> None:
    shadow = Shadow(every=1)
    index, rows = filled(shadow)
    for segment in index.segments:
        assert segment.codes is not None
        segment.codes.index.reset()  # the scan sees nobody any more
    index.search(rows[:1], limit=3, min_score=0.9)
    shadow.settle()
    assert shadow.missed == 1
