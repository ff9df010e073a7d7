"""One search over the parts of a fast index: a scan of codes, then an exact look at the rows that could matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.search.exact import Block, exact_scores
from facedex.indexer.search.ranking import best_of_each_identity
from facedex.indexer.search.segment import Rows, Segment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from facedex.indexer.search.code_fit import CodeFit
    from facedex.indexer.search.template_index import Hit, Scope


@dataclass(frozen=True, slots=True)
class LookSettings:
    """How closely the fast scan is checked."""

    gather_rows: int = 4_096
    """A filter that leaves no more is answered by comparing exactly those rows."""
    first_look: int = 160
    """Rows that are scored exactly in any case."""
    first_look_per_candidate: int = 16
    scanned: int = 1_024
    """Rows that the scan returns; of those behind the first look, only rows that could reach the floor are scored."""
    most_scanned: int = 4_096
    """Where the floor is so low that more rows could reach it, as for a stranger in an investigation, the list ends here."""
    deviations: float = 3.72
    """A row at the floor is missed less often than 1e-4: this many standard deviations of the codes' noise."""


class View:
    """The parts of an index as one search sees them."""

    def __init__(
        self, parts: tuple[Block | Segment, ...], *, scope: Scope, fit: CodeFit | None, settings: LookSettings
    ) -> None:
        self._settings = settings
        self._fit = fit
        self._blocks = [(part, part.mask(scope)) for part in parts if isinstance(part, Block)]
        self._segments = [
            (part, None if scope.is_everybody else part.mask(scope)) for part in parts if isinstance(part, Segment)
        ]

    def search(self, probes: NDArray[np.float32], *, limit: int, min_score: float) -> list[tuple[Hit, ...]]:
        """The best identities for each of the `probes` (n, dimension)."""
        if self._is_small():
            rows = self._gathered()
            return [ranked(rows, probe, min_score=min_score)[:limit] for probe in probes]
        count = max(self._settings.scanned, self._settings.first_look_per_candidate * limit)
        scans = self._scans(probes, count) if self._segments else [_NOTHING] * len(probes)
        return [
            self._look(probe, scan, limit=limit, min_score=min_score) for probe, scan in zip(probes, scans, strict=True)
        ]

    def _is_small(self) -> bool:
        if any(mask is None for _, mask in self._segments):
            return False
        masks = [mask for _, mask in (*self._blocks, *self._segments) if mask is not None]
        return bool(self._segments) and sum(int(mask.sum()) for mask in masks) <= self._settings.gather_rows

    def _gathered(self) -> list[Rows]:
        parts: list[tuple[Block | Segment, NDArray[np.bool_] | None]] = [*self._blocks, *self._segments]
        return [rows_of(part).taken(np.flatnonzero(mask)) for part, mask in parts if mask is not None]

    def _look(self, probe: NDArray[np.float32], scan: _Scan, *, limit: int, min_score: float) -> tuple[Hit, ...]:
        near = self._near_in_blocks(probe, limit=limit, min_score=min_score)
        first = max(self._settings.first_look, self._settings.first_look_per_candidate * limit)
        while True:
            hits = ranked([*near, *self._rows(scan, 0, first)], probe, min_score=min_score)
            last = self._reaching(scan, _floor(hits, limit, min_score))
            if last > first:
                hits = ranked([*near, *self._rows(scan, 0, last)], probe, min_score=min_score)
            if self._is_complete(scan, _floor(hits, limit, min_score)):
                return hits[:limit]
            (scan,) = self._scans(probe[None], min(4 * len(scan.scores), self._settings.most_scanned))

    def _reaching(self, scan: _Scan, floor: float) -> int:
        """How many of the scan's rows, best first, could reach the floor."""
        if self._fit is None:
            return 0
        least = self._fit.least_approximate(floor, deviations=self._settings.deviations)
        return int(np.searchsorted(-scan.scores, -least, side="right"))

    def _is_complete(self, scan: _Scan, floor: float) -> bool:
        if scan.is_whole or len(scan.scores) >= self._settings.most_scanned:
            return True
        return self._reaching(scan, floor) < len(scan.scores)

    def _rows(self, scan: _Scan, start: int, stop: int) -> list[Rows]:
        owners, slots = scan.owners[start:stop], scan.slots[start:stop]
        return [segment.rows.taken(slots[owners == number]) for number, (segment, _) in enumerate(self._segments)]

    def _near_in_blocks(self, probe: NDArray[np.float32], *, limit: int, min_score: float) -> list[Rows]:
        """The rows of the blocks that can be among the best `limit` identities; exact."""
        count = 4 * limit
        while True:
            found = [(block, *block.top(probe, count, mask)) for block, mask in self._blocks]
            rows = [rows_of(block).taken(slots) for block, slots, _ in found]
            unseen = max((bound for _, _, bound in found), default=-np.inf)
            if unseen < min_score or unseen < _floor(ranked(rows, probe, min_score=min_score), limit, min_score):
                return rows
            count *= 8

    def _scans(self, probes: NDArray[np.float32], count: int) -> list[_Scan]:
        found = [segment.nearest(probes, count, mask) for segment, mask in self._segments]
        scores = np.concatenate([each for each, _ in found], axis=1)
        slots = np.concatenate([each for _, each in found], axis=1)
        owners = np.repeat(np.arange(len(found)), [each.shape[1] for each, _ in found])
        # A segment that was asked for fewer rows than it has may hold more.
        is_whole = all(count >= len(segment) for segment, _ in self._segments)
        return [
            _scan(score, slot, owners, count=count, is_whole=is_whole)
            for score, slot in zip(scores, slots, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Scan:
    """What the scan of the codes returned, best first: approximate scores, segment and slot of each row."""

    scores: NDArray[np.float32]
    owners: NDArray[np.int64]
    slots: NDArray[np.int64]
    is_whole: bool


_NOTHING = _Scan(np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64), is_whole=True)


def _scan(
    scores: NDArray[np.float32],
    slots: NDArray[np.int64],
    owners: NDArray[np.int64],
    *,
    count: int,
    is_whole: bool,
) -> _Scan:
    found = np.flatnonzero(slots >= 0)
    best = found[np.argsort(-scores[found], kind="stable")][:count]
    return _Scan(scores[best], owners[best], slots[best], is_whole=is_whole or len(best) < count)


def _floor(hits: tuple[Hit, ...], limit: int, min_score: float) -> float:
    """A score below which no row can change the list."""
    return hits[limit - 1].score if len(hits) >= limit else min_score


def rows_of(part: Block | Segment) -> Rows:
    if isinstance(part, Segment):
        return part.rows
    return Rows(part.template_ids, part.identity_ids, part.rows)


def ranked(parts: Iterable[Rows], probe: NDArray[np.float32], *, min_score: float) -> tuple[Hit, ...]:
    """The identities of these rows by their exact scores."""
    found = [part for part in parts if len(part)]
    if not found:
        return ()
    return best_of_each_identity(
        np.concatenate([part.template_ids for part in found]),
        np.concatenate([part.identity_ids for part in found]),
        np.concatenate([exact_scores(part.vectors, probe) for part in found]),
        min_score=min_score,
    )
