"""Exhaustive fast scan of 4-bit codes with an exact second look: the index of large galleries."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import faiss
import numpy as np

from facedex.indexer.search.code_fit import CodeFit, measured_fit
from facedex.indexer.search.codebook import code_bytes_of, codebook
from facedex.indexer.search.exact import Block
from facedex.indexer.search.segment import Rows, Segment
from facedex.indexer.search.snapshot import PartState, restored_segments
from facedex.indexer.search.template_index import EVERYBODY, Hit, Scope
from facedex.indexer.search.two_looks import LookSettings, View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from facedex.indexer.search.codebook import Codebook
    from facedex.indexer.search.snapshot import Snapshot

# The pair (alive rows that the scope lets through) of each part, or None for "all that are alive".
Masks = dict[int, "NDArray[np.bool_] | None"]


@dataclass(frozen=True, slots=True)
class FastSettings:
    """Where exact search ends, and how closely the fast scan is checked."""

    exact_rows: int = 8_192
    """Up to here every row is compared exactly: it is fast enough, and needs no codes."""
    first_block_rows: int = 64
    """A small gallery takes little memory."""
    block_rows: int = 1_024
    """New rows go to exact blocks of up to this size."""
    seal_rows: int = 2_048
    """So many rows in full blocks become a segment."""
    bulk_rows: int = 8_192
    """So many rows at once become a segment without being blocks first."""
    segment_rows: int = 262_144
    """Segments are merged up to this size."""
    dead_share: float = 0.15
    """A segment of which more is erased is written anew."""
    gain: float = 0.65
    """Approximate scores are this part of the exact ones: measured on faces and on random directions, decision 0006.

    What is measured on the gallery's own rows counts where it is worse; so for the noise.
    """
    noise: float = 0.5
    """Standard deviation of an approximate score, in units of 1 / sqrt(dimension)."""
    look: LookSettings = field(default_factory=LookSettings)


class FastIndex:
    """A `TemplateIndex` of exact blocks for new rows and fast-scan segments for the rest.

    Codes are append-only and searched exhaustively, so no row is out of reach as in a graph or in cells. The scan's best
    rows are scored exactly; the list widens until a row at the score floor would be missed less often than 1e-4.
    """

    def __init__(self, dimension: int, settings: FastSettings | None = None) -> None:
        self._dimension = dimension
        self._settings = settings or FastSettings()
        self._code_bytes = code_bytes_of(dimension)
        # Replaced as a whole, never changed: a search works on the parts that it found.
        self._blocks: tuple[Block, ...] = ()
        self._segments: tuple[Segment, ...] = ()
        self._places: dict[int, tuple[Block, int]] = {}
        self._highest = 0
        self._count = 0
        self._fit = CodeFit(self._settings.gain, self._settings.noise / float(np.sqrt(dimension)))
        self._fitted_rows = 0
        self._changing = threading.RLock()
        self._sealing = threading.Lock()
        self._sealer: threading.Thread | None = None

    @property
    def dimension(self) -> int:
        return self._dimension

    def __len__(self) -> int:
        return self._count

    @property
    def segments(self) -> tuple[Segment, ...]:
        return self._segments

    @classmethod
    def restored(cls, dimension: int, snapshot: Snapshot) -> FastIndex:
        """An index as it was when the snapshot was taken."""
        index = cls(dimension)
        segments, loose = restored_segments(snapshot)
        index._segments = tuple(segments)
        for segment in segments:
            index._fit = index._fit.worse(measured_fit(segment.rows, index._codebook()))
        index._count = sum(segment.live_count for segment in segments)
        index._highest = max((int(each.rows.template_ids.max(initial=0)) for each in segments), default=0)
        for rows in loose:
            index.add(rows.template_ids.tolist(), rows.identity_ids.tolist(), rows.vectors.astype(np.float32))
        return index

    def state(self) -> tuple[PartState, ...]:
        """The parts as they are now; call it where nobody changes the index."""
        segments = [PartState(each.rows, each.alive.copy(), each.index) for each in self._segments]
        blocks = [PartState(_half(each), each.alive[: each.used].copy(), None) for each in self._blocks]
        return (*segments, *blocks)

    @property
    def codebook_digest(self) -> str:
        return "" if self._code_bytes is None else self._codebook().digest

    # Changes

    def add(self, template_ids: Sequence[int], identity_ids: Sequence[int], vectors: NDArray[np.float32]) -> None:
        with self._changing:
            fresh = self._fresh(template_ids)
            templates, identities = (np.asarray(each, np.int64)[fresh] for each in (template_ids, identity_ids))
            if self._code_bytes is not None and len(templates) >= self._settings.bulk_rows:
                self._append_segment(templates, identities, vectors[fresh])
            else:
                self._append(templates, identities, vectors[fresh])
            self._highest = max(self._highest, int(templates.max(initial=0)))
            self._count += len(templates)
        self._seal_when_due()

    def _fresh(self, template_ids: Sequence[int]) -> NDArray[np.bool_]:
        numbers = np.asarray(template_ids, np.int64)
        fresh = numbers > self._highest
        for place in np.flatnonzero(~fresh).tolist():
            fresh[place] = self._find(int(numbers[place])) is None
        return fresh

    def _find(self, template_id: int) -> tuple[Block | Segment, int] | None:
        place = self._places.get(template_id)
        if place is not None:
            return place
        for segment in self._segments:
            slot = segment.slot_of(template_id)
            if slot is not None:
                return segment, slot
        return None

    def _append(self, templates: NDArray[np.int64], identities: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        while len(rows):
            block = self._block_with_room()
            count = min(block.free, len(rows))
            slots = block.append(templates[:count], identities[:count], rows[:count])
            self._places.update(zip(templates[:count].tolist(), ((block, slot) for slot in slots), strict=True))
            templates, identities, rows = templates[count:], identities[count:], rows[count:]

    def _append_segment(
        self, templates: NDArray[np.int64], identities: NDArray[np.int64], rows: NDArray[np.float32]
    ) -> None:
        segment = self._encoded(Rows(templates, identities, rows.astype(np.float16)))
        self._segments = (*self._segments, segment)

    def _block_with_room(self) -> Block:
        if self._blocks and self._blocks[-1].free:
            return self._blocks[-1]
        largest = max((block.capacity for block in self._blocks), default=0)
        capacity = min(self._settings.block_rows, max(self._settings.first_block_rows, 2 * largest))
        block = Block(self._dimension, capacity)
        self._blocks = (*self._blocks, block)
        return block

    def erase(self, template_ids: Sequence[int]) -> None:
        with self._changing:
            for template_id in template_ids:
                self._erase(template_id)
        self._seal_when_due()

    def _erase(self, template_id: int) -> None:
        place = self._find(template_id)
        if place is None:
            return
        part, slot = place
        part.erase(slot)
        self._places.pop(template_id, None)
        self._count -= 1

    # Sealing and compaction

    def _seal_when_due(self) -> None:
        if self._is_due() and (self._sealer is None or not self._sealer.is_alive()):
            self._sealer = threading.Thread(target=self.seal, name="sealer", daemon=True)
            self._sealer.start()

    def _is_due(self) -> bool:
        if self._code_bytes is None or self._count <= self._settings.exact_rows:
            return False
        full = sum(block.capacity for block in self._blocks if not block.free)
        is_full = full >= self._settings.seal_rows
        return is_full or self._mergeable() is not None or any(self._is_wasteful(each) for each in self._segments)

    def _is_wasteful(self, segment: Segment) -> bool:
        return segment.live_count < (1 - self._settings.dead_share) * len(segment)

    def seal(self) -> None:
        """Turns full blocks into segments, merges small segments and rewrites wasteful ones, while searches go on."""
        if self._code_bytes is None:
            return
        with self._sealing:
            full = [block for block in self._blocks if not block.free]
            if full:
                self._replace(full)
            for segment in [each for each in self._segments if self._is_wasteful(each)]:
                self._replace([segment])
            while (pair := self._mergeable()) is not None:
                self._replace(list(pair))

    def _mergeable(self) -> tuple[Segment, Segment] | None:
        # Sizes double from merge to merge, so a row is encoded a few times in its life.
        for first, second in zip(self._segments, self._segments[1:], strict=False):
            joined = len(first) + len(second)
            if joined <= self._settings.segment_rows and len(first) < 2 * len(second):
                return first, second
        return None

    def _replace(self, parts: Sequence[Block | Segment]) -> None:
        """Puts one new segment in the place of these parts. Rows erased meanwhile are erased in it too."""
        kept = [np.flatnonzero(part.alive) for part in parts]
        rows = Rows.joined([_half(part).taken(which) for part, which in zip(parts, kept, strict=True)])
        segment = self._encoded(rows) if len(rows) else None
        with self._changing:
            if segment is not None:
                segment.keep_only(np.concatenate([part.alive[which] for part, which in zip(parts, kept, strict=True)]))
            self._swap(parts, segment)

    def _swap(self, parts: Sequence[Block | Segment], segment: Segment | None) -> None:
        gone = {id(part) for part in parts}
        places = [number for number, each in enumerate(self._segments) if id(each) in gone]
        where = places[0] if places else len(self._segments)
        before = [each for each in self._segments[:where] if id(each) not in gone]
        after = [each for each in self._segments[where:] if id(each) not in gone]
        # First the new part, then without the old: a search in between sees a row twice, never not at all.
        self._segments = (*before, *([] if segment is None else [segment]), *after)
        self._blocks = tuple(each for each in self._blocks if id(each) not in gone)
        self._places = {number: place for number, place in self._places.items() if id(place[0]) not in gone}

    def _encoded(self, rows: Rows) -> Segment:
        # Measured again whenever the gallery's segments have grown to twice the size.
        if len(rows) >= 2 * self._fitted_rows:
            self._fit = self._fit.worse(measured_fit(rows, self._codebook()))
            self._fitted_rows = len(rows)
        return Segment.encoded(rows, self._codebook())

    def _codebook(self) -> Codebook:
        if self._code_bytes is None:
            raise AssertionError("an index without codes seals nothing")
        return codebook(self._dimension, self._code_bytes)

    # Searches

    def search(
        self, probes: NDArray[np.float32], *, limit: int, min_score: float = -1.0, scope: Scope = EVERYBODY
    ) -> list[tuple[Hit, ...]]:
        faiss.omp_set_num_threads(1)  # once in every thread that searches: OpenMP costs single queries 20 to 60 times
        # Blocks first: a block that becomes a segment in between is then seen twice, not missed.
        blocks, segments = self._blocks, self._segments
        view = View((*blocks, *segments), scope=scope, fit=self._fit, settings=self._settings.look)
        return view.search(probes, limit=limit, min_score=min_score)


def _half(part: Block | Segment) -> Rows:
    """The rows as a segment keeps them; the store holds them in half precision, so no digit is lost."""
    if isinstance(part, Segment):
        return part.rows
    used = slice(0, part.used)
    return Rows(part.template_ids[used], part.identity_ids[used], part.rows[used].astype(np.float16))
