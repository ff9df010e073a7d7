"""Exhaustive fast scan of 4-bit codes with an exact second look: the index of large galleries."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import faiss
import numpy as np

from facedex.indexer.failpoints import Reached, Step, nothing_fails
from facedex.indexer.search.code_choice import CodeChoice, chosen_codes
from facedex.indexer.search.codebook import FULL_RATE, HALF_RATE, codebooks, joint_digest
from facedex.indexer.search.company import MOST_PROBES, Company
from facedex.indexer.search.crew import Crew
from facedex.indexer.search.exact import Block
from facedex.indexer.search.freed_memory import return_freed_memory
from facedex.indexer.search.ranking import are_first
from facedex.indexer.search.segment import HALF, Codes, Rows, Segment
from facedex.indexer.search.shadow import Shadow
from facedex.indexer.search.snapshot import PartState, restored_segments
from facedex.indexer.search.template_index import EVERYBODY, Hit, Scope
from facedex.indexer.search.two_looks import LookSettings, View, is_large, is_selective
from facedex.indexer.set_digest import EMPTY, SetDigest, TemplateDigester

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from facedex.indexer.search.codebook import Codebook
    from facedex.indexer.search.device_memory import Copy, DeviceMemory
    from facedex.indexer.search.snapshot import Snapshot

# As the store keeps vectors.


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
    coded_rows: int = 1_024
    """A segment of fewer rows, which much erasing may leave, gets no codes: they say too little of how codes fit."""
    segment_rows: int = 262_144
    """Segments are merged up to this size."""
    measured_rows: int = 131_072
    """A segment of so many rows is measured itself, in less time than encoding it takes; smaller ones share a measurement, for
    twice as many rows."""
    dead_share: float = 0.15
    """A segment of which more is erased is written anew."""
    code_rates: tuple[int, ...] = (FULL_RATE, HALF_RATE)
    """Codes to choose from, in components of a vector a byte."""
    look: LookSettings = field(default_factory=LookSettings)


class FastIndex:
    """A `TemplateIndex` of exact blocks for new rows and fast-scan segments for the rest.

    Codes are append-only and searched exhaustively, so no row is out of reach as in a graph or in cells. Every row that the
    scan cannot tell from one at the score floor is scored exactly; a row at the floor is missed less often than 1e-4.
    Which codes pay is measured on the gallery's own rows for its `operating_score`, a cosine.
    """

    def __init__(  # noqa: PLR0913  (each has a default)
        self,
        dimension: int,
        settings: FastSettings | None = None,
        *,
        operating_score: float = 0.4,
        crew: Crew | None = None,
        shadow: Shadow | None = None,
        digester: TemplateDigester | None = None,
        reached: Reached = nothing_fails,
        memory: DeviceMemory | None = None,
    ) -> None:
        """`memory` is that of a device which takes the first look at segments instead of the codes."""
        self._dimension = dimension
        self._settings = settings or FastSettings()
        self._operating_score = operating_score
        self._crew = crew or Crew(1)
        self._shadow = shadow or Shadow(0)
        self._digester = digester or TemplateDigester(b"", model_digest="")
        self._reached = reached
        self._memory = memory
        self._company = Company(self._search)
        # Replaced as a whole, never changed: a search works on the parts that it found.
        self._blocks: tuple[Block, ...] = ()
        self._segments: tuple[Segment, ...] = ()
        self._places: dict[int, tuple[Block, int]] = {}
        self._highest = 0
        self._count = 0
        self._digest = EMPTY
        self._choice: CodeChoice | None = None
        self._chosen_for_rows = 0
        self._encoded_since = 0
        self._changing = threading.RLock()
        self._sealing = threading.Lock()
        self._sealer: threading.Thread | None = None

    @property
    def dimension(self) -> int:
        return self._dimension

    def __len__(self) -> int:
        return self._count

    @property
    def digest(self) -> SetDigest:
        """Of the templates that were added and not erased; ask where nobody changes the index."""
        return self._digest

    @property
    def segments(self) -> tuple[Segment, ...]:
        return self._segments

    @property
    def choice(self) -> CodeChoice:
        """The codes of the largest segment, and why it has them."""
        segments = self._segments
        return self._choice_of(max(segments, key=len)) if segments else self._no_codes()

    @property
    def operating_score(self) -> float:
        """The cosine that codes are chosen for."""
        return self._operating_score

    def aim_at(self, operating_score: float) -> None:
        """Codes are chosen for this cosine from now on; segments that are there keep theirs until they are written anew."""
        with self._changing:
            if operating_score != self._operating_score:
                self._operating_score = operating_score
                self._choice = None

    def restore(self, snapshot: Snapshot) -> None:
        """Makes this index, while it is empty, what it was when the snapshot was taken."""
        segments, loose = restored_segments(snapshot)
        self._segments = tuple(self._on_device(each) for each in segments)
        self._count = sum(segment.live_count for segment in segments)
        self._highest = max((int(each.rows.template_ids.max(initial=0)) for each in segments), default=0)
        if segments:
            self._choice = self.choice
            self._chosen_for_rows = max(len(segment) for segment in segments)
        for rows in loose:
            self.add(rows.template_ids.tolist(), rows.identity_ids.tolist(), rows.vectors.astype(np.float32))
        self._digest = snapshot.digest
        self._seal_when_due()  # the snapshot may have been taken before everything was merged

    def state(self) -> tuple[PartState, ...]:
        """The parts as they are now; call it where nobody changes the index."""
        segments = [PartState(each.rows, each.alive, each.codes) for each in self._segments]
        blocks = [PartState(_half(each), each.alive[: each.used], None) for each in self._blocks]
        return (*segments, *blocks)

    @property
    def codebook_digest(self) -> str:
        """Of all the codes that a segment may have."""
        return joint_digest(self._codebooks())

    # Changes

    def add(self, template_ids: Sequence[int], identity_ids: Sequence[int], vectors: NDArray[np.float32]) -> None:
        with self._changing:
            fresh = self._fresh(template_ids)
            templates, identities = (np.asarray(each, np.int64)[fresh] for each in (template_ids, identity_ids))
            rows = vectors[fresh]
            if len(templates) >= self._settings.bulk_rows and self._codebooks():
                self._append_segment(templates, identities, rows)
            else:
                self._append(templates, identities, rows)
            self._highest = max(self._highest, int(templates.max(initial=0)))
            self._count += len(templates)
            self._digest = self._digest.plus(Rows(templates, identities, rows).members(self._digester))
        self._seal_when_due()

    def _fresh(self, template_ids: Sequence[int]) -> NDArray[np.bool_]:
        numbers = np.asarray(template_ids, np.int64)
        fresh = numbers > self._highest
        for place in np.flatnonzero(~fresh).tolist():
            fresh[place] = self._find(int(numbers[place])) is None
        return fresh & are_first(numbers)

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
        self._digest = self._digest.minus([self._member(part, slot)])
        part.erase(slot)
        self._places.pop(template_id, None)
        self._count -= 1

    def _member(self, part: Block | Segment, slot: int) -> bytes:
        rows = part.rows if isinstance(part, Block) else part.rows.vectors
        identities = part.identity_ids if isinstance(part, Block) else part.rows.identity_ids
        templates = part.template_ids if isinstance(part, Block) else part.rows.template_ids
        return self._digester.of(int(templates[slot]), int(identities[slot]), rows[slot].astype(HALF).tobytes())

    # Examination

    def row(self, template_id: int) -> Rows | None:
        """The row of one template in half precision, if a search may return it; ask where nobody changes the index."""
        place = self._find(template_id)
        if place is None:
            return None
        part, slot = place
        row = part.row(slot)
        return Rows(row.template_ids, row.identity_ids, row.vectors.astype(HALF))

    def parts(self) -> tuple[Block | Segment, ...]:
        """Everything that is searched, at a moment when no part is about to take the place of another."""
        with self._changing:
            return (*self._segments, *self._blocks)

    def deliver(self) -> bool:
        """All rows lie here."""
        return True

    # Sealing and compaction

    def _seal_when_due(self) -> None:
        if self._is_due() and (self._sealer is None or not self._sealer.is_alive()):
            self._sealer = threading.Thread(target=self.seal, name="sealer", daemon=True)
            self._sealer.start()

    def _is_due(self) -> bool:
        if self._count <= self._settings.exact_rows or not self._codebooks():
            return False
        full = sum(block.capacity for block in self._blocks if not block.free)
        is_full = full >= self._settings.seal_rows
        return is_full or self._mergeable() is not None or any(self._is_wasteful(each) for each in self._segments)

    def _is_wasteful(self, segment: Segment) -> bool:
        return segment.live_count < (1 - self._settings.dead_share) * len(segment)

    def seal(self) -> None:
        """Turns full blocks into segments, merges small segments and rewrites wasteful ones, while searches go on."""
        if not self._codebooks():
            return
        with self._sealing:
            full = [block for block in self._blocks if not block.free]
            if full:
                self._replace(full)
            for segment in [each for each in self._segments if self._is_wasteful(each)]:
                self._replace([segment])
            while (pair := self._mergeable()) is not None:
                self._replace(list(pair))

    def settle(self) -> None:
        """Returns when everything that is due is sealed, merged and rewritten."""
        while self._is_due():
            self.seal()

    def holds(self, template_id: int) -> bool:
        """Whether a search may return the template."""
        return self._find(template_id) is not None

    @property
    def holds_codes_of_erased(self) -> bool:
        """Whether `forget_erased` would have something to do."""
        return any(_has_dead_codes(each) for each in self._segments)

    def forget_erased(self) -> None:
        """Writes the segments anew in which erased rows still have their codes, while searches go on."""
        with self._sealing:
            for segment in [each for each in self._segments if _has_dead_codes(each)]:
                self._replace([segment])

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
        rows = Rows.joined([_half(part) for part in parts], kept)
        segment = self._encoded(rows) if len(rows) else None
        with self._changing:
            if segment is not None:
                segment.keep_only(np.concatenate([part.alive[which] for part, which in zip(parts, kept, strict=True)]))
            self._reached(Step.BEFORE_SEAL_SWAP)
            self._swap(parts, segment)
        self._reached(Step.AFTER_SEAL_SWAP)
        return_freed_memory()

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
        if len(rows) < self._settings.coded_rows:
            return Segment(rows, None, self._copy_of(rows))
        choice = self._choice_for(rows)
        self._encoded_since += len(rows)
        if choice.codebook is None or choice.fit is None:
            return Segment(rows, None, self._copy_of(rows))
        # Also beside a device: the snapshot is then the same, and serves a server without one.
        return Segment(rows, Codes.made(rows.vectors, choice.codebook, choice.fit), self._copy_of(rows))

    def _copy_of(self, rows: Rows) -> Copy | None:
        return None if self._memory is None else self._memory.copy(rows.vectors.astype(np.float16, copy=False))

    def _on_device(self, segment: Segment) -> Segment:
        segment.copy = self._copy_of(segment.rows)
        return segment

    def _choice_for(self, rows: Rows) -> CodeChoice:
        """The last choice, measured anew on these rows where it may no longer hold for them."""
        # A choice that was right for the first people enrolled may be wrong for those who came later, so it never lasts.
        choice = self._choice
        has_grown = len(rows) >= min(2 * self._chosen_for_rows, self._settings.measured_rows)
        if choice is None or has_grown or self._encoded_since >= 2 * self._settings.measured_rows:
            choice = chosen_codes(rows.vectors, self._codebooks(), operating_score=self._operating_score)
            self._choice, self._encoded_since = choice, 0
            self._chosen_for_rows = max(self._chosen_for_rows, len(rows))
        return choice

    def _choice_of(self, segment: Segment) -> CodeChoice:
        """What was chosen when this segment was made."""
        codes = segment.codes
        if codes is None:
            return self._no_codes()
        books = {book.code_bytes: book for book in self._codebooks()}
        return CodeChoice(books[codes.code_bytes], codes.fit, self._operating_score)

    def _no_codes(self) -> CodeChoice:
        return CodeChoice(None, None, self._operating_score)

    def _codebooks(self) -> tuple[Codebook, ...]:
        return codebooks(self._dimension, self._settings.code_rates)

    # Searches

    def search(
        self, probes: NDArray[np.float32], *, limit: int, min_score: float = -1.0, scope: Scope = EVERYBODY
    ) -> list[tuple[Hit, ...]]:
        if scope.is_everybody and len(probes) <= MOST_PROBES and self._gains_by_company(min_score):
            return self._company.search(probes, limit=limit, min_score=min_score)
        return self._search(probes, limit=limit, min_score=min_score, scope=scope)

    def _gains_by_company(self, min_score: float) -> bool:
        """Whether a search keeps all cores busy, and is quick enough for others to wait for it."""
        segments, look = self._segments, self._settings.look
        if self._memory is not None:
            return bool(segments)
        return is_large(segments, look) and is_selective(segments, min_score, look)

    def _search(
        self, probes: NDArray[np.float32], *, limit: int, min_score: float, scope: Scope = EVERYBODY
    ) -> list[tuple[Hit, ...]]:
        faiss.omp_set_num_threads(1)  # once in every thread that searches: OpenMP costs single queries 20 to 60 times
        # Blocks first: a block that becomes a segment in between is then seen twice, not missed.
        blocks, segments = self._blocks, self._segments
        view = View(
            (*blocks, *segments), scope=scope, settings=self._settings.look, crew=self._crew, memory=self._memory
        )
        found = view.search(probes, limit=limit, min_score=min_score)
        if segments:
            for probe, hits in zip(probes, found, strict=True):
                exact = partial(view.exact, probe, limit=limit, min_score=min_score)
                self._shadow.consider(hits, exact, limit=limit)
        return found


def _has_dead_codes(segment: Segment) -> bool:
    return segment.codes is not None and segment.live_count < len(segment)


def _half(part: Block | Segment) -> Rows:
    """The rows as a segment keeps them; the store holds them in half precision, so no digit is lost."""
    if isinstance(part, Segment):
        return part.rows
    used = slice(0, part.used)
    return Rows(part.template_ids[used], part.identity_ids[used], part.rows[used].astype(np.float16))
