from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from facedex.indexer.search.codebook import Codebook
    from facedex.indexer.search.template_index import Scope


@dataclass(frozen=True, slots=True)
class Rows:
    """Templates side by side: numbers (n,), identities (n,), and vectors (n, dimension), of a segment in half precision."""

    template_ids: NDArray[np.int64]
    identity_ids: NDArray[np.int64]
    vectors: NDArray[np.floating[Any]]

    def __len__(self) -> int:
        return len(self.template_ids)

    def taken(self, which: NDArray[Any]) -> Rows:
        return Rows(self.template_ids[which], self.identity_ids[which], self.vectors[which])

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        return cls(
            np.concatenate([part.template_ids for part in parts]),
            np.concatenate([part.identity_ids for part in parts]),
            np.concatenate([part.vectors for part in parts]),
        )


class Segment:
    """Rows that never move, with their codes. The only thing that changes is who is alive.

    `remove_ids` followed by `add` corrupts fast-scan indexes, so nothing is removed: an erased row is a cleared bit, and
    a segment with many of them is written anew.
    """

    def __init__(self, rows: Rows, index: Any) -> None:
        self.rows = rows
        self._index = index
        self._alive = np.ones(len(rows), np.bool_)
        self._alive_bits = np.packbits(self._alive, bitorder="little")
        self._order = None if _ascends(rows.template_ids) else np.argsort(rows.template_ids, kind="stable")
        self.live_count = len(rows)

    @classmethod
    def encoded(cls, rows: Rows, codebook: Codebook) -> Segment:
        """Makes the codes, 8 µs a row."""
        faiss.omp_set_num_threads(1)  # threads of OpenMP that wait for a busy core cost more than they bring
        index = codebook.empty_index()
        for start in range(0, len(rows), 65_536):
            index.add(rows.vectors[start : start + 65_536].astype(np.float32))
        return cls(rows, index)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def index(self) -> Any:
        """The codes, for whoever writes them to a file."""
        return self._index

    @property
    def alive(self) -> NDArray[np.bool_]:
        return self._alive

    def slot_of(self, template_id: int) -> int | None:
        """Where a template is, if it is here and alive."""
        place = int(np.searchsorted(self.rows.template_ids, template_id, sorter=self._order))
        if place == len(self.rows):
            return None
        slot = place if self._order is None else int(self._order[place])
        return slot if self.rows.template_ids[slot] == template_id and self._alive[slot] else None

    def erase(self, slot: int) -> None:
        self._alive_bits[slot >> 3] &= np.uint8(~(1 << (slot & 7)) & 0xFF)
        self._alive[slot] = False
        self.live_count -= 1
        # The vector of an erased person does not stay in memory; the code goes when the segment is written anew.
        self.rows.vectors[slot] = 0

    def keep_only(self, alive: NDArray[np.bool_]) -> None:
        """Clears what died while the segment was being made."""
        for slot in np.flatnonzero(~alive).tolist():
            self.erase(slot)

    def mask(self, scope: Scope) -> NDArray[np.bool_]:
        """The slots that a search of this scope may see."""
        mask = self._alive.copy()
        if scope.allowed is not None:
            mask &= _member(self.rows.identity_ids, scope.allowed)
        if scope.excluded:
            mask &= ~_member(self.rows.identity_ids, scope.excluded)
        return mask

    def nearest(
        self, probes: NDArray[np.float32], count: int, mask: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Approximate scores and slots (n, count) of the best rows; slot −1 where there are no more."""
        api: Any = faiss
        bits = self._alive_bits if mask is None else np.packbits(mask, bitorder="little")
        if mask is None and self.live_count == len(self):
            parameters = api.IVFSearchParameters(nprobe=1)
        else:
            parameters = api.IVFSearchParameters(nprobe=1, sel=api.IDSelectorBitmap(bits))
        scores, slots = self._index.search(probes, min(count, len(self)), params=parameters)
        return scores, slots


def _ascends(numbers: NDArray[np.int64]) -> bool:
    return bool(np.all(numbers[1:] >= numbers[:-1]))


def _member(identity_ids: NDArray[np.int64], wanted: frozenset[int]) -> NDArray[np.bool_]:
    """Whether each identity is wanted. A table by number is 20 times faster than a search for each row."""
    numbers = np.fromiter(wanted, np.int64, len(wanted))
    highest = int(identity_ids.max(initial=0))
    table = np.zeros(highest + 1, np.bool_)
    table[numbers[(numbers >= 0) & (numbers <= highest)]] = True
    return table[identity_ids]
