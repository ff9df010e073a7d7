"""The distributions that intervals are taken from. `scipy.stats` has them too, but takes longer to import than all else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def beta_quantile(probability: float, a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """The value below which a beta variable is with this probability."""
    return np.asarray(special.betaincinv(a, b, probability))


def student_t_quantile(probability: float, degrees_of_freedom: float) -> float:
    """The value below which Student's t is with this probability."""
    return float(special.stdtrit(degrees_of_freedom, probability))


def binomial_survival(count: ArrayLike, trials: ArrayLike, share: ArrayLike) -> NDArray[np.float64]:
    """The probability of more than `count` successes in `trials`, each with probability `share`."""
    k, n = np.asarray(count), np.asarray(trials)
    inside = special.betainc(np.maximum(k, 0) + 1, np.maximum(n - k, 1), share)
    return np.select([k < 0, k >= n], [1.0, 0.0], inside)


def binomial_quantile(probability: ArrayLike, trials: int, share: ArrayLike) -> NDArray[np.float64]:
    """The smallest count that is not exceeded with at least this probability."""
    p = np.asarray(share)
    above = np.ceil(special.bdtrik(probability, trials, p))
    below = np.maximum(above - 1, 0)  # the inverse is not exact to the last bit
    reached = special.bdtr(below, trials, p) >= probability
    return np.where(p > 0, np.where(reached, below, above), 0.0)
