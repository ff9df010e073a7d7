"""One search over the parts of a fast index: a scan of codes, then an exact look at every row that could matter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from facedex.indexer.search.code_fit import LIST_LOSS, TARGET_LOSS
from facedex.indexer.search.crew import one_after_the_other
from facedex.indexer.search.device_memory import MOST_FETCHED
from facedex.indexer.search.device_memory import ROUNDING as DEVICE_ROUNDING
from facedex.indexer.search.exact import Block, exact_scores
from facedex.indexer.search.half_precision import ROUNDING, products
from facedex.indexer.search.ranking import best_of_each_identity
from facedex.indexer.search.segment import Rows, Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from facedex.indexer.search.crew import Crew
    from facedex.indexer.search.device_memory import DeviceMemory
    from facedex.indexer.search.template_index import Hit, Scope

FIRST_FETCHED_PER_CANDIDATE = 8

Part = Block | Segment
Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Share(Protocol):
    """Does work on each item, among the cores or not; what comes out is in order."""

    def __call__(self, work: Callable[[Item], Outcome], items: Sequence[Item]) -> list[Outcome]: ...


@dataclass(frozen=True, slots=True)
class LookSettings:
    """When which way of searching is taken. None of it changes a result."""

    gather_rows: int = 4_096
    """A filter that leaves no more is answered by comparing exactly those rows."""
    first_look: int = 160
    """Where too many rows could reach the score floor, so many rows of each segment are scored first, to raise the floor."""
    first_look_per_candidate: int = 16
    many_rows: int = 1_000
    """So many rows are scored exactly before a first look is considered; of a large gallery, `many_share`."""
    many_share: float = 0.005
    shared_rows: int = 131_072
    """A search of fewer rows is not worth dividing among cores."""


@dataclass(frozen=True, slots=True)
class _Scored:
    """Slots (n,) of a part, and the scores of their rows, right to `ROUNDING`."""

    part: Part
    slots: NDArray[np.int64]
    scores: NDArray[np.float32]

    @property
    def identity_ids(self) -> NDArray[np.int64]:
        return self.part.identity_ids[self.slots]

    def close(self, least: float) -> Rows:
        """The rows of this score or a higher one that are still enrolled."""
        return self.part.living(self.slots[self.scores >= least])


class View:
    """The parts of an index as one search sees them."""

    def __init__(
        self,
        parts: Iterable[Part],
        *,
        scope: Scope,
        settings: LookSettings,
        crew: Crew,
        memory: DeviceMemory | None = None,
    ) -> None:
        self._settings = settings
        self._memory = memory
        self._crew = crew
        self._blocks: list[tuple[Block, NDArray[np.bool_]]] = []
        self._segments: list[tuple[Segment, NDArray[np.bool_] | None]] = []
        for part in parts:
            if isinstance(part, Block):
                self._blocks.append((part, part.mask(scope)))
            else:
                self._segments.append((part, None if scope.is_everybody else part.mask(scope)))

    def search(self, probes: NDArray[np.float32], *, limit: int, min_score: float) -> list[tuple[Hit, ...]]:
        """The best identities for each of the `probes` (n, dimension)."""
        if self._is_small():
            rows = self._gathered()
            return [ranked(rows, probe, min_score=min_score)[:limit] for probe in probes]
        if self._memory is not None and self._segments:
            return self._search_on_device(self._memory, probes, limit=limit, min_score=min_score)
        if not is_large([segment for segment, _ in self._segments], self._settings):
            return self._search_some(probes, one_after_the_other, limit=limit, min_score=min_score)
        if len(probes) < self._crew.size:  # the cores share the segments
            return self._search_some(probes, self._crew.map, limit=limit, min_score=min_score)
        # The cores share the probes.
        search = partial(self._search_some, share=one_after_the_other, limit=limit, min_score=min_score)
        parts = self._crew.map(search, np.array_split(probes, self._crew.size))
        return [hits for part in parts for hits in part]

    def exact(self, probe: NDArray[np.float32], *, limit: int, min_score: float) -> tuple[Hit, ...]:
        """The best identities by scoring every row, to check the others with."""
        segments = ((segment, segment.seen(mask)) for segment, mask in self._segments)
        return self._ranked(probe, segments, limit=limit, min_score=min_score)

    def _search_on_device(
        self, memory: DeviceMemory, probes: NDArray[np.float32], *, limit: int, min_score: float
    ) -> list[tuple[Hit, ...]]:
        """The device finds more rows than are wanted, and their exact scores decide."""
        hits: list[tuple[Hit, ...] | None] = [None] * len(probes)
        count = FIRST_FETCHED_PER_CANDIDATE * limit
        while (open_places := [place for place, each in enumerate(hits) if each is None]) and count <= MOST_FETCHED:
            for place, found in zip(open_places, self._fetched(memory, probes[open_places], count), strict=True):
                slots, bound = found
                best = self._look(probes[place], slots, limit, min_score)
                # Complete when no row that was not fetched can change the list, not even by a tie.
                if bound < _floor(best, limit, min_score):
                    hits[place] = best
            count *= 8
        return [
            self.exact(probe, limit=limit, min_score=min_score) if each is None else each
            for probe, each in zip(probes, hits, strict=True)
        ]

    def _fetched(
        self, memory: DeviceMemory, probes: NDArray[np.float32], count: int
    ) -> list[tuple[list[NDArray[np.int64]], float]]:
        """For each probe, slots of each segment that still count, and a score that no row beyond them exceeds."""
        segments = [segment for segment, _ in self._segments]
        copies = [segment.copy for segment in segments if segment.copy is not None]
        scores, positions = memory.nearest(copies, [mask for _, mask in self._segments], probes, count=count)
        starts = np.cumsum([0, *(len(segment) for segment in segments)])
        everything = scores.shape[1] == starts[-1]
        found: list[tuple[list[NDArray[np.int64]], float]] = []
        for row_scores, row_positions in zip(scores, positions, strict=True):
            seen = np.sort(row_positions[row_scores > -np.inf])
            edges = np.searchsorted(seen, starts)
            slots = [
                segment.still_alive(seen[edges[place] : edges[place + 1]] - starts[place])
                for place, segment in enumerate(segments)
            ]
            bound = -np.inf if everything else float(row_scores[-1]) + DEVICE_ROUNDING
            found.append((slots, bound))
        return found

    def _is_small(self) -> bool:
        if not self._segments or any(mask is None for _, mask in self._segments):
            return False
        masks = [mask for _, mask in (*self._blocks, *self._segments) if mask is not None]
        return sum(int(mask.sum()) for mask in masks) <= self._settings.gather_rows

    def _gathered(self) -> list[Rows]:
        parts: list[tuple[Part, NDArray[np.bool_] | None]] = [*self._blocks, *self._segments]
        return [rows_of(part).taken(np.flatnonzero(mask)) for part, mask in parts if mask is not None]

    def _search_some(
        self, probes: NDArray[np.float32], share: Share, *, limit: int, min_score: float
    ) -> list[tuple[Hit, ...]]:
        if is_selective([segment for segment, _ in self._segments], min_score, self._settings):
            found = self._reaching(probes, min_score, share, loss=TARGET_LOSS)
            return [self._look(probe, each, limit, min_score) for probe, each in zip(probes, found, strict=True)]
        return [self._look_twice(probe, share, limit, min_score) for probe in probes]

    def _reaching(
        self, probes: NDArray[np.float32], score: float, share: Share, *, loss: float
    ) -> list[list[NDArray[np.int64]]]:
        """For each probe, the slots of each segment whose rows may reach the score."""

        def scan(part: tuple[Segment, NDArray[np.bool_] | None]) -> list[NDArray[np.int64]]:
            segment, mask = part
            return segment.reaching(probes, score, mask, loss=loss)

        scans = share(scan, self._segments)
        return [[scan[number] for scan in scans] for number in range(len(probes))]

    def _look(
        self, probe: NDArray[np.float32], found: list[NDArray[np.int64]], limit: int, min_score: float
    ) -> tuple[Hit, ...]:
        segments = [(segment, slots) for (segment, _), slots in zip(self._segments, found, strict=True)]
        return self._ranked(probe, segments, limit=limit, min_score=min_score)

    def _look_twice(self, probe: NDArray[np.float32], share: Share, limit: int, min_score: float) -> tuple[Hit, ...]:
        """Scores a few rows first: the last of the list is a floor that far fewer rows can reach."""
        count = max(self._settings.first_look, self._settings.first_look_per_candidate * limit)
        firsts = share(lambda part: part[0].nearest(probe, count, part[1]), self._segments)
        hits = self._look(probe, [slots for slots, _ in firsts], limit, min_score)
        floor = _floor(hits, limit, min_score)
        if all(
            _is_complete(segment, bound, floor) for (segment, _), (_, bound) in zip(self._segments, firsts, strict=True)
        ):
            return hits
        (found,) = self._reaching(probe[None], floor, share, loss=LIST_LOSS)
        return self._look(probe, found, limit, floor)

    def _ranked(
        self,
        probe: NDArray[np.float32],
        segments: Iterable[tuple[Segment, NDArray[np.int64]]],
        *,
        limit: int,
        min_score: float,
    ) -> tuple[Hit, ...]:
        """The best identities among these rows of the segments and all rows of the blocks."""
        scored = [
            _Scored(part, slots, products(part.rows.vectors, slots, probe)) for part, slots in segments if len(slots)
        ]
        scored += [_Scored(block, *block.reaching(probe, min_score - ROUNDING, mask)) for block, mask in self._blocks]
        least = _cut(scored, limit=limit, min_score=min_score) - ROUNDING
        return ranked([each.close(least) for each in scored], probe, min_score=min_score)[:limit]


def is_large(segments: Sequence[Segment], settings: LookSettings) -> bool:
    """Whether a search of them is worth dividing among cores."""
    return sum(len(segment) for segment in segments) >= settings.shared_rows


def is_selective(segments: Sequence[Segment], score: float, settings: LookSettings) -> bool:
    """Whether so few rows could reach the score that all of them are scored at once."""
    rows = sum(len(segment) for segment in segments)
    reaching = sum(len(segment) * segment.share_reaching(score) for segment in segments)
    return reaching <= max(settings.many_rows, settings.many_share * rows)


def _is_complete(segment: Segment, bound: float, floor: float) -> bool:
    """Whether no row behind the bound of the scan can reach the floor."""
    if bound == -np.inf or segment.codes is None:
        return True
    return bound < segment.codes.fit.least_approximate(floor, loss=LIST_LOSS)


def _cut(scored: Sequence[_Scored], *, limit: int, min_score: float) -> float:
    """A score below which no row is the best of one of the `limit` best identities."""
    scores = np.concatenate([np.zeros(0, np.float32), *(each.scores for each in scored)])
    reaching = np.flatnonzero(scores >= min_score - ROUNDING)
    if len(reaching) <= limit:
        return min_score
    owners = np.concatenate([each.identity_ids for each in scored])
    best_first = reaching[np.argsort(-scores[reaching], kind="stable")]
    _, places = np.unique(owners[best_first], return_index=True)
    if len(places) < limit:
        return min_score
    # Rounding may change who is last, so everybody within it is looked at again.
    return float(scores[best_first[np.sort(places)[limit - 1]]]) - ROUNDING


def _floor(hits: tuple[Hit, ...], limit: int, min_score: float) -> float:
    """A score below which no row can change the list."""
    return hits[limit - 1].score if len(hits) >= limit else min_score


def rows_of(part: Part) -> Rows:
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
