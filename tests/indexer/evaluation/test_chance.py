"""What chance gives in a gallery, and what stands out from it."""

from __future__ import annotations

import numpy as np
import pytest

from facedex.indexer.evaluation.chance import ChanceTail

PEAKS = np.random.default_rng(1).gumbel(0.3, 0.05, 20_000)
SUMS = np.random.default_rng(2).normal(0.1, 0.05, 20_000)


@pytest.mark.parametrize(
    ("tail", "scores"), [(ChanceTail.of_peaks(PEAKS), PEAKS), (ChanceTail.of_sums(SUMS), SUMS)], ids=["peaks", "sums"]
)
def test_the_share_that_chance_gives_is_hardly_less_and_not_much_more_than_the_share_that_is_counted(
    tail: ChanceTail, scores: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> None:
    """Of scores that are nothing but chance, far beyond the bulk that the tail was fitted to."""
    for counted in (0.25, 0.1, 0.02):
        score = np.quantile(scores, [1 - counted])
        assert 0.8 * counted < tail.share(score)[0] < 2 * counted


def test_scores_that_are_no_chance_hardly_move_what_chance_is_thought_to_give() -> None:
    """Two in a hundred people who are enrolled twice must not hide each other."""
    with_others = np.append(PEAKS, np.full(400, 0.9))
    score = np.array([0.6])
    assert ChanceTail.of_peaks(with_others).share(score)[0] == pytest.approx(
        ChanceTail.of_peaks(PEAKS).share(score)[0], rel=0.5
    )


@pytest.mark.parametrize("false_share", [0.1, 0.6])
def test_of_what_reaches_the_limit_no_more_than_the_stated_share_is_chance(false_share: float) -> None:
    """Over 50 draws with 20 scores that are none, most of which are found; the limit is lower where more may be chance."""
    rng = np.random.default_rng(3)
    false = true = 0
    for _ in range(50):
        scores = np.append(rng.gumbel(0.3, 0.05, 2_000), rng.uniform(0.7, 1.0, 20))
        found = np.flatnonzero(scores >= ChanceTail.of_peaks(scores).limit(scores, false_share=false_share))
        false, true = false + int((found < 2_000).sum()), true + int((found >= 2_000).sum())
    assert false / (false + true) <= false_share
    assert (false > 50) == (false_share == 0.6), "a larger share must lower the limit"
    assert true >= 50 * 17


def test_chance_alone_gives_nothing_to_find() -> None:
    """No score of a healthy gallery is credible, so no limit is low enough."""
    assert ChanceTail.of_peaks(PEAKS).limit(PEAKS, false_share=0.01) == np.inf


def test_a_gallery_without_spread_is_no_division_by_zero() -> None:
    """All scores alike: nothing stands out."""
    alike = np.full(100, 0.5)
    assert ChanceTail.of_sums(alike).limit(alike, false_share=0.1) == np.inf
