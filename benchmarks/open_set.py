"""Seeded open-set splits of a folder of people, and ways of deciding compared on them at equal FPIR."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BOOTSTRAPS = 1_000


@dataclass(frozen=True, slots=True)
class Faces:
    """One row a face: unit vectors (n, dimension), whose (n,), and how much each counts in a weighted mean (n,)."""

    vectors: NDArray[np.float32]
    identities: NDArray[np.int64]
    weights: Floats


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of `Faces`, in order of identity: templates of some people, mated probes of the same, probes of strangers."""

    templates: NDArray[np.int64]
    mated: NDArray[np.int64]
    strangers: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What a way of deciding made of a split.

    hits: (mated,) the first candidate's score where it is the mate, else −inf.
    alarms: (strangers,) the first candidate's score.
    """

    hits: Floats
    alarms: Floats


@dataclass(frozen=True, slots=True)
class Fnir:
    """FNIR (rank 1) at a target FPIR: mean over the splits, with its 95 % interval over people drawn with replacement.

    `less` is by how much it is lower than the first way's on the same draws: above 0 is better.
    """

    way: str
    target_fpir: float
    fnir: float
    lower: float
    upper: float
    less: float
    less_lower: float
    less_upper: float


Way = Callable[[Faces, Split], Outcomes]


def split_by_templates(faces: Faces, *, fewest: int, most: int, seed: int) -> Split:
    """Between `fewest` and `most` templates of everybody who has one photograph more; all others are strangers."""
    rng = np.random.default_rng(seed)
    templates: list[int] = []
    mated: list[int] = []
    strangers: list[int] = []
    for rows in _rows_of_each(faces, rng):
        if len(rows) <= fewest:
            strangers.append(rows[0])
            continue
        count = int(rng.integers(fewest, min(most, len(rows) - 1), endpoint=True))
        templates += rows[:count]
        mated += rows[count:]
    return Split(np.array(templates), np.array(mated), np.array(strangers))


def split_by_people(faces: Faces, *, enrolled_share: float, seed: int) -> Split:
    """One template of a share of the people with several photographs; all photographs of the others are strangers."""
    rng = np.random.default_rng(seed)
    templates: list[int] = []
    mated: list[int] = []
    strangers: list[int] = []
    for rows in _rows_of_each(faces, rng):
        if len(rows) > 1 and rng.random() < enrolled_share:
            templates.append(rows[0])
            mated += rows[1:]
        else:
            strangers += rows
    return Split(np.array(templates), np.array(mated), np.array(strangers))


def outcomes_of(scores: Floats, people: NDArray[np.int64], faces: Faces, split: Split) -> Outcomes:
    """Of scores (mated and then strangers, people), whose columns are these people."""
    first = scores.argmax(axis=1)
    best = scores[np.arange(len(scores)), first]
    mated = len(split.mated)
    is_mate = people[first[:mated]] == faces.identities[split.mated]
    return Outcomes(np.where(is_mate, best[:mated], -np.inf), best[mated:])


def compare(
    ways: Mapping[str, Way], faces: Faces, splits: Sequence[Split], *, target_fpirs: Sequence[float]
) -> list[Fnir]:
    """Each way at each target; the first one is what the others are compared with."""
    weights = _drawn_weights(int(faces.identities.max()) + 1)
    rates = np.mean([_fnirs_of(ways, faces, split, target_fpirs, weights) for split in splits], axis=0)
    return [
        _summary(way, target, rates[row, column], rates[row, 0])
        for row, target in enumerate(target_fpirs)
        for column, way in enumerate(ways)
    ]


def _rows_of_each(faces: Faces, rng: np.random.Generator) -> Iterable[list[int]]:
    for identity in np.unique(faces.identities):
        yield rng.permutation(np.flatnonzero(faces.identities == identity)).tolist()


def _drawn_weights(people: int) -> Floats:
    """How often each person counts (1 + bootstraps, people): once, then as often as drawn; the same for all splits."""
    drawn = np.random.default_rng(0).multinomial(people, np.full(people, 1 / people), size=BOOTSTRAPS)
    return np.vstack([np.ones(people), drawn.astype(np.float64)])


def _fnirs_of(ways: Mapping[str, Way], faces: Faces, split: Split, targets: Sequence[float], weights: Floats) -> Floats:
    """FNIR (targets, ways, 1 + bootstraps) on one split."""
    mated, strangers = (weights[:, faces.identities[rows]] for rows in (split.mated, split.strangers))
    outcomes = [way(faces, split) for way in ways.values()]
    return np.array([[_fnirs(each, mated, strangers, target) for each in outcomes] for target in targets])


def _summary(way: str, target: float, rates: Floats, first_rates: Floats) -> Fnir:
    """The first of the draws is the people as they are."""
    less = first_rates - rates
    lower, upper = np.nanquantile(rates[1:], [0.025, 0.975])
    less_lower, less_upper = np.nanquantile(less[1:], [0.025, 0.975])
    return Fnir(
        way, target, float(rates[0]), float(lower), float(upper), float(less[0]), float(less_lower), float(less_upper)
    )


def _fnirs(outcomes: Outcomes, mated: Floats, strangers: Floats, target: float) -> Floats:
    """FNIR (draws,) just above the score of the first false positive that the target does not allow."""
    order = np.argsort(-outcomes.alarms)
    counted = strangers[:, order].cumsum(axis=1)
    refused = (counted > target * counted[:, -1:] + 1e-9).argmax(axis=1)
    found = outcomes.hits[None, :] > outcomes.alarms[order][refused][:, None]
    with np.errstate(invalid="ignore"):  # of a draw without any mated probe there is no FNIR
        return np.asarray(1 - (mated * found).sum(axis=1) / mated.sum(axis=1), np.float64)
