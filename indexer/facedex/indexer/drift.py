"""Watches whether live searches still look as they did when the gallery was calibrated."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facedex.indexer.calibration.distributions import binomial_survival
from facedex.indexer.calibration.errors import PromiseRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facedex.indexer.calibration.operating_table import OperatingTable

# One search in so many is watched: it asks for candidates further down than it would.
WATCHED_EVERY = 10
# Where the upper limit of FPIR is each of these shares, strangers are counted.
WATCHED_SHARES = (0.5, 0.2, 0.1, 0.05)
# Galleries of sizes that differ by less share their counts.
SIMILAR = 0.9
# Fewer searches say nothing.
LEAST_WATCHED = 100
# Then everything is halved, so that old searches fade away.
MOST_WATCHED = 20_000
# By chance alone, a sound gallery is suspected as seldom as this at each look.
SUSPICION = 1e-4
# Of enrolled people's searches, where no mated search was part of the calibration.
ASSUMED_FNIR = 0.1


@dataclass(frozen=True, slots=True)
class DriftReport:
    """How many searches were watched, and what was noticed, for people; nothing where the promise seems to hold."""

    watched: int
    suspicion: str = ""


class DriftWatch:
    """Counts of top scores, never a score beside a person or a vector: nothing here tells of anybody.

    Searches that end below the threshold are mostly strangers'. Among them, the share that comes near the threshold is
    compared with what the certificate says of strangers. Enrolled people who were missed are allowed for, as many as the
    certificate expects.
    """

    def __init__(self, table: OperatingTable, *, gallery_templates: int) -> None:
        self._table = table
        self._levels = _levels(table, gallery_templates)
        self._templates = gallery_templates
        self._below = 0.0
        self._above = 0.0
        self._reaching = [0.0] * len(self._levels)
        self._numbers = itertools.count(1)
        self._counting = threading.Lock()

    def is_for(self, gallery_templates: int) -> bool:
        """Whether what is expected holds for a gallery of so many templates too."""
        return SIMILAR <= gallery_templates / self._templates <= 1 / SIMILAR

    @property
    def floor(self) -> float:
        """The lowest score that is counted."""
        return min(self._levels, default=1.0)

    @property
    def is_due(self) -> bool:
        """Whether the next search shall be watched."""
        return bool(self._levels) and next(self._numbers) % WATCHED_EVERY == 0

    def note(self, top_scores: Sequence[float | None], *, threshold: float) -> None:
        """Counts watched searches: the best score of each, None for less than the floor."""
        with self._counting:
            for top in top_scores:
                self._count(-1.0 if top is None else top, threshold)
            if self._below + self._above > MOST_WATCHED:
                self._below, self._above = self._below / 2, self._above / 2
                self._reaching = [each / 2 for each in self._reaching]

    def _count(self, top: float, threshold: float) -> None:
        if top >= threshold:
            self._above += 1
            return
        self._below += 1
        for place, level in enumerate(self._levels):
            self._reaching[place] += top >= level

    def report(self, *, threshold: float) -> DriftReport:
        """What the searches so far say, at a threshold."""
        with self._counting:
            below, above, reaching = self._below, self._above, list(self._reaching)
        watched = int(below + above)
        if watched < LEAST_WATCHED:
            return DriftReport(watched)
        missed = above * self._miss_odds(threshold)
        for level, count in zip(self._levels, reaching, strict=True):
            suspicion = self._suspicion(level, max(0.0, count - missed), max(1.0, below - missed), threshold)
            if suspicion:
                return DriftReport(watched, suspicion)
        return DriftReport(watched)

    def _miss_odds(self, threshold: float) -> float:
        fnir = self._table.fnir(threshold)
        upper = ASSUMED_FNIR if fnir is None else min(fnir.upper, 0.9)
        return upper / (1 - upper)

    def _suspicion(self, level: float, count: float, searches: float, threshold: float) -> str:
        if level >= threshold:
            return ""
        expected = self._table.fpir(level, gallery_templates=self._templates).upper
        if float(binomial_survival(int(count) - 1, int(searches), min(1.0, expected))) >= SUSPICION:
            return ""
        return (
            f"{count / searches:.1%} of the searches below the threshold score {level:.2f} or more, where the certificate "
            f"expects {expected:.1%} at most: strangers score higher than they did; calibrate again with present probes"
        )


def _levels(table: OperatingTable, templates: int) -> list[float]:
    levels: list[float] = []
    for share in WATCHED_SHARES:
        try:
            levels.append(table.resolve(share, gallery_templates=templates).threshold)
        except PromiseRefused:
            break
    return levels
