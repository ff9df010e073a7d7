"""How much resemblance chance alone gives, learned from the bulk of a gallery's own scores, and what stands out from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# The bulk ends here. Beyond it may lie what the tail is to tell from chance.
PEAKS_END, SUMS_END = 0.75, 0.95
MIDDLE = 0.75


@dataclass(frozen=True, slots=True)
class ChanceTail:
    """The upper half of what chance gives: P(score ≥ t) = ½ exp(−((t − median) / scale)^power) for t above the median.

    Fitted to quantiles of the bulk, so that the few scores that are no chance hardly move it.
    """

    median: float
    scale: float
    power: float

    @staticmethod
    def of_peaks(scores: Floats) -> ChanceTail:
        """Of scores (n,) that are each the best of many: beyond the median their tail is exponential (Gumbel's law)."""
        median, end = np.quantile(scores, [0.5, PEAKS_END])
        bulk = scores[(scores > median) & (scores <= end)] - median
        above = int((scores > end).sum())
        scale = (float(bulk.sum()) + above * float(end - median)) / max(1, len(bulk))  # censored at the end
        return ChanceTail(float(median), max(scale, 1e-9), 1.0)

    @staticmethod
    def of_sums(scores: Floats) -> ChanceTail:
        """Of scores (n,) that are means of several peaks: their tail is lighter, with the power that three quantiles tell."""
        median, middle, end = np.quantile(scores, [0.5, MIDDLE, SUMS_END])
        near, far = np.log(0.5 / (1 - np.array([MIDDLE, SUMS_END])))
        if not median < middle < end:
            return ChanceTail.of_peaks(scores)
        power = max(1.0, float(np.log(far / near) / np.log((end - median) / (middle - median))))
        return ChanceTail(float(median), float((end - median) / far ** (1 / power)), power)

    def share(self, scores: Floats) -> Floats:
        """How often chance alone gives these scores (m,) or more."""
        reduced = np.maximum(0.0, scores - self.median) / self.scale
        return np.asarray(0.5 * np.exp(-(reduced**self.power)), np.float64)

    def limit(self, scores: Floats, *, false_share: float) -> float:
        """The lowest score from which at most this share of the scores (m,) is expected to be chance; ∞ where there is none.

        Benjamini and Hochberg, Journal of the Royal Statistical Society B 57, 1995.
        """
        descending = np.sort(scores)[::-1]
        expected = len(scores) * self.share(descending)
        few = expected <= false_share * np.arange(1, len(scores) + 1)
        credible = np.flatnonzero(few & (descending > self.median))  # below it, the share of chance is not known
        return float(descending[credible[-1]]) if len(credible) else float(np.inf)
