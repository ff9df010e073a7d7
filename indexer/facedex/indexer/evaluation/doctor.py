"""What is likely to be wrong with the labels of a gallery, found from its vectors alone.

Likeness is counted as *excess*: a cosine less the template's mean cosine to the `COHORT` identities after its nearest other
one, so that a face that resembles everybody is not suspected of being everybody. All limits come from the gallery's own scores:
from what chance gives in it (`chance.ChanceTail`), and from how well templates of one identity agree in it. Each kind of
finding is expected to be wrong in no more than the share of cases that the caller allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binom

from facedex.indexer.evaluation.chance import ChanceTail
from facedex.indexer.evaluation.neighbours import Enrolled, Neighbours
from facedex.indexer.evaluation.self_search import ErrorRates, SelfSearch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    Rows = NDArray[np.int64]
    Floats = NDArray[np.float64]

NOBODY = -1
FALSE_SHARE = 0.1
CANDIDATES = 2  # nearest other identities of each template that may be the same person
AGREEING = 0.9  # so many of the identities' own templates, if split off, would still be taken for the same person
NEAR = 0.9  # a near-miss is among the highest tenth of non-mated scores
SIGNIFICANCE = 0.05


class Ailment(Enum):
    """What is wrong, or likely to be."""

    DUPLICATE = "duplicate"  # two identities are one person
    MISLABELLED = "mislabelled"  # a template shows the person of another identity
    STRANGE = "strange"  # a template resembles its own identity no more than people in general, and nobody else
    POOR = "poor"  # a template hardly resembles its own identity, or would be refused today
    NEAR_MISSES = "near misses"  # an identity is most often the nearest stranger


class Remedy(Enum):
    """What would be done about it."""

    MERGE = "merge"  # the other identity's templates move to this one
    ERASE = "erase"  # the templates go
    LOOK = "look"  # only a person can tell


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is likely to be wrong.

    identity, other: identity numbers; `other` is whom the template or identity resembles, or `NOBODY`.
    templates: rows of the arrays that were examined; those that the remedy concerns.
    own_cosine: best cosine to the identity's own other templates; None where there is none.
    other_cosine: best cosine to the other identity; of near misses, the score from which they are counted.
    near_misses: how many searches of others name this identity at or above that score.
    after: error rates of the gallery searched against itself once the remedy is applied (of LOOK: without the identity's
        templates that it names).
    """

    ailment: Ailment
    remedy: Remedy
    identity: int
    other: int
    templates: tuple[int, ...]
    own_cosine: float | None
    other_cosine: float
    after: ErrorRates
    near_misses: int = 0


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found, and the error rates of the gallery as it is, at a threshold."""

    threshold: float
    before: ErrorRates
    findings: tuple[Finding, ...]

    def of(self, ailment: Ailment) -> list[Finding]:
        return [each for each in self.findings if each.ailment is ailment]


def examine(
    vectors: NDArray[np.float32],
    identities: Rows,
    *,
    threshold: float,
    refused: NDArray[np.bool_] | None = None,
    false_share: float = FALSE_SHARE,
) -> Diagnosis:
    """Looks for what is wrong in a gallery. No N × N matrix is held.

    Args:
        vectors: (N, dimension), unit length.
        identities: (N,), 0 or more.
        threshold: a cosine; where it is so low that most searches find a stranger, the median of their scores instead.
        refused: (N,) templates that the enrolment policy would refuse today.
        false_share: of the duplicates, and of the mislabelled templates, so many may be false alarms.

    Raises:
        ScoresInvalid: the lengths differ, or there are too few identities to know what chance gives.

    """
    enrolled = Enrolled.of(vectors, identities)
    near = Neighbours.of(enrolled)
    lowest = max(threshold, float(np.median(near.rival_scores[:, 0])))
    examination = _Examination(enrolled, near, SelfSearch.at(lowest, enrolled), false_share)
    unfit = np.zeros(len(vectors), np.bool_) if refused is None else refused[enrolled.order]
    return Diagnosis(lowest, examination.searched.rates(), tuple(examination.findings(lowest, unfit)))


class _Examination:
    """A gallery with its neighbours; rows are those of `Enrolled`, people are indices into its names."""

    def __init__(self, enrolled: Enrolled, near: Neighbours, searched: SelfSearch, false_share: float) -> None:
        self._enrolled = enrolled
        self._near = near
        self.searched = searched
        self._false_share = false_share
        self._levels = near.levels
        self._excess = near.rival_scores[:, 0] - self._levels
        self._own_excess = near.own - self._levels
        self._has_mates = np.isfinite(near.own)
        self._suspects = self._has_mates & (near.own < near.rival_scores[:, 0])
        self._chance = ChanceTail.of_peaks(self._excess)
        self._certain = self._chance.limit(self._excess[self._suspects], false_share=false_share)

    def findings(self, threshold: float, refused: NDArray[np.bool_]) -> Iterator[Finding]:
        for pair in self.duplicates:
            yield self._duplicate(*pair)
        for row in self.mislabelled:
            yield self._mislabelled(row)
        yield from self._strangers()
        yield from self._poor(threshold, refused)
        yield from self._near_misses()

    # Mislabelled templates

    @cached_property
    def mislabelled(self) -> list[int]:
        """Templates that resemble another identity beyond chance and their own no more than chance, the clearest first."""
        found: set[int] = set()
        for row in self._in_order_of_evidence():
            if self._shows_another(row, apart=found):
                found.add(row)
        margin = self._excess - self._own_excess
        return sorted(found, key=lambda row: -margin[row])

    def _in_order_of_evidence(self) -> list[int]:
        """Where two resemble each other under two identities, the one that disagrees with more sound templates is wrong."""
        doubtful = self._suspects & (self._excess >= self._certain) & (self._own_excess < self._certain)
        margin = self._excess - self._own_excess

        def key(row: int) -> tuple[float, int, float]:
            others = self._others(row)
            return float(doubtful[others].mean()), -len(others), -float(margin[row])

        return sorted(np.flatnonzero(doubtful).tolist(), key=key)

    def _shows_another(self, row: int, *, apart: set[int]) -> bool:
        """Whether it still does, without the templates that are known to be mislabelled, and its identity does not."""
        others = _without(self._others(row), apart)
        rival = _without(self._enrolled.rows_of(int(self._near.rivals[row, 0])), apart)
        if not len(others) or not len(rival):
            return False
        others_excess = np.median(self._cosines(others, rival).max(axis=1) - self._levels[others])
        return bool(self._best(row, rival) - self._levels[row] >= self._certain > others_excess)

    def _others(self, row: int) -> Rows:
        rows = self._enrolled.rows_of(int(self._enrolled.people[row]))
        return np.asarray(rows[rows != row], np.int64)

    # Duplicates

    @cached_property
    def duplicates(self) -> list[tuple[int, int]]:
        """Pairs of people that resemble each other beyond chance, and as much as their own templates do, best first."""
        pairs = [pair for pair in self._neighbouring_people() if all(len(self._sound(each)) for each in pair)]
        likeness = np.array([self._likeness(*pair) for pair in pairs])
        limit = ChanceTail.of_sums(likeness).limit(likeness, false_share=self._false_share)
        high = [int(row) for row in np.argsort(-likeness) if likeness[row] >= limit]
        return [pairs[row] for row in high if self._shortfall(*pairs[row]) <= self._usual_shortfall]

    def _neighbouring_people(self) -> list[tuple[int, int]]:
        people = np.repeat(self._enrolled.people, CANDIDATES)
        rivals = self._near.rivals[:, :CANDIDATES].ravel()
        pairs = np.unique(np.stack([np.minimum(people, rivals), np.maximum(people, rivals)], axis=1), axis=0)
        return [(first, second) for first, second in pairs.tolist()]

    def _likeness(self, first: int, second: int) -> float:
        """The mean excess of each one's templates with the other person, both people counting alike."""
        rows, others = self._sound(first), self._sound(second)
        cosines = self._cosines(rows, others)
        there = (cosines.max(axis=1) - self._levels[rows]).mean()
        back = (cosines.max(axis=0) - self._levels[others]).mean()
        return float(there + back) / 2

    def _shortfall(self, first: int, second: int) -> float:
        """By how much the templates resemble the other person less than their own identity; 0 where both have one template."""
        rows, others = self._sound(first), self._sound(second)
        cosines = self._cosines(rows, others)
        sides = ((rows, cosines.max(axis=1)), (others, cosines.max(axis=0)))
        short = [_less(self._own_best(side), best) for side, best in sides if len(side) > 1]
        return float(np.mean(short)) if short else 0.0

    @cached_property
    def _usual_shortfall(self) -> float:
        """What `AGREEING` of single templates would show that were split off their own identity."""
        seen = [
            _less(_best_of_others(np.delete(np.delete(cosines, one, 0), one, 1)), np.delete(cosines[:, one], one))
            for cosines in map(self._own_cosines, range(len(self._enrolled.names)))
            if len(cosines) > 2
            for one in range(len(cosines))
        ]
        return float(np.quantile(seen, AGREEING)) if seen else np.inf

    def _own_cosines(self, person: int) -> NDArray[np.float32]:
        rows = self._sound(person)
        return self._cosines(rows, rows)

    def _own_best(self, rows: Rows) -> NDArray[np.float32]:
        return _best_of_others(self._cosines(rows, rows))

    def _sound(self, person: int) -> Rows:
        """The person's templates without the mislabelled ones."""
        return _without(self._enrolled.rows_of(person), self._apart)

    @cached_property
    def _apart(self) -> set[int]:
        return set(self.mislabelled)

    def _cosines(self, rows: Rows, others: Rows) -> NDArray[np.float32]:
        return np.asarray(self._enrolled.vectors[rows] @ self._enrolled.vectors[others].T, np.float32)

    def _best(self, row: int, others: Rows) -> float:
        return float((self._enrolled.vectors[others] @ self._enrolled.vectors[row]).max())

    # What becomes of it

    def _duplicate(self, first: int, second: int) -> Finding:
        """The identity with more templates stays."""
        kept, merged = sorted((first, second), key=lambda person: -self._enrolled.counts[person])
        rows = self._enrolled.rows_of(merged)
        best = self._cosines(self._enrolled.rows_of(kept), rows).max()
        own = max((self._near.own[row] for row in rows), default=-np.inf)
        return self._finding(
            Ailment.DUPLICATE,
            Remedy.MERGE,
            rows,
            identity=kept,
            other=merged,
            own=float(own),
            other_cosine=float(best),
            after=self.searched.rates_merged(kept, merged),
        )

    def _mislabelled(self, row: int) -> Finding:
        return self._of_template(Ailment.MISLABELLED, Remedy.ERASE, row, other=int(self._near.rivals[row, 0]))

    def _remedy(self, row: int) -> Remedy:
        """Of two templates that disagree, a person has to say which is the wrong one; nobody is left without a template."""
        return Remedy.ERASE if len(self._others(row)) > 1 else Remedy.LOOK

    def _strangers(self) -> Iterator[Finding]:
        strange = self._suspects & (self._own_excess <= 0) & ~self._in(self.mislabelled)
        for row in np.flatnonzero(strange).tolist():
            yield self._of_template(Ailment.STRANGE, self._remedy(row), row)

    def _poor(self, threshold: float, refused: NDArray[np.bool_]) -> Iterator[Finding]:
        by_chance = self._chance.share(self._own_excess) > self._false_share
        hardly_alike = self._has_mates & ~self._suspects & by_chance & (self._near.own < threshold)
        for row in np.flatnonzero((hardly_alike | refused) & ~self._in(self.mislabelled)).tolist():
            yield self._of_template(Ailment.POOR, self._remedy(row), row)

    def _near_misses(self) -> Iterator[Finding]:
        """Identities that are the nearest stranger of more high-scoring searches than their share of templates gives."""
        nearest, scores = self._near.rivals[:, 0], self._near.rival_scores[:, 0]
        healthy = ~self._in(self.mislabelled) & ~self._find_their_own()
        start = float(np.quantile(scores[healthy], NEAR))
        counted = np.bincount(nearest[healthy & (scores >= start)], minlength=len(self._enrolled.names))
        shares = self._enrolled.counts / len(self._enrolled.vectors)
        unlikely = binom.sf(counted - 1, counted.sum(), shares) * len(counted) < SIGNIFICANCE
        for person in sorted(np.flatnonzero(unlikely).tolist(), key=lambda each: -counted[each]):
            yield self._wolf(person, start=start, count=int(counted[person]))

    def _find_their_own(self) -> NDArray[np.bool_]:
        """Searches (N,) whose nearest stranger is probably themselves: a duplicate, or their mislabelled template."""
        people, nearest = self._enrolled.people, self._near.rivals[:, 0]
        one_person = {pair for both in self.duplicates for pair in (both, both[::-1])}
        one_person |= {(int(nearest[row]), int(people[row])) for row in self.mislabelled}
        return np.array([pair in one_person for pair in zip(people.tolist(), nearest.tolist(), strict=True)])

    def _wolf(self, person: int, *, start: float, count: int) -> Finding:
        rows = self._enrolled.rows_of(person)
        return self._finding(
            Ailment.NEAR_MISSES,
            Remedy.LOOK,
            rows,
            identity=person,
            own=float(self._near.own[rows].max()),
            other_cosine=start,
            after=self.searched.rates_without(rows),
            near_misses=count,
        )

    def _of_template(self, ailment: Ailment, remedy: Remedy, row: int, *, other: int = NOBODY) -> Finding:
        rows = np.array([row])
        return self._finding(
            ailment,
            remedy,
            rows,
            identity=int(self._enrolled.people[row]),
            other=other,
            own=float(self._near.own[row]),
            other_cosine=float(self._near.rival_scores[row, 0]),
            after=self.searched.rates_without(rows),
        )

    def _finding(  # noqa: PLR0913  (the parts of a finding)
        self,
        ailment: Ailment,
        remedy: Remedy,
        rows: Rows,
        *,
        identity: int,
        own: float,
        other_cosine: float,
        after: ErrorRates,
        other: int = NOBODY,
        near_misses: int = 0,
    ) -> Finding:
        """Back to the caller's numbers."""
        names = self._enrolled.names
        return Finding(
            ailment,
            remedy,
            identity=int(names[identity]),
            other=NOBODY if other == NOBODY else int(names[other]),
            templates=tuple(self._enrolled.order[rows].tolist()),
            own_cosine=own if np.isfinite(own) else None,
            other_cosine=min(1.0, other_cosine),
            after=after,
            near_misses=near_misses,
        )

    def _in(self, rows: Iterable[int]) -> NDArray[np.bool_]:
        mask = np.zeros(len(self._levels), np.bool_)
        mask[list(rows)] = True
        return mask


def _without(rows: Rows, apart: set[int]) -> Rows:
    return rows[[row not in apart for row in rows.tolist()]] if apart else rows


def _best_of_others(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """The best cosine (n,) of each to the others, from cosines (n, n)."""
    masked = np.where(np.eye(len(cosines), dtype=np.bool_), np.float32(-1), cosines)
    return np.asarray(masked.max(axis=1), np.float32)


def _less(own: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.maximum(0, own - other).mean())
