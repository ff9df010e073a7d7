"""Searches by blocks against comparing everything with everything."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.indexer.calibration.populations import unrelated

from facedex.indexer.calibration import scores as scores_module
from facedex.indexer.calibration.errors import ScoresInvalid
from facedex.indexer.calibration.scores import (
    NOBODY,
    UNRANKED,
    MatedSearches,
    NonMatedSearches,
    PairScores,
    searches_of,
    searches_of_gallery,
)

Row = tuple[int, float, int, float, int]


def compared(probe: int, cosines: list[float], owners: list[int]) -> Row:
    """Identity, top score of others, who that is, mate's score and mate's rank, one comparison at a time."""
    best: dict[int, float] = {}
    for owner, cosine in zip(owners, cosines, strict=True):
        best[owner] = max(best.get(owner, -np.inf), cosine)
    mate = best.pop(probe, -np.inf)
    nearest = max(best, key=lambda owner: best[owner])
    return probe, best[nearest], nearest, mate, 1 + sum(score >= mate for score in best.values())


@given(seed=st.integers(0, 10_000), people=st.integers(2, 12), templates=st.integers(3, 40), block=st.integers(1, 90))
@settings(max_examples=40, deadline=None)
def test_searches_agree_with_comparing_one_at_a_time(seed: int, people: int, templates: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    owners = np.append(rng.integers(people, size=templates), [0, 1])
    probes = rng.integers(people + 3, size=15)
    gallery, faces = unrelated(rng, len(owners)), unrelated(rng, 15)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores_module, "BLOCK_SCORES", block)
        found = searches_of(gallery, owners, faces, probes)
    rows = [compared(int(p), (gallery @ face).tolist(), owners.tolist()) for p, face in zip(probes, faces, strict=True)]
    assert_rows(found.non_mated, found.mated, [r for r in rows if r[3] == -np.inf], [r for r in rows if r[3] > -np.inf])
    assert found.non_mated.gallery_templates == len(owners)


@given(seed=st.integers(0, 10_000), people=st.integers(2, 12), templates=st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_a_gallery_that_searches_itself_leaves_out_the_own_template(seed: int, people: int, templates: int) -> None:
    rng = np.random.default_rng(seed)
    owners = np.append(rng.integers(people, size=templates), [0, 1])
    vectors = unrelated(rng, len(owners))
    found = searches_of_gallery(vectors, owners)
    rows: list[Row] = []
    for row in np.argsort(owners, kind="stable").tolist():
        others = np.arange(len(owners)) != row
        rows.append(compared(int(owners[row]), (vectors[others] @ vectors[row]).tolist(), owners[others].tolist()))
    assert_rows(found.non_mated, found.mated, rows, [row for row in rows if row[3] > -np.inf])


def assert_rows(non_mated: NonMatedSearches, mated: MatedSearches, strangers: list[Row], mates: list[Row]) -> None:
    assert non_mated.probe_identities.tolist() == [row[0] for row in strangers]
    assert non_mated.top_scores.tolist() == pytest.approx([row[1] for row in strangers], abs=1e-5)
    assert non_mated.nearest_identities.tolist() == [row[2] for row in strangers]
    assert mated.probe_identities.tolist() == [row[0] for row in mates]
    assert mated.mate_scores.tolist() == pytest.approx([row[3] for row in mates], abs=1e-5)
    assert mated.mate_ranks.tolist() == [row[4] for row in mates]


def test_a_gallery_that_searches_itself_says_how_many_templates_each_was_compared_with() -> None:
    vectors = unrelated(np.random.default_rng(1), 6)
    assert searches_of_gallery(vectors, np.arange(6)).non_mated.gallery_templates == 5
    assert searches_of_gallery(vectors, np.array([0, 0, 0, 1, 1, 1])).non_mated.gallery_templates == 3


def test_a_large_gallery_is_never_held_as_a_matrix_of_all_pairs() -> None:
    vectors = unrelated(np.random.default_rng(1), 6_000)
    tracemalloc.start()
    searches_of_gallery(vectors, np.arange(6_000))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 6_000 * 6_000 * 4


def test_an_identity_that_scores_the_same_stands_before_the_mate() -> None:
    vector = unrelated(np.random.default_rng(1), 1)
    found = searches_of(np.repeat(vector, 2, axis=0), np.array([4, 5]), vector, np.array([5]))
    assert found.mated.mate_ranks.tolist() == [2]


def test_failures_to_acquire_are_searches_that_return_nobody() -> None:
    rng = np.random.default_rng(1)
    found = searches_of(unrelated(rng, 5), np.arange(5), unrelated(rng, 2), np.array([0, 9]))
    strangers, mates = found.non_mated.with_failures(np.array([7, 8])), found.mated.with_failures(np.array([1]))
    assert strangers.nearest_identities[1:].tolist() == [NOBODY, NOBODY]
    assert np.isneginf(strangers.top_scores[1:]).all()
    assert mates.mate_ranks[1:].tolist() == [UNRANKED]


def test_two_identities_that_are_each_others_nearest_are_mutual() -> None:
    searches = NonMatedSearches(
        np.array([0.9, 0.9, 0.85, 0.2]), np.array([1, 2, 3, 4]), np.array([2, 1, 1, 3]), gallery_templates=3
    )
    assert searches.mutual(least_score=0.8).tolist() == [True, True, False, False]
    assert not searches.mutual(least_score=0.95).any()


@pytest.mark.parametrize("bad", [[0.1, float("nan")], [0.1, float("inf")], [[0.1, 0.2]]])
def test_scores_that_no_search_gives_are_refused(bad: list[float]) -> None:
    with pytest.raises(ScoresInvalid):
        PairScores(np.array(bad), np.array([0.1]))
    with pytest.raises(ScoresInvalid, match="top_scores"):
        NonMatedSearches(np.array(bad), np.array([5, 6]), np.array([1, 2]), 10)


def test_arrays_that_contradict_each_other_are_refused() -> None:
    two, three = np.array([0.1, 0.2]), np.array([1, 2, 3])
    with pytest.raises(ScoresInvalid, match="probe_identities"):
        NonMatedSearches(two, three, np.array([1, 2]), 10)
    with pytest.raises(ScoresInvalid, match="own identity"):
        NonMatedSearches(two, np.array([5, 6]), np.array([1, 6]), 10)
    with pytest.raises(ScoresInvalid, match="gallery_templates"):
        NonMatedSearches(two, np.array([5, 6]), np.array([1, 2]), 0)
    with pytest.raises(ScoresInvalid, match="mate_ranks"):
        MatedSearches(two, np.array([0, 1]), np.array([5, 6]))


def test_galleries_that_cannot_be_searched_are_refused() -> None:
    vectors = unrelated(np.random.default_rng(1), 3)
    nothing = np.empty(0, np.int64)
    with pytest.raises(ScoresInvalid, match="empty"):
        searches_of(vectors[:0], nothing, vectors, np.arange(3))
    with pytest.raises(ScoresInvalid, match="one person"):
        searches_of_gallery(vectors, np.zeros(3, np.int64))
    assert len(searches_of(vectors, np.arange(3), vectors[:0], nothing).non_mated) == 0
