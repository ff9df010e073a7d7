"""What a calibration allows to say, as a table: the part of a certificate that a server decides with."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from facedex.indexer.calibration.errors import NoSearches, PromiseRefused, ScoresInvalid
from facedex.indexer.calibration.promise import SAME_SIZE, FpirInterval, Kind, Promise, grown
from facedex.indexer.calibration.uncertainty import RateInterval, clustered_interval, searches_needed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facedex.indexer.calibration.scores import MatedSearches

STEPS = 1_000
"""Thresholds from 0 to 1, a thousandth apart: finer than any of them is known."""
DIGITS = 9


@dataclass(frozen=True, slots=True)
class Evidence:
    """What non-mated searches are worth, and how large the gallery was that they searched."""

    gallery_templates: int
    searched_identities: int
    non_mated_searches: int
    independent_searches: float
    doubtful_searches: int
    mated_searches: int


@dataclass(frozen=True, slots=True)
class OperatingRow:
    """Error rates at a threshold, in a gallery of the size that was searched, with 95 % intervals.

    fnir: at any rank (R = N); None where no mated search was made.
    """

    threshold: float
    fpir: RateInterval
    kind: Kind
    fnir: RateInterval | None


@dataclass(frozen=True, slots=True)
class OperatingTable:
    """Error rates at each threshold, and thresholds for each error rate, at any size of the gallery.

    Rows rise in threshold, and their upper limits of FPIR fall. What it says of a threshold between two rows is what holds
    for the lower one, which has the higher FPIR.
    """

    evidence: Evidence
    rows: tuple[OperatingRow, ...]

    @classmethod
    def of(cls, promise: Promise, mated: MatedSearches | None) -> OperatingTable:
        searches = promise.searches
        evidence = Evidence(
            gallery_templates=searches.gallery_templates,
            searched_identities=len(np.unique(searches.probe_identities)),
            non_mated_searches=len(searches),
            independent_searches=round(promise.independent.searches(), 1),
            doubtful_searches=promise.doubtful_searches,
            mated_searches=0 if mated is None else len(mated),
        )
        rows = [_row(promise, mated, step / STEPS) for step in range(STEPS + 1)]
        return cls(evidence, tuple(falling(rows)))

    def fpir(self, threshold: float, *, gallery_templates: int) -> FpirInterval:
        """FPIR at a threshold in a gallery of so many templates."""
        row = self.row_at(threshold)
        return at_size(
            row.fpir, row.kind, threshold, searched=self.evidence.gallery_templates, wanted=gallery_templates
        )

    def fnir(self, threshold: float) -> RateInterval | None:
        """FNIR at a threshold, in the gallery that was searched; None where no mated search was made."""
        return self.row_at(threshold).fnir

    def resolve(self, target_fpir: float, *, gallery_templates: int) -> FpirInterval:
        """The lowest threshold whose upper limit keeps the target in a gallery of so many templates.

        Raises:
            PromiseRefused: the searches do not carry the target; the error says how many more identities would.
            ScoresInvalid: the target is no share between 0 and 1.

        """
        if not 0 < target_fpir < 1:
            raise ScoresInvalid("target_fpir", f"is {target_fpir}; give a share between 0 and 1, such as 0.01")

        def at(row: OperatingRow) -> FpirInterval:
            return self.fpir(row.threshold, gallery_templates=gallery_templates)

        place = bisect_left(self.rows, -target_fpir, key=lambda row: -at(row).upper)
        if place == len(self.rows):
            raise self._refusal(target_fpir, gallery_templates)
        return at(self.rows[place])

    def row_at(self, threshold: float) -> OperatingRow:
        """The row that speaks for a threshold: the highest that is not above it."""
        # A thousandth that a float cannot hold still means its own row.
        place = int(np.floor(threshold * STEPS + 1e-6))
        return self.rows[min(max(place, 0), STEPS)]

    def _refusal(self, target_fpir: float, gallery_templates: int) -> PromiseRefused:
        growth = max(1.0, gallery_templates / self.evidence.gallery_templates)
        independent = self.evidence.independent_searches
        missing = searches_needed(target_fpir / growth) - independent
        return PromiseRefused(
            target_fpir=target_fpir,
            gallery_templates=gallery_templates,
            independent_searches=independent,
            doubtful_searches=self.evidence.doubtful_searches,
            further_identities=max(1, ceil(missing * self.evidence.searched_identities / independent)),
        )

    def to_json(self) -> dict[str, Any]:
        """As a certificate holds it: columns of numbers."""
        evidence = {name: getattr(self.evidence, name) for name in Evidence.__slots__}
        return {
            "evidence": evidence,
            "thresholds": [row.threshold for row in self.rows],
            "fpir": _columns([row.fpir for row in self.rows]),
            "measured": [row.kind is Kind.MEASURED for row in self.rows],
            "fnir": None if self.rows[0].fnir is None else _columns([row.fnir for row in self.rows if row.fnir]),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> OperatingTable:
        """The inverse of `to_json`."""
        fpir = _intervals(document["fpir"])
        fnir = [None] * len(fpir) if document["fnir"] is None else _intervals(document["fnir"])
        kinds = [Kind.MEASURED if measured else Kind.EXTRAPOLATED for measured in document["measured"]]
        rows = zip(document["thresholds"], fpir, kinds, fnir, strict=True)
        return cls(Evidence(**document["evidence"]), tuple(OperatingRow(*row) for row in rows))


def at_size(present: RateInterval, kind: Kind, threshold: float, *, searched: int, wanted: int) -> FpirInterval:
    """FPIR in a gallery of `wanted` templates, from what holds for the `searched` ones; see `Promise`."""
    growth = wanted / searched
    return FpirInterval(
        threshold,
        wanted,
        lower=min(present.lower, grown(present.lower, growth)),
        estimate=grown(present.estimate, growth),
        upper=max(present.upper, grown(present.upper, growth)),
        kind=kind if SAME_SIZE <= growth <= 1 / SAME_SIZE else Kind.EXTRAPOLATED,
    )


def _row(promise: Promise, mated: MatedSearches | None, threshold: float) -> OperatingRow:
    interval = promise.fpir_interval(threshold, gallery_templates=promise.searches.gallery_templates)
    fpir = _rounded(RateInterval(interval.lower, interval.estimate, interval.upper))
    return OperatingRow(threshold, fpir, interval.kind, fnir_interval(mated, threshold))


def fnir_interval(mated: MatedSearches | None, threshold: float) -> RateInterval | None:
    """FNIR at any rank, with its 95 % interval; None where no mated search was made."""
    if mated is None or not len(mated):
        return None
    try:
        return _rounded(clustered_interval(mated.mate_scores < threshold, mated.probe_identities))
    except NoSearches:
        return None


def _rounded(interval: RateInterval) -> RateInterval:
    # Outwards, so that rounding promises nothing.
    margin = 0.5 * 10**-DIGITS
    return RateInterval(
        round(max(0.0, interval.lower - margin), DIGITS),
        round(interval.estimate, DIGITS),
        round(min(1.0, interval.upper + margin), DIGITS),
    )


def falling(rows: Sequence[OperatingRow]) -> list[OperatingRow]:
    """The same rows, none of which promises less than a lower threshold does."""
    kept: list[OperatingRow] = []
    upper = 1.0
    for row in rows:
        upper = min(upper, row.fpir.upper)
        fpir = RateInterval(min(row.fpir.lower, upper), min(row.fpir.estimate, upper), upper)
        kept.append(OperatingRow(row.threshold, fpir, row.kind, row.fnir))
    return kept


def _columns(intervals: Sequence[RateInterval]) -> dict[str, list[float]]:
    return {name: [getattr(each, name) for each in intervals] for name in RateInterval.__slots__}


def _intervals(columns: dict[str, list[float]]) -> list[RateInterval]:
    return [RateInterval(*values) for values in zip(*(columns[name] for name in RateInterval.__slots__), strict=True)]
