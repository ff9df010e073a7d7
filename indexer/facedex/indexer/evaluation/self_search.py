"""A gallery searched against itself at one threshold, and again as it would be after a change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from facedex.indexer.evaluation.neighbours import Enrolled

    Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ErrorRates:
    """FPIR and FNIR (rank 1) of a gallery that is searched against itself; None where there is nothing to search."""

    fpir: float | None
    fnir: float | None


@dataclass(frozen=True, slots=True)
class SelfSearch:
    """Every template against all others, as `calibration.scores.searches_of_gallery` does it, at a threshold.

    Only pairs that reach the threshold are kept: nothing below it makes a false positive or finds a mate.
    people: (N,) whose. probes, found: (pairs,) templates. cosines: (pairs,).
    """

    people: Rows
    probes: Rows
    found: Rows
    cosines: NDArray[np.float64]

    @staticmethod
    def at(
        threshold: float, enrolled: Enrolled, *, report: Callable[[float], None] = lambda _share: None
    ) -> SelfSearch:
        parts: list[tuple[Rows, Rows, NDArray[np.float64]]] = []
        for rows, block in enrolled.blocks():
            parts.append(_reaching(threshold, rows, block))
            report(rows.stop / len(enrolled.vectors))
        probes, found, cosines = (np.concatenate(part) for part in zip(*parts, strict=True))
        return SelfSearch(enrolled.people, probes, found, cosines)

    def rates(self) -> ErrorRates:
        return self._rates(self.people, np.ones(len(self.people), np.bool_))

    def rates_without(self, templates: Rows) -> ErrorRates:
        """After templates are erased."""
        kept = np.ones(len(self.people), np.bool_)
        kept[templates] = False
        return self._rates(self.people, kept)

    def rates_merged(self, person: int, other: int) -> ErrorRates:
        """After two identities have become one."""
        return self._rates(np.where(self.people == other, person, self.people), np.ones(len(self.people), np.bool_))

    def _rates(self, people: Rows, kept: NDArray[np.bool_]) -> ErrorRates:
        alive = kept[self.probes] & kept[self.found]
        own = people[self.probes] == people[self.found]
        mate, rival = (self._best(alive & chosen) for chosen in (own, ~own))
        mated = kept & (np.bincount(people[kept], minlength=people.max() + 1)[people] > 1)
        return ErrorRates(_mean(np.isfinite(rival[kept])), _mean(~(mate > rival)[mated]))

    def _best(self, pairs: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The best cosine (N,) of each probe among some of the pairs; −∞ where it has none."""
        best = np.full(len(self.people), -np.inf)
        np.maximum.at(best, self.probes[pairs], self.cosines[pairs])
        return best


def _reaching(threshold: float, rows: slice, cosines: NDArray[np.float32]) -> tuple[Rows, Rows, NDArray[np.float64]]:
    probes, found = np.nonzero(cosines >= np.float64(threshold))
    return probes + rows.start, found, cosines[probes, found].astype(np.float64)


def _mean(values: NDArray[np.bool_]) -> float | None:
    return float(values.mean()) if len(values) else None
