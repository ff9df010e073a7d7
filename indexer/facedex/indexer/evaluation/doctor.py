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

from facedex.indexer.calibration.distributions import binomial_survival
from facedex.indexer.evaluation.chance import ChanceTail
from facedex.indexer.evaluation.neighbours import Enrolled, Neighbours
from facedex.indexer.evaluation.self_search import ErrorRates, SelfSearch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    Rows = NDArray[np.int64]
    Floats = NDArray[np.float64]

NOBODY = -1
FALSE_SHARE = 0.1
CANDIDATES = 2  # nearest other identities of each template that may be the same person
AGREEING = 0.98  # so many of the identities' own templates, if split off, would still be taken for the same person
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
    report: Callable[[float], None] = lambda _share: None,
) -> Diagnosis:
    """Looks for what is wrong in a gallery. No N × N matrix is held.

    Args:
        vectors: (N, dimension), unit length.
        identities: (N,), 0 or more.
        threshold: a cosine; where it is so low that more than a tenth of the searches find a stranger, the one at which a
            tenth do is taken instead, since no gallery can decide by such a cosine.
        refused: (N,) templates that the enrolment policy would refuse today.
        false_share: of the duplicates, and of the mislabelled templates, so many may be false alarms.
        report: is told the share that is done.

    Raises:
        ScoresInvalid: the lengths differ, or there are too few identities to know what chance gives.

    """
    enrolled = Enrolled.of(vectors, identities)
    near = Neighbours.of(enrolled, report=lambda share: report(share / 2))
    examination = _Examination(enrolled, near, false_share)
    lowest = max(threshold, examination.near_misses_from)
    searched = SelfSearch.at(lowest, enrolled, report=lambda share: report((1 + share) / 2))
    unfit = np.zeros(len(vectors), np.bool_) if refused is None else refused[enrolled.order]
    return Diagnosis(lowest, searched.rates(), tuple(_Findings(examination, searched).all(unfit)))


class _Examination:
    """A gallery with its neighbours; rows are those of `Enrolled`, people are indices into its names."""

    def __init__(self, enrolled: Enrolled, near: Neighbours, false_share: float) -> None:
        self.enrolled = enrolled
        self.near = near
        self.false_share = false_share
        self.levels = near.levels
        self.excess = near.rival_scores[:, 0] - self.levels
        self.own_excess = near.own - self.levels
        self.has_mates = np.isfinite(near.own)
        self.suspects = self.has_mates & (near.own < near.rival_scores[:, 0])
        self.chance = ChanceTail.of_peaks(self.excess)
        self.certain = self.chance.limit(self.excess[self.suspects], false_share=false_share)
        # Most templates agree with their own identity, so that much less is credible there than between identities.
        self.agreeing = min(self.certain, self.chance.limit(self.own_excess[self.has_mates], false_share=false_share))

    # Mislabelled templates

    @cached_property
    def mislabelled(self) -> list[int]:
        """Templates that resemble another identity beyond chance and their own no more than chance, the clearest first."""
        found: set[int] = set()
        for row in self._in_order_of_evidence():
            if self._shows_another(row, apart=found):
                found.add(row)
        margin = self.excess - self.own_excess
        return sorted(found, key=lambda row: -margin[row])

    def _in_order_of_evidence(self) -> list[int]:
        """Where two resemble each other under two identities, the one that disagrees with more sound templates is wrong."""
        doubtful = self.suspects & (self.excess >= self.certain) & (self.own_excess < self.agreeing)
        margin = self.excess - self.own_excess

        def key(row: int) -> tuple[float, int, float]:
            others = self.others(row)
            return float(doubtful[others].mean()), -len(others), -float(margin[row])

        return sorted(np.flatnonzero(doubtful).tolist(), key=key)

    def _shows_another(self, row: int, *, apart: set[int]) -> bool:
        """Whether it still does, without the templates that are known to be mislabelled, and its identity does not."""
        others = _without(self.others(row), apart)
        rival = _without(self.enrolled.rows_of(int(self.near.rivals[row, 0])), apart)
        if not len(others) or not len(rival):
            return False
        others_excess = np.median(self.cosines(others, rival).max(axis=1) - self.levels[others])
        return bool(self._best(row, rival) - self.levels[row] >= self.certain > others_excess)

    def others(self, row: int) -> Rows:
        rows = self.enrolled.rows_of(int(self.enrolled.people[row]))
        return np.asarray(rows[rows != row], np.int64)

    # Duplicates

    @cached_property
    def duplicates(self) -> list[tuple[int, int]]:
        """Pairs of people that resemble each other beyond chance, and as much as their own templates do, best first."""
        pairs = [pair for pair in self._neighbouring_people() if all(len(self._sound(each)) for each in pair)]
        likeness = np.array([self._likeness(*pair) for pair in pairs])
        limit = ChanceTail.of_sums(likeness).limit(likeness, false_share=self.false_share)
        high = [int(row) for row in np.argsort(-likeness) if likeness[row] >= limit]
        return [pairs[row] for row in high if self._shortfall(*pairs[row]) <= self._usual_shortfall]

    def _neighbouring_people(self) -> list[tuple[int, int]]:
        people = np.repeat(self.enrolled.people, CANDIDATES)
        rivals = self.near.rivals[:, :CANDIDATES].ravel()
        pairs = np.unique(np.stack([np.minimum(people, rivals), np.maximum(people, rivals)], axis=1), axis=0)
        return [(first, second) for first, second in pairs.tolist()]

    def _likeness(self, first: int, second: int) -> float:
        """The mean excess of each one's templates with the other person, both people counting alike."""
        rows, others = self._sound(first), self._sound(second)
        cosines = self.cosines(rows, others)
        there = (cosines.max(axis=1) - self.levels[rows]).mean()
        back = (cosines.max(axis=0) - self.levels[others]).mean()
        return float(there + back) / 2

    def _shortfall(self, first: int, second: int) -> float:
        """By how much the templates resemble the other person less than their own identity; 0 where both have one template."""
        rows, others = self._sound(first), self._sound(second)
        cosines = self.cosines(rows, others)
        sides = ((rows, cosines.max(axis=1)), (others, cosines.max(axis=0)))
        short = [_less(self._own_best(side), best) for side, best in sides if len(side) > 1]
        return float(np.mean(short)) if short else 0.0

    @cached_property
    def _usual_shortfall(self) -> float:
        """What `AGREEING` of single templates would show that were split off their own identity."""
        seen = [
            _less(_best_of_others(np.delete(np.delete(cosines, one, 0), one, 1)), np.delete(cosines[:, one], one))
            for cosines in map(self._own_cosines, range(len(self.enrolled.names)))
            if len(cosines) > 2
            for one in range(len(cosines))
        ]
        return float(np.quantile(seen, AGREEING)) if seen else np.inf

    def _own_cosines(self, person: int) -> NDArray[np.float32]:
        rows = self._sound(person)
        return self.cosines(rows, rows)

    def _own_best(self, rows: Rows) -> NDArray[np.float32]:
        return _best_of_others(self.cosines(rows, rows))

    def _sound(self, person: int) -> Rows:
        """The person's templates without the mislabelled ones."""
        return _without(self.enrolled.rows_of(person), self._apart)

    @cached_property
    def _apart(self) -> set[int]:
        return set(self.mislabelled)

    def cosines(self, rows: Rows, others: Rows) -> NDArray[np.float32]:
        return np.asarray(self.enrolled.vectors[rows] @ self.enrolled.vectors[others].T, np.float32)

    def _best(self, row: int, others: Rows) -> float:
        return float((self.enrolled.vectors[others] @ self.enrolled.vectors[row]).max())

    # Everybody else

    @cached_property
    def in_company(self) -> NDArray[np.bool_]:
        """Templates (N,) that are not mislabelled, and whose identity has another such one that they should resemble."""
        sound = ~self.holds(self.mislabelled)
        people = self.enrolled.people
        return np.asarray(
            sound & (np.bincount(people[sound], minlength=len(self.enrolled.names)) > 1)[people], np.bool_
        )

    @cached_property
    def strange(self) -> NDArray[np.bool_]:
        """Templates (N,) that resemble their own identity no more than people in general, and nobody else beyond chance."""
        return np.asarray(self.suspects & (self.own_excess <= 0) & self.in_company, np.bool_)

    @cached_property
    def healthy(self) -> NDArray[np.bool_]:
        """Searches (N,) whose nearest stranger is a stranger, as far as is known."""
        return ~self.holds(self.mislabelled) & ~self._find_their_own()

    @cached_property
    def near_misses_from(self) -> float:
        """The score that the highest tenth of them reach."""
        return float(np.quantile(self.near.rival_scores[self.healthy, 0], NEAR))

    def _find_their_own(self) -> NDArray[np.bool_]:
        """Searches (N,) whose nearest stranger is probably themselves: a duplicate, or their mislabelled template."""
        people, nearest = self.enrolled.people, self.near.rivals[:, 0]
        one_person = {pair for both in self.duplicates for pair in (both, both[::-1])}
        one_person |= {(int(nearest[row]), int(people[row])) for row in self.mislabelled}
        return np.array([pair in one_person for pair in zip(people.tolist(), nearest.tolist(), strict=True)])

    def holds(self, rows: Iterable[int]) -> NDArray[np.bool_]:
        mask = np.zeros(len(self.levels), np.bool_)
        mask[list(rows)] = True
        return mask


class _Findings:
    """What an examination comes to, in the caller's numbers, and what becomes of the error rates."""

    def __init__(self, examination: _Examination, searched: SelfSearch) -> None:
        self._seen = examination
        self._searched = searched

    def all(self, refused: NDArray[np.bool_]) -> Iterator[Finding]:
        for pair in self._seen.duplicates:
            yield self._duplicate(*pair)
        for row in self._seen.mislabelled:
            yield self._mislabelled(row)
        yield from self._strangers()
        yield from self._poor(refused)
        yield from self._near_misses()

    def _duplicate(self, first: int, second: int) -> Finding:
        """The identity with more templates stays."""
        kept, merged = sorted((first, second), key=lambda person: -self._seen.enrolled.counts[person])
        rows = self._seen.enrolled.rows_of(merged)
        best = self._seen.cosines(self._seen.enrolled.rows_of(kept), rows).max()
        own = max((self._seen.near.own[row] for row in rows), default=-np.inf)
        return self._finding(
            Ailment.DUPLICATE,
            Remedy.MERGE,
            rows,
            identity=kept,
            other=merged,
            own=float(own),
            other_cosine=float(best),
            after=self._searched.rates_merged(kept, merged),
        )

    def _mislabelled(self, row: int) -> Finding:
        return self._of_template(Ailment.MISLABELLED, Remedy.ERASE, row, other=int(self._seen.near.rivals[row, 0]))

    def _remedy(self, row: int) -> Remedy:
        """Of two templates that disagree, a person has to say which is the wrong one; nobody is left without a template."""
        return Remedy.ERASE if len(self._seen.others(row)) > 1 else Remedy.LOOK

    def _strangers(self) -> Iterator[Finding]:
        for row in np.flatnonzero(self._seen.strange).tolist():
            yield self._of_template(Ailment.STRANGE, self._remedy(row), row)

    def _poor(self, refused: NDArray[np.bool_]) -> Iterator[Finding]:
        seen = self._seen
        by_chance = seen.chance.share(seen.own_excess) > seen.false_share
        hardly_alike = seen.has_mates & ~seen.suspects & by_chance & (seen.near.own < seen.near_misses_from)
        poor = (hardly_alike & seen.in_company) | (refused & ~seen.strange & ~seen.holds(seen.mislabelled))
        for row in np.flatnonzero(poor).tolist():
            yield self._of_template(Ailment.POOR, self._remedy(row), row)

    def _near_misses(self) -> Iterator[Finding]:
        """Identities that are the nearest stranger of more high-scoring searches than their share of templates gives."""
        nearest, scores = self._seen.near.rivals[:, 0], self._seen.near.rival_scores[:, 0]
        high = self._seen.healthy & (scores >= self._seen.near_misses_from)
        counted = np.bincount(nearest[high], minlength=len(self._seen.enrolled.names))
        shares = self._seen.enrolled.counts / len(self._seen.enrolled.vectors)
        unlikely = binomial_survival(counted - 1, counted.sum(), shares) * len(counted) < SIGNIFICANCE
        for person in sorted(np.flatnonzero(unlikely).tolist(), key=lambda each: -counted[each]):
            yield self._wolf(person, count=int(counted[person]))

    def _wolf(self, person: int, *, count: int) -> Finding:
        rows = self._seen.enrolled.rows_of(person)
        return self._finding(
            Ailment.NEAR_MISSES,
            Remedy.LOOK,
            rows,
            identity=person,
            own=float(self._seen.near.own[rows].max()),
            other_cosine=self._seen.near_misses_from,
            after=self._searched.rates_without(rows),
            near_misses=count,
        )

    def _of_template(self, ailment: Ailment, remedy: Remedy, row: int, *, other: int = NOBODY) -> Finding:
        rows = np.array([row])
        return self._finding(
            ailment,
            remedy,
            rows,
            identity=int(self._seen.enrolled.people[row]),
            other=other,
            own=float(self._seen.near.own[row]),
            other_cosine=float(self._seen.near.rival_scores[row, 0]),
            after=self._searched.rates_without(rows),
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
        names = self._seen.enrolled.names
        return Finding(
            ailment,
            remedy,
            identity=int(names[identity]),
            other=NOBODY if other == NOBODY else int(names[other]),
            templates=tuple(self._seen.enrolled.order[rows].tolist()),
            own_cosine=own if np.isfinite(own) else None,
            other_cosine=min(1.0, other_cosine),
            after=after,
            near_misses=near_misses,
        )


def _without(rows: Rows, apart: set[int]) -> Rows:
    return rows[[row not in apart for row in rows.tolist()]] if apart else rows


def _best_of_others(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """The best cosine (n,) of each to the others, from cosines (n, n)."""
    masked = np.where(np.eye(len(cosines), dtype=np.bool_), np.float32(-1), cosines)
    return np.asarray(masked.max(axis=1), np.float32)


def _less(own: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.maximum(0, own - other).mean())
