"""The tail of the top non-mated scores, fitted and extended beyond what was seen: an extrapolation, never a measurement.

Peaks over threshold: what exceeds a high enough start follows a generalised Pareto distribution (Pickands, Annals of
Statistics 3, 1975). The interval is the range of FPIR over all parameters that a likelihood ratio test keeps, which
is the profile likelihood interval, with a penalty on shapes far from 0. Clustered searches enter with the weight
that their design effect leaves them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.calibration.distributions import student_t_quantile
from facedex.indexer.calibration.errors import TailDoesNotFit
from facedex.indexer.calibration.uncertainty import IndependentSearches, RateInterval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

START_SHARES = (0.25, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)
"""Shares of the searches that may make the tail, the largest first."""
LEAST_EXCEEDANCES = 30.0
"""Independent ones: with fewer, the test of fit lets tails pass that are none, and their promises are broken too often."""
MOST_EXCEEDANCES = 150
"""Independent ones: more would only lower the start, and with it the likeness to a Pareto tail."""
SHAPES = np.linspace(-0.75, 0.75, 61)
SCALES = np.geomspace(0.25, 4.0, 71)
"""In mean exceedances. The grid is finer than 150 exceedances can tell apart."""
SHAPE_DEVIATION = 0.2
"""How far from 0, the exponential tail, shapes are expected: cosines end at 1, and tops of many scores are near Gumbel's
law. A few dozen peaks alone would keep shapes that no face embedder has (a prior as Martins and Stedinger's, Water
Resources Research 36, 2000, for floods)."""
KEPT = 0.985
"""More than the 95 % that the interval states: start and fit are chosen on the scores that they are judged by, and the tail
is asked only where no score is. In simulated heavy tails 95 % here covered 91 %, and 97.5 % covered 94 %."""
FIT_REPETITIONS = 400
REJECTED_BELOW = 0.1


@dataclass(frozen=True, slots=True)
class GoodnessOfFit:
    """Cramér and von Mises's distance between tail and fit, and how often a true Pareto tail of this size has a larger one."""

    distance: float
    p_value: float

    @property
    def rejected(self) -> bool:
        return self.p_value < REJECTED_BELOW


@dataclass(frozen=True, slots=True)
class Region:
    """The parameters (j,) that a likelihood ratio test keeps; to each shape and scale the least and largest share."""

    least_shares: Floats
    largest_shares: Floats
    shapes: Floats
    scales: Floats


@dataclass(frozen=True, slots=True)
class Tail:
    """A fitted tail: FPIR(T) = share × (1 + shape (T − start) / scale)^(−1 / shape) for T at or above the start.

    start: the score from which the tail is taken. share: of the searches, above it.
    shape, scale: the most likely ones. exceedances: how many, counted as independent ones.
    """

    start: float
    share: float
    shape: float
    scale: float
    exceedances: float
    fit: GoodnessOfFit
    region: Region

    def fpir(self, threshold: float) -> RateInterval:
        """Extrapolated FPIR at a threshold at or above the start, in the gallery that was searched, with its 95 % interval."""
        beyond = max(0.0, threshold - self.start)
        estimate = self.share * float(pareto_survival(beyond, shape=self.shape, scale=self.scale))
        survival = pareto_survival(beyond, shape=self.region.shapes, scale=self.region.scales)
        lower = float((self.region.least_shares * survival).min())
        upper = float((self.region.largest_shares * survival).max())
        return RateInterval(lower, estimate, upper)

    def threshold(self, upper_fpir: float) -> float:
        """The lowest threshold at or above the start whose upper limit is at most `upper_fpir`; it may pass 1."""
        ratio = np.minimum(1.0, upper_fpir / self.region.largest_shares)
        beyond = pareto_quantile(ratio, shape=self.region.shapes, scale=self.region.scales)
        return self.start + float(beyond.max())


@dataclass(frozen=True, slots=True)
class Peaks:
    """Exceedances (n,) over a start, rising, and how many independent ones they are, of how many independent searches."""

    start: float
    beyond: Floats
    independent: float
    searches: float

    @staticmethod
    def highest(independent: IndependentSearches, count: int) -> Peaks:
        """About the `count` highest of the searches; fewer, where scores are equal to the start."""
        scores = independent.false_positives.descending
        start = float(scores[count])
        beyond = np.sort(scores[:count] - start) if np.isfinite(start) else np.empty(0)
        beyond = beyond[beyond > 0]
        # Far out, where the tail is extended to, dependence counts for at least as much as it does among the highest.
        effect = float(independent.effect(np.array([0, count])).max())
        return Peaks(start, beyond, len(beyond) / effect, len(scores) / effect)

    @property
    def share(self) -> float:
        return self.independent / self.searches

    def goodness_of_fit(self, *, seed: int = 0) -> GoodnessOfFit:
        """Tested against Pareto samples of the same size and shape, each fitted in the same way."""
        shape, scale = moments_fit(self.beyond[None])
        distance = self.independent * float(_distances(self.beyond[None], shape, scale)[0])
        size = max(3, round(self.independent))
        uniform = np.random.default_rng(seed).random((FIT_REPETITIONS, size))
        samples = np.sort(pareto_quantile(uniform, shape=shape[:, None], scale=scale[:, None]), axis=1)
        others = size * _distances(samples, *moments_fit(samples))
        return GoodnessOfFit(distance, float((1 + (others >= distance).sum()) / (1 + FIT_REPETITIONS)))

    def tail(self) -> Tail:
        """The fitted tail, whether it fits well or not."""
        scales = SCALES * float(self.beyond.mean())
        likelihood = self.independent * pareto_log_likelihood(self.beyond, shapes=SHAPES, scales=scales)
        likelihood -= (SHAPES[:, None] / SHAPE_DEVIATION) ** 2 / 2
        best = np.unravel_index(likelihood.argmax(), likelihood.shape)
        spare = _spare(self.independent) - (likelihood[best] - likelihood)
        shapes, widths = np.nonzero(spare >= 0)
        least, most = self._shares(spare[shapes, widths])
        return Tail(
            start=self.start,
            share=self.share,
            shape=float(SHAPES[best[0]]),
            scale=float(scales[best[1]]),
            exceedances=self.independent,
            fit=self.goodness_of_fit(),
            region=Region(least, most, SHAPES[shapes], scales[widths]),
        )

    def _shares(self, spare: Floats) -> tuple[Floats, Floats]:
        """The least and the largest share of exceedances whose log-likelihood is within `spare` (j,) of the best."""
        ends = (np.full_like(spare, 0.0), np.full_like(spare, 1.0))
        least, most = (_crossing(self.share, end, spare / self.searches) for end in ends)
        return least, most


def _spare(independent: float) -> float:
    """By how much the log-likelihood may fall short of the best: Student's t for the two parameters that few peaks fit."""
    return student_t_quantile((1 + KEPT) / 2, independent - 2) ** 2 / 2


def fitted_tail(independent: IndependentSearches) -> Tail:
    """The tail from the lowest start at which it looks Pareto.

    Raises:
        TailDoesNotFit: no start leaves enough searches beyond it and passes the test of fit.

    """
    p_values: list[float] = []
    for count in _counts(independent):
        peaks = Peaks.highest(independent, count)
        if peaks.independent < LEAST_EXCEEDANCES:
            continue
        tail = peaks.tail()
        if not tail.fit.rejected:
            return tail
        p_values.append(tail.fit.p_value)
    if p_values:
        raise TailDoesNotFit(f"the fit is rejected (p = {max(p_values):.2g})")
    raise TailDoesNotFit(f"it holds fewer than {LEAST_EXCEEDANCES:.0f} independent searches")


def _counts(independent: IndependentSearches) -> list[int]:
    searches = len(independent.false_positives)
    most = round(MOST_EXCEEDANCES * float(independent.effect(0)))
    return sorted({min(int(share * searches), most) for share in START_SHARES}, reverse=True)


def moments_fit(samples: Floats) -> tuple[Floats, Floats]:
    """Shape and scale (s,) of rising samples (s, n) by probability-weighted moments.

    Hosking and Wallis, Technometrics 29, 1987.
    """
    count = samples.shape[1]
    below = (np.arange(1, count + 1) - 0.35) / count
    mean, weighted = samples.mean(axis=1), (samples * (1 - below)).mean(axis=1)
    return 2 - mean / (mean - 2 * weighted), 2 * mean * weighted / (mean - 2 * weighted)


def _distances(samples: Floats, shape: Floats, scale: Floats) -> Floats:
    """The mean squared distance (s,) of rising samples (s, n) from their fits, in probability."""
    count = samples.shape[1]
    expected = (np.arange(count) + 0.5) / count
    fitted = 1 - pareto_survival(samples, shape=shape[:, None], scale=scale[:, None])
    return np.asarray(((fitted - expected) ** 2).mean(axis=1) + 1 / (12 * count**2), np.float64)


def _crossing(share: float, end: Floats, allowed: Floats) -> Floats:
    """The share between `share` and `end` (j,) whose divergence from `share` is what is allowed (j,), by bisection."""
    near, far = np.full_like(end, share), end
    for _ in range(50):
        middle = (near + far) / 2
        divergence = share * np.log(share / middle) + (1 - share) * np.log((1 - share) / (1 - middle))
        inside = divergence <= allowed
        near, far = np.where(inside, middle, near), np.where(inside, far, middle)
    return near


def pareto_survival(beyond: Floats | float, *, shape: Floats | float, scale: Floats | float) -> Floats:
    """P(exceedance ≥ beyond) of a generalised Pareto distribution; exponential at shape 0."""
    reduced = np.asarray(beyond) / scale
    shape = np.asarray(shape, np.float64)
    flat = np.abs(shape) < 1e-9
    safe = np.where(flat, 1.0, shape)
    with np.errstate(divide="ignore"):
        curved = np.maximum(0.0, 1 + safe * reduced) ** (-1 / safe)
    return np.asarray(np.where(flat, np.exp(-reduced), curved), np.float64)


def pareto_quantile(survival: Floats, *, shape: Floats, scale: Floats) -> Floats:
    """The exceedance that is reached with probability `survival`."""
    flat = np.abs(shape) < 1e-9
    safe = np.where(flat, 1.0, shape)
    return scale * np.where(flat, -np.log(survival), (survival**-safe - 1) / safe)


def pareto_log_likelihood(beyond: Floats, *, shapes: Floats, scales: Floats) -> Floats:
    """Mean log density of exceedances (n,) for shapes (j,) and scales (k,), as (j, k); −inf beyond the end point."""
    reduced = beyond / scales[:, None]  # (k, n)
    densities = [_mean_log_density(reduced, shape) for shape in shapes.tolist()]
    return np.asarray(np.array(densities) - np.log(scales), np.float64)


def _mean_log_density(reduced: Floats, shape: float) -> Floats:
    if abs(shape) < 1e-9:
        return np.asarray(-reduced.mean(axis=1), np.float64)
    inside = 1 + shape * reduced
    with np.errstate(divide="ignore"):
        logs = np.log(np.maximum(inside, 0))
    return np.where(inside.min(axis=1) > 0, -(1 + 1 / shape) * logs.mean(axis=1), -np.inf)
