"""Rows that stand anywhere in an index or a snapshot, looked up by template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.search.exact import Block
from facedex.indexer.search.segment import Rows, Segment
from facedex.indexer.search.snapshot import PartState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from facedex.indexer.store.moment import StoredTemplate

HALF = np.dtype("<f2")


@dataclass(frozen=True, slots=True)
class Differences:
    """Templates (n,) of one range of numbers that differ, by how."""

    missing: NDArray[np.int64]
    extra: NDArray[np.int64]
    identity: NDArray[np.int64]
    vector: NDArray[np.int64]


class RowTable:
    """Which template stands where, as it was when the table was made."""

    def __init__(self, parts: Sequence[Block | Segment | PartState]) -> None:
        # Kept, too: the rows of a block are memory of an index of its own, which goes when the block does.
        self._kept = tuple(parts)
        self._rows = [_rows(part) for part in parts]
        alive = [np.flatnonzero(part.alive[: len(rows)]) for part, rows in zip(parts, self._rows, strict=True)]
        numbers = [rows.template_ids[slots] for rows, slots in zip(self._rows, alive, strict=True)]
        flat = np.concatenate([np.zeros(0, np.int64), *numbers])
        order = np.argsort(flat, kind="stable")
        self.numbers = flat[order]
        self._slots = np.concatenate([np.zeros(0, np.int64), *alive])[order]
        places = [np.full(len(slots), place) for place, slots in enumerate(alive)]
        self._parts = np.concatenate([np.zeros(0, np.int64), *places])[order]

    def repeated(self) -> NDArray[np.int64]:
        """Templates that stand in more than one place."""
        return np.unique(self.numbers[1:][np.diff(self.numbers) == 0])

    def differences(self, stored: Sequence[StoredTemplate], *, first: int, last: int) -> Differences:
        """What differs from these rows, which are all that there ought to be from `first` to `last`."""
        numbers = np.array([row.id for row in stored], np.int64)
        here = self.numbers[np.searchsorted(self.numbers, first) : np.searchsorted(self.numbers, last, side="right")]
        places = np.searchsorted(self.numbers, numbers)
        known = np.isin(numbers, here)
        identities, vectors = self._taken(places[known])
        both = [row for row, is_known in zip(stored, known.tolist(), strict=True) if is_known]
        wanted = np.frombuffer(b"".join(row.vector for row in both), HALF).reshape(vectors.shape)
        differs = (vectors.view(np.uint16) != wanted.view(np.uint16)).any(axis=1)
        moved = identities != np.array([row.identity_id for row in both], np.int64)
        compared = numbers[known]
        return Differences(numbers[~known], np.setdiff1d(here, numbers), compared[moved], compared[differs])

    def batches(self, size: int) -> Iterator[Rows]:
        """All rows in order of the templates, in half precision."""
        for start in range(0, len(self.numbers), size):
            places = np.arange(start, min(start + size, len(self.numbers)))
            identities, vectors = self._taken(places)
            yield Rows(self.numbers[places], identities, vectors)

    def _taken(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        dimension = self._rows[0].vectors.shape[1] if self._rows else 0
        identities = np.zeros(len(places), np.int64)
        vectors = np.zeros((len(places), dimension), HALF)
        for part in np.unique(self._parts[places]).tolist():
            mine = self._parts[places] == part
            slots = self._slots[places[mine]]
            identities[mine] = self._rows[part].identity_ids[slots]
            vectors[mine] = self._rows[part].vectors[slots].astype(HALF)
        return identities, vectors


def _rows(part: Block | Segment | PartState) -> Rows:
    if isinstance(part, Block):
        used = part.used
        return Rows(part.template_ids[:used], part.identity_ids[:used], part.rows[:used])
    return part.rows
