"""Scores of two models on one scale: a cosine of each is worth the other's at which strangers are as rare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facedex.indexer.errors import SuccessionTooSmall

if TYPE_CHECKING:
    from numpy.typing import NDArray

# With fewer people, the rare high scores of strangers that thresholds turn on are a matter of luck.
LEAST_IDENTITIES = 50
# Everybody is compared with everybody; of larger galleries a sample is.
MOST_TEMPLATES = 4_000
SAMPLE_SEED = 20_261_101
# False match rates at which both models' cosines are noted: eight to each power of ten.
STEPS_PER_DECADE = 8
# So many pairs of strangers have to lie above the highest cosine that is noted.
LEAST_EXCEEDANCES = 10


@dataclass(frozen=True, slots=True)
class ScoreScale:
    """The cosines of an old and a new model at the same false match rates, rising: each (knots,).

    Between two knots the scale is a straight line; it ends at 1, where two photographs are the same to either model, and at
    −1. The −log₁₀ of the false match rate would order candidates the same way; a cosine of the new model is what thresholds
    and callers know.
    """

    old: NDArray[np.float64]
    new: NDArray[np.float64]

    @classmethod
    def measured(
        cls, old: NDArray[np.float32], new: NDArray[np.float32], identity_ids: NDArray[np.int64]
    ) -> ScoreScale:
        """From unit vectors (n, dimension) of the same templates by both models.

        Raises:
            SuccessionTooSmall: they are of too few identities.

        """
        identities = len(np.unique(identity_ids))
        if identities < LEAST_IDENTITIES:
            raise SuccessionTooSmall(identities=identities, needed=LEAST_IDENTITIES)
        sample = _sample(len(identity_ids))
        strangers = np.triu(identity_ids[sample][:, None] != identity_ids[sample][None], 1)
        scores = [np.sort((rows[sample] @ rows[sample].T)[strangers]) for rows in (old, new)]
        rates = _rates(len(scores[0]))
        knots = [_rising([-1.0, *_quantiles(each, rates), 1.0]) for each in scores]
        return cls(*knots)

    def to_new(self, score: float) -> float:
        """The new model's cosine that is worth as much as this one of the old model."""
        return float(np.interp(score, self.old, self.new))

    def to_old(self, score: float) -> float:
        """The inverse of `to_new`."""
        return float(np.interp(score, self.new, self.old))

    def to_json(self) -> dict[str, Any]:
        return {"old": self.old.tolist(), "new": self.new.tolist()}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ScoreScale:
        return cls(np.array(document["old"], np.float64), np.array(document["new"], np.float64))


def _sample(count: int) -> NDArray[np.int64]:
    if count <= MOST_TEMPLATES:
        return np.arange(count)
    return np.sort(np.random.default_rng(SAMPLE_SEED).choice(count, MOST_TEMPLATES, replace=False))


def _rates(pairs: int) -> NDArray[np.float64]:
    """From one half down to the rarest that so many pairs carry."""
    decades = float(np.log10(pairs / LEAST_EXCEEDANCES / 2))
    exponents = -np.linspace(0, decades, 1 + round(STEPS_PER_DECADE * decades))
    return np.array([0.5 * 10.0**each for each in exponents.tolist()])


def _quantiles(scores: NDArray[np.float32], rates: NDArray[np.float64]) -> list[float]:
    return [float(each) for each in np.quantile(scores, 1 - rates)]


def _rising(knots: list[float]) -> NDArray[np.float64]:
    """Strictly, so that the scale can be read both ways."""
    values = np.maximum.accumulate(np.clip(knots, -1.0, 1.0))
    spread = np.arange(len(values)) * 1e-9
    return np.asarray(values + spread - spread[-1] * (values >= 1.0), np.float64)
