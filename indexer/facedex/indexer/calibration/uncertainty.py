"""How far a rate that was counted may be from the true one.

Searches are seldom independent: several of one person, brothers, a gallery that is searched with its own templates, one
template that resembles everybody. Counting them as if they were makes intervals too narrow. Counts are therefore divided
by the *design effect*, by which dependence multiplies the variance of a rate, as Korn and Graubard (Survey Methodology
24, 1998) do for surveys, and Clopper and Pearson's exact interval (Biometrika 26, 1934) is taken of what remains.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log, log1p
from typing import TYPE_CHECKING, Any

import numpy as np

from facedex.indexer.calibration.distributions import beta_quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facedex.indexer.calibration.scores import NonMatedSearches

CONFIDENCE = 0.95
STEADY_EXCEEDANCES = 50
"""Fewer false positives than these say too little about how they cluster: the highest searches stand for them."""
BOOTSTRAP_CELLS = 1 << 22  # 32 MiB of int64 weights at once


@dataclass(frozen=True, slots=True)
class RateInterval:
    """A rate with its two-sided interval; 0 ≤ lower ≤ estimate ≤ upper ≤ 1."""

    lower: float
    estimate: float
    upper: float

    def __contains__(self, rate: float) -> bool:
        return self.lower <= rate <= self.upper


def clopper_pearson(
    errors: NDArray[np.float64] | float, trials: NDArray[np.float64] | float, *, confidence: float = CONFIDENCE
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper limits of the exact two-sided interval of a proportion; counts may be fractions of a trial."""
    k, n = np.asarray(errors, np.float64), np.asarray(trials, np.float64)
    tail = (1 - confidence) / 2
    lower = np.where(k > 0, beta_quantile(tail, np.maximum(k, 1e-300), n - k + 1), 0.0)
    upper = np.where(k < n, beta_quantile(1 - tail, k + 1, np.maximum(n - k, 1e-300)), 1.0)
    return lower, upper


def proportion_interval(errors: float, trials: float, *, confidence: float = CONFIDENCE) -> RateInterval:
    """Clopper and Pearson's interval of a share of independent trials."""
    lower, upper = clopper_pearson(errors, trials, confidence=confidence)
    return RateInterval(float(lower), errors / trials, float(upper))


def rule_of_three(trials: float) -> float:
    """The highest rate that is likely (95 %, one-sided) where `trials` independent ones showed no error: 3 / n."""
    return min(1.0, 3 / trials)


def rule_of_thirty(errors: float) -> bool:
    """Whether there are errors enough that the true rate is within ± 30 % of the measured one, at 90 % confidence."""
    return errors >= 30


def searches_needed(target: float, *, confidence: float = CONFIDENCE) -> int:
    """How many independent searches without any error put the upper limit of the two-sided interval at the target."""
    return ceil(log((1 - confidence) / 2) / log1p(-target))


def identity_bootstrap(
    errors: NDArray[np.bool_],
    identities: NDArray[np.int64],
    *,
    repetitions: int = 2_000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> RateInterval:
    """Percentile interval of a share of searches, drawing people with replacement, then photographs of each.

    Args:
        errors: (n,) which searches went wrong.
        identities: (n,) who was searched.
        repetitions: how often people are drawn.
        seed: makes the interval repeatable.
        confidence: of the two-sided interval.

    """
    rates = bootstrap_rates(errors, identities, repetitions=repetitions, seed=seed)
    lower, upper = np.quantile(rates, [(1 - confidence) / 2, (1 + confidence) / 2])
    estimate = float(np.mean(errors))
    return RateInterval(min(float(lower), estimate), estimate, max(float(upper), estimate))


def bootstrap_rates(
    errors: NDArray[np.bool_], identities: NDArray[np.int64], *, repetitions: int, seed: int
) -> NDArray[np.float64]:
    """The share of errors (repetitions,) in as many galleries of people drawn with replacement."""
    _, who = np.unique(identities, return_inverse=True)
    searches = np.bincount(who)
    share = np.bincount(who, weights=errors) / searches
    rng = np.random.default_rng(seed)
    step = max(1, BOOTSTRAP_CELLS // len(searches))
    blocks = [min(step, repetitions - start) for start in range(0, repetitions, step)]
    return np.concatenate([_drawn_rates(searches, share, rng, count) for count in blocks])


def _drawn_rates(
    searches: NDArray[np.int64], share: NDArray[np.float64], rng: np.random.Generator, count: int
) -> NDArray[np.float64]:
    people = len(searches)
    drawn = rng.multinomial(people, np.full(people, 1 / people), size=count) * searches
    # Photographs drawn with replacement from one person are wrong as often as a binomial variable says.
    errors = rng.binomial(drawn, share).sum(axis=1)
    return np.asarray(errors / drawn.sum(axis=1), np.float64)


def cluster_design_effect(errors: NDArray[np.bool_], identities: NDArray[np.int64]) -> float:
    """By how much several searches of one person multiply the variance of their share of errors; 1 or more."""
    _, who = np.unique(identities, return_inverse=True)
    rate = float(np.mean(errors))
    if rate in {0.0, 1.0}:
        return float((np.bincount(who) ** 2).sum() / len(errors))  # unseen: as if a person's searches were one
    between = float((np.bincount(who, weights=errors - rate) ** 2).sum())
    return max(1.0, between / (len(errors) * rate * (1 - rate)))


def clustered_interval(
    errors: NDArray[np.bool_], identities: NDArray[np.int64], *, confidence: float = CONFIDENCE
) -> RateInterval:
    """The interval of a share of searches of which several may be of one person, such as FNIR; holds for no error too."""
    effect = cluster_design_effect(errors, identities)
    return proportion_interval(float(errors.sum()) / effect, len(errors) / effect, confidence=confidence)


@dataclass(frozen=True, slots=True)
class FalsePositives:
    """Non-mated searches from the highest score down, with the links between them.

    descending: (n,) top scores.
    probes, nearest: (n,) the two people of each search, in the same order.
    people: how many were searched.
    """

    descending: NDArray[np.float64]
    probes: NDArray[np.int64]
    nearest: NDArray[np.int64]
    people: int
    gallery_templates: int

    @staticmethod
    def of(searches: NonMatedSearches) -> FalsePositives:
        order = np.argsort(-searches.top_scores, kind="stable")
        return FalsePositives(
            searches.top_scores[order],
            searches.probe_identities[order],
            searches.nearest_identities[order],
            int(np.unique(searches.probe_identities).size),
            searches.gallery_templates,
        )

    def __len__(self) -> int:
        return len(self.descending)

    def count(self, threshold: NDArray[np.float64] | float) -> Any:
        """How many searches return somebody at or above each threshold."""
        return np.searchsorted(-self.descending, -np.asarray(threshold), side="right")

    def design_effect(self, count: int) -> float:
        """By how much dependence multiplies the variance of the number of false positives, seen on the `count` highest.

        Two false positives are linked where they share a person: one who was searched twice, a template that several
        come close to (a wolf, or one that a whole family resembles), or A and B who are each other's nearest when a
        gallery searches itself. Ordered pairs of linked ones over the count is the factor, less the pairs that share
        a template by chance (Aronow, Samii and Assenova, Political Analysis 23, 2015, for such two-sided links).
        """
        probes, nearest = self.probes[:count], self.nearest[:count]
        _, numbers = np.unique(np.concatenate([probes, nearest]), return_inverse=True)
        low, high = np.sort(numbers.reshape(2, count), axis=0)
        of_a_person = np.bincount(numbers)
        _, of_a_pair = np.unique(low * len(of_a_person) + high, return_counts=True)
        linked = float((of_a_person**2).sum() - (of_a_pair**2).sum())  # who shares both people would count twice
        by_chance = count**2 / self.people + count**2 / self.gallery_templates
        return max(1.0, (linked - by_chance) / (count * (1 - count / len(self))))


@dataclass(frozen=True, slots=True)
class IndependentSearches:
    """What non-mated searches are worth in independent ones, at any number of false positives.

    levels, effects: the design effect, rising numbers of false positives at which it was taken.
    """

    false_positives: FalsePositives
    levels: NDArray[np.int64]
    effects: NDArray[np.float64]

    @staticmethod
    def of(searches: NonMatedSearches) -> IndependentSearches:
        false_positives = FalsePositives.of(searches)
        levels = _levels(int(np.isfinite(searches.top_scores).sum()), len(searches))
        effects = [false_positives.design_effect(level) for level in levels]
        return IndependentSearches(false_positives, np.array(levels, np.int64), np.array(effects, np.float64))

    def effect(self, count: NDArray[np.int64] | int) -> NDArray[np.float64]:
        """The design effect at each number of false positives."""
        if not len(self.levels):
            return np.ones(np.shape(count))
        return np.asarray(self.effects[np.searchsorted(self.levels, count).clip(max=len(self.levels) - 1)], np.float64)

    def searches(self) -> float:
        """How many independent searches they are worth where false positives are rare."""
        return len(self.false_positives) / float(self.effect(0))

    def limits(self, counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper 95 % limits of FPIR where so many of the searches are false positives."""
        effect = self.effect(counts)
        return clopper_pearson(counts / effect, len(self.false_positives) / effect)

    def interval(self, threshold: float) -> RateInterval:
        """FPIR at a threshold, in the gallery that was searched."""
        count = int(self.false_positives.count(threshold))
        lower, upper = self.limits(np.array([count]))
        return RateInterval(float(lower[0]), count / len(self.false_positives), float(upper[0]))


def _levels(found: int, searches: int) -> list[int]:
    highest = min(found, searches // 2)
    levels = [min(STEADY_EXCEEDANCES, highest)]
    while levels[-1] < highest:
        levels.append(min(2 * levels[-1], highest))
    return levels if highest else []
