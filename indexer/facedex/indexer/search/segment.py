from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from facedex.indexer.search.code_fit import TARGET_LOSS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from facedex.indexer.search.code_fit import CodeFit
    from facedex.indexer.search.codebook import Codebook
    from facedex.indexer.search.device_memory import Copy
    from facedex.indexer.search.template_index import Scope
    from facedex.indexer.set_digest import TemplateDigester


# A scan that leaves more than this share is not worth its time: every row is scored exactly instead.
WHOLE_SHARE = 0.3
# FAISS takes several times the memory of the rows that it encodes at once, and no less time for more of them.
ENCODED_AT_ONCE = 4_096
# As the store holds vectors.
HALF = np.dtype("<f2")


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

    def seals(self, digester: TemplateDigester) -> Iterator[bytes]:
        """The seal of each."""
        halves = self.vectors.astype(HALF)
        return (
            digester.seal(identity, half.tobytes())
            for identity, half in zip(self.identity_ids.tolist(), halves, strict=True)
        )

    def members(self, digester: TemplateDigester) -> Iterator[bytes]:
        """The member digest of each."""
        numbers = zip(self.template_ids.tolist(), self.seals(digester), strict=True)
        return (digester.member(template, seal) for template, seal in numbers)

    @classmethod
    def joined(cls, parts: Sequence[Rows], kept: Sequence[NDArray[np.int64]]) -> Rows:
        """Those rows of each part that are kept, in half precision; each is copied once."""
        vectors = np.empty((sum(map(len, kept)), parts[0].vectors.shape[1]), np.float16)
        start = 0
        for part, which in zip(parts, kept, strict=True):
            vectors[start : start + len(which)] = part.vectors if len(which) == len(part) else part.vectors[which]
            start += len(which)
        return cls(
            np.concatenate([part.template_ids[which] for part, which in zip(parts, kept, strict=True)]),
            np.concatenate([part.identity_ids[which] for part, which in zip(parts, kept, strict=True)]),
            vectors,
        )


@dataclass(frozen=True, slots=True)
class Codes:
    """The codes of a segment's rows, slot by slot, and how well they stand for them."""

    index: Any
    fit: CodeFit

    @classmethod
    def made(cls, vectors: NDArray[np.floating[Any]], codebook: Codebook, fit: CodeFit) -> Codes:
        """Encodes the `vectors` (n, dimension), 8 µs a row."""
        faiss.omp_set_num_threads(1)  # threads of OpenMP that wait for a busy core cost more than they bring
        index = codebook.empty_index()
        for start in range(0, len(vectors), ENCODED_AT_ONCE):
            index.add(vectors[start : start + ENCODED_AT_ONCE].astype(np.float32))
        return cls(index, fit)

    @property
    def code_bytes(self) -> int:
        """Of one row."""
        return int(self.index.code_size)


class Segment:
    """Rows that never move, with their codes. The only thing that changes is who is alive.

    `remove_ids` followed by `add` corrupts fast-scan indexes, so nothing is removed: an erased row is a cleared bit, and
    a segment with many of them is written anew. Without codes, each of its rows is scored in each search.
    """

    def __init__(self, rows: Rows, codes: Codes | None, copy: Copy | None = None) -> None:
        """`copy` is that of the rows on a device that searches them."""
        self.rows = rows
        self.codes = codes
        self.copy = copy
        self._alive = np.ones(len(rows), np.bool_)
        self._alive_bits = np.packbits(self._alive, bitorder="little")
        self._order = None if _ascends(rows.template_ids) else np.argsort(rows.template_ids, kind="stable")
        self.live_count = len(rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which slots count now. A copy: NumPy counts before it fills, and what changes in between gives it invented slots."""
        return self._alive.copy()

    def slot_of(self, template_id: int) -> int | None:
        """Where a template is, if it is here and alive."""
        place = int(np.searchsorted(self.rows.template_ids, template_id, sorter=self._order))
        if place == len(self.rows):
            return None
        slot = place if self._order is None else int(self._order[place])
        return slot if self.rows.template_ids[slot] == template_id and self._alive[slot] else None

    @property
    def identity_ids(self) -> NDArray[np.int64]:
        """Of each slot."""
        return self.rows.identity_ids

    def row(self, slot: int) -> Rows:
        return self.rows.taken(np.array([slot]))

    def erase(self, slot: int) -> None:
        self._alive_bits[slot >> 3] &= np.uint8(~(1 << (slot & 7)) & 0xFF)
        self._alive[slot] = False
        self.live_count -= 1
        # The vector of an erased person does not stay in memory; the code goes when the segment is written anew.
        self.rows.vectors[slot] = 0
        if self.copy is not None:
            self.copy.erase(slot)

    def keep_only(self, alive: NDArray[np.bool_]) -> None:
        """Clears what died while the segment was being made."""
        for slot in np.flatnonzero(~alive).tolist():
            self.erase(slot)

    def mask(self, scope: Scope) -> NDArray[np.bool_]:
        """The slots that a search of this scope may see."""
        mask = self.alive
        if scope.allowed is not None:
            mask &= _member(self.rows.identity_ids, scope.allowed)
        if scope.excluded:
            mask &= ~_member(self.rows.identity_ids, scope.excluded)
        return mask

    def share_reaching(self, score: float) -> float:
        """Share of the rows that would have to be scored exactly to find every row of this score."""
        return 1.0 if self.codes is None else self.codes.fit.share_reaching(score)

    def nearest(
        self, probe: NDArray[np.float32], count: int, mask: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], float]:
        """The `count` slots that look best to the scan, and an approximate score that no other row exceeds."""
        if self.codes is None or count >= len(self):
            return self.seen(mask), -np.inf
        scores, slots = self.codes.index.search(probe[None], count, params=self._parameters(mask))
        found = slots[0] >= 0
        return slots[0][found], -np.inf if not found.all() else float(scores[0, -1])

    def reaching(
        self, probes: NDArray[np.float32], score: float, mask: NDArray[np.bool_] | None, *, loss: float = TARGET_LOSS
    ) -> list[NDArray[np.int64]]:
        """For each of the `probes` (n, dimension) the slots of every row that may have this score or a higher one.

        A row that has it is missed less often than the `loss`.
        """
        if self.codes is None or self.share_reaching(score) > WHOLE_SHARE:
            return [self.seen(mask)] * len(probes)
        least = self.codes.fit.least_approximate(score, loss=loss)
        limits, _, slots = self.codes.index.range_search(probes, least, params=self._parameters(mask))
        return [slots[start:stop] for start, stop in pairwise(limits.tolist())]

    def seen(self, mask: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """The slots that a search with this mask may see; None: everybody who is alive."""
        return np.flatnonzero(self.alive if mask is None else mask)

    def still_alive(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the slots that were not erased."""
        return slots[self._alive[slots]]

    def living(self, slots: NDArray[np.int64]) -> Rows:
        """The rows at those of the slots that were not erased since."""
        return self.rows.taken(slots[self._alive[slots]])

    def _parameters(self, mask: NDArray[np.bool_] | None) -> Any:
        api: Any = faiss
        if mask is None and self.live_count == len(self):
            return api.IVFSearchParameters(nprobe=1)
        bits = self._alive_bits if mask is None else np.packbits(mask, bitorder="little")
        return api.IVFSearchParameters(nprobe=1, sel=api.IDSelectorBitmap(bits))


def _ascends(numbers: NDArray[np.int64]) -> bool:
    return bool(np.all(numbers[1:] >= numbers[:-1]))


def _member(identity_ids: NDArray[np.int64], wanted: frozenset[int]) -> NDArray[np.bool_]:
    """Whether each identity is wanted. A table by number is 20 times faster than a search for each row."""
    numbers = np.fromiter(wanted, np.int64, len(wanted))
    highest = int(identity_ids.max(initial=0))
    table = np.zeros(highest + 1, np.bool_)
    table[numbers[(numbers >= 0) & (numbers <= highest)]] = True
    return table[identity_ids]
