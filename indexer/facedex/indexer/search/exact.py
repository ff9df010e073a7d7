"""Exhaustive search with FAISS: the index of small galleries, and the oracle of every faster one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from facedex.indexer.search.ranking import are_first, best_of_each_identity
from facedex.indexer.search.segment import Rows
from facedex.indexer.search.template_index import EVERYBODY, Hit, Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FIRST_BLOCK_ROWS = 256
LARGEST_BLOCK_ROWS = 65_536
# FAISS sums in single precision and in an order of its own: its scores may differ from ours by this much.
ROUNDING = 1e-4


class Block:
    """A fixed number of slots for rows of one FAISS flat index.

    The rows are written in place into memory that is never moved, and a slot counts only once its bit is set, so that
    searches need no lock.
    """

    def __init__(self, dimension: int, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self.template_ids = np.zeros(capacity, np.int64)
        self.identity_ids = np.zeros(capacity, np.int64)
        self._alive = np.zeros(capacity, np.bool_)
        self._index = faiss.IndexFlatIP(dimension)
        self._index.add(np.zeros((capacity, dimension), np.float32))
        self.rows: NDArray[np.float32] = faiss.rev_swig_ptr(self._index.get_xb(), capacity * dimension).reshape(
            capacity, dimension
        )

    @property
    def free(self) -> int:
        return self.capacity - self.used

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which slots count now. A copy: NumPy counts before it fills, and what changes in between gives it invented slots."""
        return self._alive.copy()

    def append(
        self, template_ids: NDArray[np.int64], identity_ids: NDArray[np.int64], vectors: NDArray[np.float32]
    ) -> range:
        """Writes rows into free slots, then makes them count."""
        slots = slice(self.used, self.used + len(template_ids))
        self.template_ids[slots], self.identity_ids[slots] = template_ids, identity_ids
        self.rows[slots] = vectors
        self.used = slots.stop
        self._alive[slots] = True
        return range(slots.start, slots.stop)

    def row(self, slot: int) -> Rows:
        slots = slice(slot, slot + 1)
        return Rows(self.template_ids[slots].copy(), self.identity_ids[slots].copy(), self.rows[slots].copy())

    def erase(self, slot: int) -> None:
        self._alive[slot] = False
        # The vector of an erased person does not stay in memory.
        self.rows[slot] = 0

    def mask(self, scope: Scope) -> NDArray[np.bool_]:
        """The slots that a search of this scope may see, as they are now."""
        mask = self.alive
        if scope.allowed is not None:
            mask &= np.isin(self.identity_ids, np.fromiter(scope.allowed, np.int64, len(scope.allowed)))
        if scope.excluded:
            mask &= ~np.isin(self.identity_ids, np.fromiter(scope.excluded, np.int64, len(scope.excluded)))
        return mask

    def reaching(
        self, probe: NDArray[np.float32], score: float, mask: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The slots of the mask whose rows have this score or a higher one, and their scores, single precision."""
        scores = self.rows @ probe
        slots = np.flatnonzero(mask & (scores >= score))
        return slots, scores[slots]

    def living(self, slots: NDArray[np.int64]) -> Rows:
        """The rows at those of the slots that were not erased since."""
        alive = slots[self._alive[slots]]
        return Rows(self.template_ids[alive], self.identity_ids[alive], self.rows[alive])

    def top(self, probe: NDArray[np.float32], count: int, mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], float]:
        """The slots of the `count` best rows of the mask, and a score that no other row exceeds."""
        seen = int(mask.sum())
        if seen <= count:
            return np.flatnonzero(mask), -np.inf
        scores, slots = self._index.search(probe[None], count, params=_parameters(mask))
        return slots[0], float(scores[0, -1]) + ROUNDING


def _parameters(mask: NDArray[np.bool_]) -> Any:
    if mask.all():
        return None
    api: Any = faiss  # its Python layer takes keywords and arrays that its stubs do not know
    return api.SearchParameters(sel=api.IDSelectorBitmap(np.packbits(mask, bitorder="little")))


class ExactIndex:
    """A `TemplateIndex` that compares a probe with every template."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._blocks: list[Block] = []
        self._places: dict[int, tuple[Block, int]] = {}

    @property
    def dimension(self) -> int:
        return self._dimension

    def __len__(self) -> int:
        return len(self._places)

    def add(self, template_ids: Sequence[int], identity_ids: Sequence[int], vectors: NDArray[np.float32]) -> None:
        fresh = np.array([each not in self._places for each in template_ids], np.bool_) & are_first(template_ids)
        rows = vectors[fresh]
        templates = np.asarray(template_ids, np.int64)[fresh]
        identities = np.asarray(identity_ids, np.int64)[fresh]
        while len(rows):
            block = self._block_with_room()
            count = min(block.free, len(rows))
            slots = block.append(templates[:count], identities[:count], rows[:count])
            self._places.update(zip(templates[:count].tolist(), ((block, slot) for slot in slots), strict=True))
            templates, identities, rows = templates[count:], identities[count:], rows[count:]

    def rows(self) -> Rows:
        """All of them; call it where nobody changes the index."""
        found = [block.row(slot) for block, slot in self._places.values()]
        empty = Rows(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, self._dimension), np.float32))
        return Rows(*(np.concatenate(each) for each in zip(*map(columns, [empty, *found]), strict=True)))

    def _block_with_room(self) -> Block:
        if self._blocks and self._blocks[-1].free:
            return self._blocks[-1]
        capacity = min(LARGEST_BLOCK_ROWS, max([FIRST_BLOCK_ROWS, *(2 * block.capacity for block in self._blocks)]))
        self._blocks.append(Block(self._dimension, capacity))
        return self._blocks[-1]

    def erase(self, template_ids: Sequence[int]) -> None:
        for template_id in template_ids:
            place = self._places.pop(template_id, None)
            if place is not None:
                block, slot = place
                block.erase(slot)

    def search(
        self, probes: NDArray[np.float32], *, limit: int, min_score: float = -1.0, scope: Scope = EVERYBODY
    ) -> list[tuple[Hit, ...]]:
        faiss.omp_set_num_threads(1)  # once in every thread that searches: OpenMP costs single queries 20 to 60 times
        masked = [(block, block.mask(scope)) for block in list(self._blocks)]
        return [self._search_one(probe, masked, limit=limit, min_score=min_score) for probe in probes]

    def _search_one(
        self,
        probe: NDArray[np.float32],
        masked: Sequence[tuple[Block, NDArray[np.bool_]]],
        *,
        limit: int,
        min_score: float,
    ) -> tuple[Hit, ...]:
        count = 4 * limit
        while True:
            found = [(block, *block.top(probe, count, mask)) for block, mask in masked]
            hits = _rank([(block, slots) for block, slots, _ in found], probe, min_score=min_score)
            unseen = max((bound for _, _, bound in found), default=-np.inf)
            # Complete when no row that was not looked at can change the list, not even by a tie.
            if unseen < min_score or (len(hits) >= limit and unseen < hits[limit - 1].score):
                return hits[:limit]
            count *= 8


def columns(rows: Rows) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    return rows.template_ids, rows.identity_ids, rows.vectors


def _rank(
    found: Sequence[tuple[Block, NDArray[np.int64]]], probe: NDArray[np.float32], *, min_score: float
) -> tuple[Hit, ...]:
    if not found:
        return ()
    return best_of_each_identity(
        np.concatenate([block.template_ids[slots] for block, slots in found]),
        np.concatenate([block.identity_ids[slots] for block, slots in found]),
        exact_scores(np.concatenate([block.rows[slots] for block, slots in found]), probe),
        min_score=min_score,
    )


def exact_scores(rows: NDArray[np.floating[Any]], probe: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosines of the `rows` (n, dimension) with a probe (dimension,), the same for equal rows wherever they stand."""
    products = np.einsum("ij,j->i", rows.astype(np.float64), probe.astype(np.float64))
    # Rounded, so that the order in which a processor sums decides no tie.
    return np.asarray(np.clip(np.round(products, 7), -1.0, 1.0), np.float64)
