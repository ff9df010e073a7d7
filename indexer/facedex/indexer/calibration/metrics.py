"""Error rates as ISO/IEC 19795-1 defines them, as pure functions of scores.

A score of −∞ stands for a failure to acquire. It counts: a mated search or comparison that fails is a miss, a non-mated
one returns nobody. So all rates here are the generalised ones (GFNMR, GFMR), over everything that was tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facedex.indexer.calibration.errors import NoSearches, ScoresInvalid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from facedex.indexer.calibration.scores import MatedSearches, NonMatedSearches, PairScores

    Scores = NDArray[np.float64]

STEPS_PER_UNIT = 1_000_000
"""Thresholds are cosines of six decimals: far finer than they can be known, far coarser than the rounding of a cosine."""


@dataclass(frozen=True, slots=True)
class DetPoints:
    """A detection error trade-off curve, from the lowest threshold to the highest; three arrays of equal length.

    false_positive_rates: FMR or FPIR at each threshold, falling.
    false_negative_rates: FNMR or FNIR at each threshold, rising.
    """

    thresholds: Scores
    false_positive_rates: Scores
    false_negative_rates: Scores


@dataclass(frozen=True, slots=True)
class FoldAccuracy:
    """Accuracies (folds,) and the thresholds (folds,) that were chosen on the respective other folds."""

    accuracies: Scores
    thresholds: Scores

    @property
    def mean(self) -> float:
        return float(self.accuracies.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean, from the spread between the folds, as LFW reports it."""
        return float(self.accuracies.std(ddof=1) / np.sqrt(len(self.accuracies)))


def fmr(non_mated_scores: Scores, *, threshold: float) -> float:
    """Share of non-mated comparisons at or above the threshold."""
    return float((_some(non_mated_scores, "non-mated comparisons") >= threshold).mean())


def fnmr(mated_scores: Scores, *, threshold: float) -> float:
    """Share of mated comparisons below the threshold."""
    return float((_some(mated_scores, "mated comparisons") < threshold).mean())


def fpir(searches: NonMatedSearches, *, threshold: float) -> float:
    """FPIR(N, T): share of non-mated searches that return anybody at or above the threshold."""
    return float((_some(searches.top_scores, "non-mated searches") >= threshold).mean())


def fnir(searches: MatedSearches, *, rank: int, threshold: float) -> float:
    """FNIR(N, R, T): share of mated searches whose mate is not among the first `rank` candidates at or above the threshold."""
    found = (searches.mate_ranks <= rank) & (searches.mate_scores >= threshold)
    return float(1 - _some(found, "mated searches").mean())


def cmc(searches: MatedSearches, *, ranks: Sequence[int]) -> Scores:
    """Cumulative match characteristic (len(ranks),): share of mated searches with the mate within each rank, T = −∞."""
    mate_ranks = np.sort(_some(searches.mate_ranks, "mated searches"))
    return np.searchsorted(mate_ranks, np.asarray(ranks), side="right") / len(mate_ranks)


def det_points(non_mated_scores: Scores, mated_scores: Scores) -> DetPoints:
    """The curve at every score at which either rate changes; for searches, give top scores and mate scores (R = N)."""
    non_mated = np.sort(_some(non_mated_scores, "non-mated scores"))
    mated = np.sort(_some(mated_scores, "mated scores"))
    thresholds = np.unique(np.concatenate([non_mated, mated]))
    return DetPoints(
        thresholds,
        1 - np.searchsorted(non_mated, thresholds) / len(non_mated),
        np.searchsorted(mated, thresholds) / len(mated),
    )


def threshold_at_fmr(non_mated_scores: Scores, *, target: float) -> float:
    """The lowest threshold of six decimals at which the FMR of these scores is at most the target; −1 where all are."""
    return _threshold_at(_some(non_mated_scores, "non-mated comparisons"), target)


def threshold_at_fpir(searches: NonMatedSearches, *, target: float) -> float:
    """The lowest threshold of six decimals at which the measured FPIR is at most the target: an estimate, no promise."""
    return _threshold_at(_some(searches.top_scores, "non-mated searches"), target)


def tar_at_far(scores: PairScores, *, far: float) -> float:
    """True accept rate at the threshold where the false accept rate of the same scores is at most `far` (1 − FNMR)."""
    return 1 - fnmr(scores.mated, threshold=threshold_at_fmr(scores.non_mated, target=far))


def equal_error_rate(scores: PairScores) -> float:
    """The rate at which FMR and FNMR meet: the middle of both, where they cross between two scores."""
    points = det_points(scores.non_mated, scores.mated)
    nearest = np.abs(points.false_positive_rates - points.false_negative_rates).argmin()
    return float(points.false_positive_rates[nearest] + points.false_negative_rates[nearest]) / 2


def best_accuracy(scores: Scores, mated: NDArray[np.bool_], folds: NDArray[np.int64]) -> FoldAccuracy:
    """Accuracy (pairs,) by LFW's protocol: each fold with the threshold that does best on all others.

    Args:
        scores: (pairs,).
        mated: (pairs,), whether both photographs show one person.
        folds: (pairs,), the number of each pair's fold.

    Raises:
        ScoresInvalid: there are fewer than two folds.

    """
    names = np.unique(folds)
    if len(names) < 2:
        raise ScoresInvalid("folds", f"are {len(names)}; a threshold is chosen on other pairs than it is tested on")
    thresholds = np.array([most_accurate_threshold(scores[folds != name], mated[folds != name]) for name in names])
    tested = [folds == name for name in names]
    right = [
        ((scores[fold] >= threshold) == mated[fold]).mean() for fold, threshold in zip(tested, thresholds, strict=True)
    ]
    return FoldAccuracy(np.array(right), thresholds)


def most_accurate_threshold(scores: Scores, mated: NDArray[np.bool_]) -> float:
    """The score at or above which calling a pair mated is right most often; the middle one of equally good ones."""
    candidates = np.append(np.unique(scores), np.inf)
    false_positives = np.sum(~mated) - np.searchsorted(np.sort(scores[~mated]), candidates)
    false_negatives = np.searchsorted(np.sort(scores[mated]), candidates)
    errors = false_positives + false_negatives
    best = np.flatnonzero(errors == errors.min())
    return float(candidates[best[len(best) // 2]])


def just_above(score: float) -> float:
    """The lowest threshold of six decimals that a score does not reach; −1, which every face reaches, for a failure."""
    if np.isneginf(score):
        return -1.0
    return float((np.floor(score * STEPS_PER_UNIT) + 1) / STEPS_PER_UNIT)


def _threshold_at(scores: Scores, target: float) -> float:
    descending = np.sort(scores)[::-1]
    allowed = int(np.floor(target * len(scores) + 1e-9))  # 0.01 × 700 is 7, not 6.999…
    return just_above(float(descending[allowed])) if allowed < len(scores) else -1.0


def _some(values: NDArray[Any], kind: str) -> NDArray[Any]:
    if not len(values):
        raise NoSearches(kind)
    return values
