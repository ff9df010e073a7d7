"""Thresholds that state their error rate, at any size of the gallery."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.calibration.distributions import binomial_quantile
from facedex.indexer.calibration.errors import NoSearches, PromiseRefused, ScoresInvalid, TailDoesNotFit
from facedex.indexer.calibration.metrics import just_above
from facedex.indexer.calibration.tail import Tail, fitted_tail
from facedex.indexer.calibration.uncertainty import IndependentSearches, RateInterval, searches_needed

if TYPE_CHECKING:
    from facedex.indexer.calibration.scores import NonMatedSearches

SAME_SIZE = 0.9
"""A gallery of this share of another one's size says what happens in that (NIST SP 800-63A-4, section 3.11)."""


class Kind(Enum):
    """How an interval was come by."""

    MEASURED = "measured"  # counted, at a threshold that searches reached, in a gallery of about this size
    EXTRAPOLATED = "extrapolated"  # beyond the highest score, or for a gallery of another size


@dataclass(frozen=True, slots=True)
class FpirInterval:
    """FPIR(N, T) with its two-sided 95 % interval."""

    threshold: float
    gallery_templates: int
    lower: float
    estimate: float
    upper: float
    kind: Kind

    def __contains__(self, fpir: float) -> bool:
        return self.lower <= fpir <= self.upper

    def measurable(self, searches: int) -> RateInterval:
        """What a measurement on so many further independent searches shows, in at least 95 of 100 cases.

        Wider than the interval, since a measurement has its own luck: of 600 searches none is a false positive in every
        second one where the true FPIR is 0.12 %.
        """
        lowest, highest = binomial_quantile([0.025, 0.975], searches, [self.lower, self.upper]) / searches
        return RateInterval(float(lowest), self.estimate, float(highest))


@dataclass(frozen=True, slots=True)
class Promise:
    """What non-mated searches allow to say about FPIR at other thresholds and in galleries of other sizes.

    Within the scores FPIR is counted. Beyond the highest score, where nothing is left to count, the upper limit is the
    fitted tail's, down to FPIR 1 / (independent searches); the lower limit is 0. A gallery that grows from N to kN by
    people like the present ones has FPIR(N) ≤ FPIR(kN) ≤ 1 − (1 − FPIR(N))^k, with equality on the right where all
    probes are alike (Jensen); the estimate is that right side, and the interval spans both.

    Where a gallery searches itself, two identities that are each other's nearest may be one person who was enrolled twice.
    Such pairs are `doubtful`: the upper limit counts them as false positives, lower limit and estimate leave them out.
    """

    searches: NonMatedSearches
    independent: IndependentSearches
    undoubted: IndependentSearches
    tail: Tail | None

    @staticmethod
    def of(searches: NonMatedSearches, *, duplicates_from: float = np.inf) -> Promise:
        """From the searches of a calibration; pairs that score `duplicates_from` or more may be one person.

        Raises:
            NoSearches: there is none, or all are doubtful.

        """
        doubtful = searches.mutual(least_score=duplicates_from)
        if doubtful.all():
            raise NoSearches("non-mated searches")
        independent = IndependentSearches.of(searches)
        undoubted = IndependentSearches.of(searches.only(~doubtful)) if doubtful.any() else independent
        return Promise(searches, independent, undoubted, _tail_or_none(independent))

    @property
    def doubtful_searches(self) -> int:
        """How many searches may have found the person's own second identity."""
        return len(self.searches) - len(self.undoubted.false_positives)

    @property
    def highest_score(self) -> float:
        return float(self.independent.false_positives.descending[0])

    @property
    def least_fpir(self) -> float:
        """Below this no threshold is promised, in a gallery of the size that was searched."""
        return 1 / self.independent.searches()

    def fpir_interval(self, threshold: float, *, gallery_templates: int) -> FpirInterval:
        """FPIR at a threshold in a gallery of so many templates, with its 95 % interval."""
        present, kind = self._present(threshold)
        growth = gallery_templates / self.searches.gallery_templates
        return FpirInterval(
            threshold,
            gallery_templates,
            lower=min(present.lower, grown(present.lower, growth)),
            estimate=grown(present.estimate, growth),
            upper=max(present.upper, grown(present.upper, growth)),
            kind=kind if SAME_SIZE <= growth <= 1 / SAME_SIZE else Kind.EXTRAPOLATED,
        )

    def resolve(self, target_fpir: float, *, gallery_templates: int) -> FpirInterval:
        """The lowest threshold whose upper limit keeps the target in a gallery of so many templates.

        Raises:
            PromiseRefused: the searches do not carry the target; the error says how many more identities would.
            ScoresInvalid: the target is no share between 0 and 1.

        """
        if not 0 < target_fpir < 1:
            raise ScoresInvalid("target_fpir", f"is {target_fpir}; give a share between 0 and 1, such as 0.01")
        growth = max(1.0, gallery_templates / self.searches.gallery_templates)
        threshold = self._threshold(grown(target_fpir, 1 / growth))
        if threshold is None:
            raise self._refusal(target_fpir, gallery_templates, growth)
        return self.fpir_interval(threshold, gallery_templates=gallery_templates)

    def _present(self, threshold: float) -> tuple[RateInterval, Kind]:
        sure = self.undoubted.interval(threshold)
        counted = RateInterval(sure.lower, sure.estimate, max(sure.upper, self.independent.interval(threshold).upper))
        if self.tail is None or threshold <= self.highest_score:
            return counted, Kind.MEASURED
        extended = self.tail.fpir(threshold)
        upper = min(counted.upper, max(extended.upper, self.least_fpir))
        return RateInterval(0.0, min(extended.estimate, upper), upper), Kind.EXTRAPOLATED

    def _threshold(self, target: float) -> float | None:
        counts = np.arange(1 + int(target * len(self.searches)))
        kept = self.independent.limits(counts)[1] <= target
        if kept[0]:
            return self._just_above(int(np.argmin(np.append(kept, np.False_))) - 1)
        if self.tail is None or target < self.least_fpir:
            return None
        threshold = max(just_above(self.tail.threshold(target)), just_above(self.highest_score))
        return None if threshold > 1 else threshold  # no cosine reaches it: nobody would ever be found

    def _just_above(self, count: int) -> float:
        """The lowest threshold that no more than `count` searches reach."""
        return just_above(float(self.independent.false_positives.descending[count]))

    def _refusal(self, target_fpir: float, gallery_templates: int, growth: float) -> PromiseRefused:
        independent = self.independent.searches()
        missing = searches_needed(grown(target_fpir, 1 / growth)) - independent
        return PromiseRefused(
            target_fpir=target_fpir,
            gallery_templates=gallery_templates,
            independent_searches=independent,
            doubtful_searches=self.doubtful_searches,
            further_identities=max(1, ceil(missing * self.independent.false_positives.people / independent)),
        )


def grown(fpir: float, growth: float) -> float:
    """FPIR after a gallery has grown `growth` times, if all comparisons were independent: 1 − (1 − FPIR)^growth."""
    return float(-np.expm1(growth * np.log1p(-min(fpir, 1 - 1e-12))))


def _tail_or_none(independent: IndependentSearches) -> Tail | None:
    try:
        return fitted_tail(independent)
    except TailDoesNotFit:
        return None
