"""Error rates against examples worked by hand and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from facedex.indexer.calibration.errors import NoSearches, ScoresInvalid
from facedex.indexer.calibration.metrics import (
    best_accuracy,
    cmc,
    det_points,
    equal_error_rate,
    fmr,
    fnir,
    fnmr,
    fpir,
    just_above,
    most_accurate_threshold,
    tar_at_far,
    threshold_at_fmr,
    threshold_at_fpir,
)
from facedex.indexer.calibration.scores import UNRANKED, MatedSearches, NonMatedSearches, PairScores

EXACT = 1e-9
FAILED = -np.inf


def scores(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(values, np.float64)


def non_mated(*top_scores: float) -> NonMatedSearches:
    count = len(top_scores)
    return NonMatedSearches(scores(*top_scores), 100 + np.arange(count), np.arange(count), 50)


def mated(*found: tuple[float, int]) -> MatedSearches:
    return MatedSearches(
        scores(*(score for score, _ in found)),
        np.array([rank for _, rank in found], np.int64),
        np.arange(len(found)),
    )


def test_rates_of_comparisons_count_the_threshold_itself_as_a_match() -> None:
    assert fmr(scores(0.1, 0.3, 0.5, 0.7), threshold=0.5) == pytest.approx(0.5, abs=EXACT)
    assert fnmr(scores(0.4, 0.5, 0.6, 0.8, 0.9), threshold=0.5) == pytest.approx(0.2, abs=EXACT)


def test_a_failure_to_acquire_is_a_miss_and_never_a_false_positive() -> None:
    assert fnmr(scores(FAILED, 0.9), threshold=-1) == pytest.approx(0.5, abs=EXACT)
    assert fmr(scores(FAILED, 0.9), threshold=-1) == pytest.approx(0.5, abs=EXACT)
    assert fpir(non_mated(0.6, 0.2).with_failures(np.array([300, 301])), threshold=0.5) == pytest.approx(
        0.25, abs=EXACT
    )
    searches = mated((0.9, 1)).with_failures(np.array([7]))
    assert fnir(searches, rank=1_000_000, threshold=-1) == pytest.approx(0.5, abs=EXACT)
    assert cmc(searches, ranks=[1, 1_000_000]).tolist() == [0.5, 0.5]


def test_fnir_asks_for_rank_and_threshold_at_once() -> None:
    searches = mated((0.9, 1), (0.8, 3), (0.4, 1), (0.3, 9), (FAILED, UNRANKED))
    expected = {(1, -1.0): 3 / 5, (3, -1.0): 2 / 5, (9, -1.0): 1 / 5, (1, 0.5): 4 / 5, (9, 0.5): 3 / 5, (9, 0.8): 3 / 5}
    for (rank, threshold), rate in expected.items():
        assert fnir(searches, rank=rank, threshold=threshold) == pytest.approx(rate, abs=EXACT)


def test_the_cmc_is_the_share_of_mates_within_each_rank() -> None:
    searches = mated((0.9, 1), (0.8, 2), (0.7, 2), (0.1, 6))
    assert cmc(searches, ranks=[1, 2, 5, 6]) == pytest.approx([0.25, 0.75, 0.75, 1.0], abs=EXACT)


def test_a_det_curve_by_hand() -> None:
    points = det_points(scores(0.1, 0.2, 0.6), scores(0.2, 0.7))
    assert points.thresholds.tolist() == [0.1, 0.2, 0.6, 0.7]
    assert points.false_positive_rates == pytest.approx([1, 2 / 3, 1 / 3, 0], abs=EXACT)
    assert points.false_negative_rates == pytest.approx([0, 0, 1 / 2, 1 / 2], abs=EXACT)


def test_a_det_curve_agrees_with_the_rates_at_each_of_its_thresholds() -> None:
    rng = np.random.default_rng(5)
    strangers, mates = np.round(rng.normal(0, 0.2, 400), 2), np.round(rng.normal(0.5, 0.2, 300), 2)
    points = det_points(strangers, mates)
    rates = [(fmr(strangers, threshold=t), fnmr(mates, threshold=t)) for t in points.thresholds.tolist()]
    assert np.c_[points.false_positive_rates, points.false_negative_rates] == pytest.approx(np.array(rates), abs=EXACT)


def test_normal_scores_give_the_closed_form() -> None:
    """Scores at the exact quantiles of two normal laws: every rate is the law's own, to half a score."""
    levels = (np.arange(100_000) + 0.5) / 100_000
    strangers, mates = norm.ppf(levels), norm.ppf(levels) + 3
    assert fmr(strangers, threshold=2.0) == pytest.approx(norm.sf(2.0), abs=1e-5)
    assert fnmr(mates, threshold=2.0) == pytest.approx(norm.cdf(-1.0), abs=1e-5)
    assert equal_error_rate(PairScores(mates, strangers)) == pytest.approx(norm.sf(1.5), abs=1e-5)
    # A hundred strangers may pass, so the threshold is just above the next one, at level 100.5 of 100 000.
    assert tar_at_far(PairScores(mates, strangers), far=0.001) == pytest.approx(
        norm.sf(norm.isf(0.001005) - 3), abs=2e-5
    )


@pytest.mark.parametrize(("target", "expected"), [(0.5, 0.200001), (0.25, 0.300001), (0.74, 0.200001), (0.1, 0.400001)])
def test_the_threshold_at_a_target_is_the_lowest_that_keeps_it(target: float, expected: float) -> None:
    searches = non_mated(0.4, 0.1, 0.3, 0.2)
    threshold = threshold_at_fpir(searches, target=target)
    assert threshold == threshold_at_fmr(searches.top_scores, target=target) == pytest.approx(expected, abs=EXACT)
    assert fpir(searches, threshold=threshold) <= target < fpir(searches, threshold=threshold - 2e-6)


def test_scores_that_are_equal_pass_or_fail_together() -> None:
    assert threshold_at_fmr(scores(0.5, 0.5, 0.5, 0.1), target=0.5) == pytest.approx(0.500001, abs=EXACT)


def test_a_target_that_failures_keep_alone_lets_every_face_in() -> None:
    assert threshold_at_fmr(scores(0.5, FAILED), target=0.5) == -1
    assert threshold_at_fmr(scores(0.5, 0.6), target=1.0) == -1


def test_seven_of_seven_hundred_are_one_percent() -> None:
    top_scores = np.arange(700) / 1_000
    assert fmr(top_scores, threshold=threshold_at_fmr(top_scores, target=0.01)) == pytest.approx(0.01, abs=EXACT)


def test_just_above_is_not_reached() -> None:
    for score in (0.5, 0.5000004, 0.1 + 0.2, -0.25):
        assert score < just_above(score) <= score + 1.1e-6


def test_accuracy_over_folds_agrees_with_a_direct_computation() -> None:
    rng = np.random.default_rng(3)
    mates = rng.random(600) < 0.5
    similarity = np.round(rng.normal(0.1, 0.2, 600) + np.where(mates, 0.5, 0.0), 3)
    folds = np.arange(600) % 10
    result = best_accuracy(similarity, mates, folds)
    direct: list[float] = []
    for fold, threshold in enumerate(result.thresholds.tolist()):
        rest, tested = folds != fold, folds == fold
        best = max(float(((similarity[rest] >= t) == mates[rest]).mean()) for t in similarity[rest].tolist())
        assert ((similarity[rest] >= threshold) == mates[rest]).mean() == pytest.approx(best, abs=EXACT)
        direct.append(float(((similarity[tested] >= threshold) == mates[tested]).mean()))
    assert result.accuracies == pytest.approx(direct, abs=EXACT)
    assert result.mean == pytest.approx(np.mean(direct), abs=EXACT)
    assert result.standard_error == pytest.approx(np.std(direct, ddof=1) / np.sqrt(10), abs=EXACT)


def test_pairs_of_one_person_only_and_of_strangers_only_have_a_best_threshold_too() -> None:
    assert most_accurate_threshold(scores(0.3, 0.5), np.array([True, True])) == pytest.approx(0.3)
    assert most_accurate_threshold(scores(0.3, 0.5), np.array([False, False])) == np.inf


def test_one_fold_is_refused() -> None:
    with pytest.raises(ScoresInvalid, match="folds"):
        best_accuracy(scores(0.1, 0.9), np.array([False, True]), np.zeros(2, np.int64))


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(NoSearches, match="mated comparisons"):
        fnmr(scores(), threshold=0.5)
    with pytest.raises(NoSearches, match="non-mated searches"):
        fpir(non_mated(), threshold=0.5)
