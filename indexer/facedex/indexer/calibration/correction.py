"""What a few labelled probes change about a promise that was made with enrolment photographs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from facedex.indexer.calibration.operating_table import OperatingRow, OperatingTable, falling, fnir_interval
from facedex.indexer.calibration.promise import Kind
from facedex.indexer.calibration.uncertainty import BOOTSTRAP_CELLS, CONFIDENCE, IndependentSearches, RateInterval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from facedex.indexer.calibration.scores import Searches

REPETITIONS = 1_000
LEAST_PEOPLE = 5
"""Of fewer people no difference of medians can be told."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The median score of probes less that of enrolment photographs, in cosine, with its 95 % interval."""

    lower: float
    estimate: float
    upper: float


@dataclass(frozen=True, slots=True)
class ProbeCorrection:
    """How labelled probes differ from the photographs that are enrolled; None where they are too few to tell.

    non_mated: of the top scores of strangers. mated: of the scores of mates.
    """

    non_mated_searches: int
    mated_searches: int
    non_mated: Difference | None
    mated: Difference | None

    @staticmethod
    def of(enrolled: Searches, probes: Searches) -> ProbeCorrection:
        """From the searches of the gallery with its own templates, and with the probes."""
        strangers, mates = probes.non_mated, probes.mated
        return ProbeCorrection(
            len(strangers),
            len(mates),
            difference_of_medians(
                _Scores.of(strangers.top_scores, strangers.probe_identities),
                _Scores.of(enrolled.non_mated.top_scores, enrolled.non_mated.probe_identities),
            ),
            difference_of_medians(
                _Scores.of(mates.mate_scores, mates.probe_identities),
                _Scores.of(enrolled.mated.mate_scores, enrolled.mated.probe_identities),
            ),
        )

    @property
    def raised_by(self) -> float:
        """By how much strangers may score higher than the enrolled do among each other: the upper limit, 0 or more."""
        return 0.0 if self.non_mated is None else max(0.0, self.non_mated.upper)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(document: dict[str, Any]) -> ProbeCorrection:
        """The inverse of `to_json`."""
        differences = {
            name: None if document[name] is None else Difference(**document[name]) for name in ("non_mated", "mated")
        }
        return ProbeCorrection(document["non_mated_searches"], document["mated_searches"], **differences)


def corrected_table(table: OperatingTable, correction: ProbeCorrection, probes: Searches) -> OperatingTable:
    """The more cautious of what the gallery and what the probes say.

    Few strangers cannot count a small FPIR, but they show whether strangers score higher than the enrolled do among each
    other. So the gallery's own upper limit is taken at a threshold that is lower by as much as that may be, and is never
    below the share of the strangers that was counted; lower limit and estimate span both. FNIR is the probes' own, where
    there are mated ones.
    """
    strangers = IndependentSearches.of(probes.non_mated) if len(probes.non_mated) else None
    rows = [_corrected(row, table, correction, strangers, probes) for row in table.rows]
    mated = len(probes.mated) or table.evidence.mated_searches
    return OperatingTable(replace(table.evidence, mated_searches=mated), tuple(falling(rows)))


def _corrected(
    row: OperatingRow,
    table: OperatingTable,
    correction: ProbeCorrection,
    strangers: IndependentSearches | None,
    probes: Searches,
) -> OperatingRow:
    fnir = fnir_interval(probes.mated, row.threshold) or row.fnir
    if strangers is None:
        return replace(row, fnir=fnir)
    raised = table.row_at(row.threshold - correction.raised_by)
    counted = strangers.interval(row.threshold)
    fpir = RateInterval(
        min(row.fpir.lower, counted.lower),
        max(row.fpir.estimate, counted.estimate),
        max(raised.fpir.upper, counted.estimate),
    )
    # What was shifted was not counted.
    kind = raised.kind if correction.raised_by == 0 else Kind.EXTRAPOLATED
    return OperatingRow(row.threshold, fpir, kind, fnir)


@dataclass(frozen=True, slots=True)
class _Scores:
    """Scores (n,), rising, and the numbers (n,) of the people they are of, from 0; failures are left out."""

    rising: NDArray[np.float64]
    people: NDArray[np.int64]

    @staticmethod
    def of(scores: NDArray[np.float64], identities: NDArray[np.int64]) -> _Scores:
        found = np.flatnonzero(np.isfinite(scores))
        order = found[np.argsort(scores[found], kind="stable")]
        _, people = np.unique(identities[order], return_inverse=True)
        return _Scores(scores[order], people.astype(np.int64))

    @property
    def people_count(self) -> int:
        return int(self.people.max()) + 1 if len(self.people) else 0

    def medians(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Medians (REPETITIONS,) over people drawn with replacement."""
        return np.concatenate([self._medians(rng, count) for count in self._blocks()])

    def _blocks(self) -> Iterator[int]:
        step = max(1, BOOTSTRAP_CELLS // len(self.rising))
        return (min(step, REPETITIONS - start) for start in range(0, REPETITIONS, step))

    def _medians(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        people = self.people_count
        drawn = rng.multinomial(people, np.full(people, 1 / people), size=count)[:, self.people].cumsum(axis=1)
        return np.asarray(self.rising[(2 * drawn >= drawn[:, -1:]).argmax(axis=1)], np.float64)


def difference_of_medians(probes: _Scores, enrolled: _Scores, *, seed: int = 0) -> Difference | None:
    """With an identity bootstrap of both; None where one of them is of too few people."""
    if min(probes.people_count, enrolled.people_count) < LEAST_PEOPLE:
        return None
    rng = np.random.default_rng(seed)
    differences = probes.medians(rng) - enrolled.medians(rng)
    lower, upper = np.quantile(differences, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Difference(float(lower), float(np.median(probes.rising) - np.median(enrolled.rising)), float(upper))
