"""What a calibration says to people: the answer to "which threshold?", and everything that it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.calibration.certificate import SizeRow
from facedex.indexer.calibration.errors import PromiseRefused
from facedex.indexer.calibration.operating_table import fnir_interval
from facedex.indexer.calibration.promise import FpirInterval, Kind
from facedex.indexer.calibration.uncertainty import IndependentSearches, RateInterval
from facedex.indexer.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from facedex.indexer.calibration.certificate import Certificate
    from facedex.indexer.calibration.operating_table import OperatingTable
    from facedex.indexer.calibration.scores import Searches
    from facedex.indexer.evaluation.labelled import Unusable
    from facedex.indexer.evaluation.searched import Labels

SHOWN_PAIRS = 10


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a threshold that keeps this FPIR in a gallery of so many templates."""

    target_fpir: float
    gallery_templates: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Two people who were compared, or one and herself, and the photographs of both, where photographs were given."""

    score: float
    probe: str
    enrolled: str
    probe_photograph: Path | None
    enrolled_photograph: Path | None


@dataclass(frozen=True, slots=True)
class Cohort:
    """Error rates of the people of a cohort at the threshold; None where it has no such search."""

    name: str
    non_mated_searches: int
    fpir: RateInterval | None
    mated_searches: int
    fnir: RateInterval | None


@dataclass(frozen=True, slots=True)
class Report:
    """A certificate, the searches that it was made from, and the answer to one question.

    answer: the interval at the threshold, or why there is none. uncorrected: what the gallery alone said, where labelled
    probes corrected it. notes: how the data were come by, a sentence each.
    """

    certificate: Certificate
    digest: str
    sizes: tuple[SizeRow, ...]
    searches: Searches
    labels: Labels
    question: Question
    answer: FpirInterval | PromiseRefused
    failures: tuple[Unusable, ...] = ()
    cohorts: tuple[Cohort, ...] = ()
    uncorrected: OperatingTable | None = None
    notes: tuple[str, ...] = ()

    @property
    def table(self) -> OperatingTable:
        return self.certificate.table

    @property
    def threshold(self) -> float | None:
        return self.answer.threshold if isinstance(self.answer, FpirInterval) else None

    @property
    def fnir(self) -> RateInterval | None:
        """At the threshold, in the gallery that was searched."""
        return None if self.threshold is None else self.table.fnir(self.threshold)

    def strictest(self) -> FpirInterval:
        """The lowest FPIR that can be promised in the gallery asked for, at the lowest threshold that keeps it."""
        size = self.question.gallery_templates
        intervals = [self.table.fpir(row.threshold, gallery_templates=size) for row in self.table.rows]
        return min(intervals, key=lambda interval: (interval.upper, interval.threshold))

    def verdict(self) -> str:
        """The answer in a sentence or two."""
        if isinstance(self.answer, PromiseRefused):
            return f"Refused: {self.answer}."
        asked = self.question
        missed = "" if self.fnir is None else f" Of people who are enrolled it misses {spelt(self.fnir)}."
        how = "measured" if self.answer.kind is Kind.MEASURED else "extrapolated, not measured"
        fpir = RateInterval(self.answer.lower, self.answer.estimate, self.answer.upper)
        return (
            f"At a cosine of {self.answer.threshold:.3f}, at most {share(asked.target_fpir)} of strangers are taken for "
            f"somebody in a gallery of {counted(asked.gallery_templates)} templates: {spelt(fpir)}, {how}.{missed}"
        )

    def hardest_non_mated(self) -> list[Pair]:
        """The strangers who resemble somebody most; two of the first may be one person."""
        found = self.searches.non_mated
        rows = _highest(found.top_scores)
        return [
            Pair(
                float(found.top_scores[row]),
                self.labels.name(int(found.probe_identities[row])),
                self.labels.name(int(found.nearest_identities[row])),
                _at(self.labels.non_mated, row),
                self.labels.templates.get(int(found.nearest_identities[row])),
            )
            for row in rows
        ]

    def worst_mated(self) -> list[Pair]:
        """The enrolled people who resemble their own templates least; failures to acquire are not among them."""
        found = self.searches.mated
        return [
            Pair(
                float(found.mate_scores[row]),
                self.labels.name(int(found.probe_identities[row])),
                self.labels.name(int(found.probe_identities[row])),
                _at(self.labels.mated, row),
                self.labels.templates.get(int(found.probe_identities[row])),
            )
            for row in _highest(np.where(np.isfinite(found.mate_scores), -found.mate_scores, -np.inf))
        ]


def answered(
    certificate: Certificate, searches: Searches, labels: Labels, *, target_fpir: float, gallery_templates: int | None
) -> Report:
    """The report on one target, in a gallery of so many templates or of the size that was searched."""
    question = Question(target_fpir, gallery_templates or certificate.table.evidence.gallery_templates)
    answer: FpirInterval | PromiseRefused
    try:
        answer = certificate.table.resolve(target_fpir, gallery_templates=question.gallery_templates)
    except PromiseRefused as refusal:
        answer = refusal
    return Report(certificate, certificate.digest, tuple(certificate.sizes()), searches, labels, question, answer)


def cohorts_of(report: Report, cohorts: Mapping[str, str]) -> tuple[Cohort, ...]:
    """Error rates of each cohort at the report's threshold; who is in no cohort is left out.

    Raises:
        InvalidArgument: nobody who was searched is in a cohort.

    """
    if report.threshold is None:
        return ()
    names = {number: cohorts[name] for number, name in report.labels.names.items() if name in cohorts}
    if not names:
        raise InvalidArgument("--cohorts", "names nobody who was searched; use the names of the folders or identities")
    return tuple(_cohort(report, cohort, names, report.threshold) for cohort in sorted(set(names.values())))


def _cohort(report: Report, cohort: str, names: Mapping[int, str], threshold: float) -> Cohort:
    members = np.array([number for number, name in names.items() if name == cohort], np.int64)
    non_mated, mated = report.searches.non_mated, report.searches.mated
    strangers = non_mated.only(np.isin(non_mated.probe_identities, members))
    mates = np.isin(mated.probe_identities, members)
    own = type(mated)(mated.mate_scores[mates], mated.mate_ranks[mates], mated.probe_identities[mates])
    fpir = IndependentSearches.of(strangers).interval(threshold) if len(strangers) else None
    return Cohort(cohort, len(strangers), fpir, len(own), fnir_interval(own, threshold))


def _highest(values: NDArray[np.float64]) -> list[int]:
    best = np.argsort(-values, kind="stable")[:SHOWN_PAIRS]
    return [int(row) for row in best if np.isfinite(values[row])]


def _at(photographs: Sequence[Path], row: int) -> Path | None:
    return photographs[row] if row < len(photographs) else None


# How figures are written, in every report alike.


def share(rate: float) -> str:
    """A rate in percent with two digits, however small: 0.00001234 is 0.0012 %."""
    return f"{np.format_float_positional(100 * rate, precision=2, fractional=False, trim='-')} %"


def interval_text(rate: RateInterval) -> str:
    """0.23 % (0.0063 – 1.0 %)."""
    return f"{share(rate.estimate)} ({share(rate.lower)} – {share(rate.upper)})"


def spelt(rate: RateInterval) -> str:
    """The same in words."""
    return f"{share(rate.estimate)} by estimate, {share(rate.lower)} to {share(rate.upper)} with 95 % confidence"


def counted(number: float) -> str:
    """12 345 with narrow spaces, which no language reads as a decimal mark."""
    return f"{number:,.0f}".replace(",", "\u202f")
