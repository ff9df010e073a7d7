"""A gallery's change log as arrays: who was added and erased when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.consistency.findings import Fault, Finding
from facedex.indexer.store.records import ChangeOp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from facedex.indexer.store.moment import LoggedChange

OPS = {op.value: number for number, op in enumerate(ChangeOp)}
ADD, ERASE, UNKNOWN = OPS[ChangeOp.ADD.value], OPS[ChangeOp.ERASE.value], -1


@dataclass(frozen=True, slots=True)
class Entries:
    """Some changes: numbers, templates and identities (n,), in order of the templates; of a template the first."""

    seqs: NDArray[np.int64]
    templates: NDArray[np.int64]
    identities: NDArray[np.int64]

    def places(self, templates: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each of these templates (m,) is; −1 where it is not."""
        if not len(self.templates):
            return np.full(len(templates), -1)
        found = np.minimum(np.searchsorted(self.templates, templates), len(self.templates) - 1)
        return np.where(self.templates[found] == templates, found, -1)


class LogBook:
    """What a gallery's change log says, and where it contradicts itself."""

    def __init__(self, batches: Iterable[list[LoggedChange]]) -> None:
        rows = [
            (each.seq, OPS.get(each.op, UNKNOWN), each.template_id, each.identity_id)
            for batch in batches
            for each in batch
        ]
        columns = np.array(rows, np.int64).reshape(-1, 4)
        self._seqs, self._ops, self._templates, self._identities = columns.T
        self.added = self._entries(self._ops == ADD)
        self.erased = self._entries((self._ops == ERASE) & (self._templates != 0))

    def _entries(self, which: NDArray[np.bool_]) -> Entries:
        templates, first = np.unique(self._templates[which], return_index=True)
        return Entries(self._seqs[which][first], templates, self._identities[which][first])

    def living(self, *, revision: int | None = None) -> NDArray[np.int64]:
        """The templates that were added and not erased, now or at a revision; ascending."""
        if revision is None:
            return np.setdiff1d(self.added.templates, self.erased.templates, assume_unique=True)
        added = self.added.templates[self.added.seqs <= revision]
        return np.setdiff1d(added, self.erased.templates[self.erased.seqs <= revision], assume_unique=True)

    def owner(self, template_id: int) -> int | None:
        """The identity that a template was added to."""
        place = int(self.added.places(np.array([template_id]))[0])
        return None if place < 0 else int(self.added.identities[place])

    @property
    def last(self) -> int:
        return int(self._seqs[-1]) if len(self._seqs) else 0

    def contradictions(self, *, revision: int) -> Iterator[Finding]:
        """Gaps, repetitions, changes that make no sense, and a counter that does not fit."""
        for first, last in self.gaps():
            yield Finding(Fault.LOG_GAP, f"changes {first} to {last} are missing")
        for place in np.flatnonzero(self._ops == UNKNOWN).tolist():
            yield Finding(Fault.LOG_UNKNOWN, f"change {self._seqs[place]} is of no kind that there is")
        templates, counts = np.unique(self._templates[self._ops == ADD], return_counts=True)
        for number in templates[counts > 1].tolist():
            yield Finding(Fault.LOG_REPEATED, f"template {number} was added more than once", number)
        for number in np.setdiff1d(self.erased.templates, self.added.templates).tolist():
            yield Finding(Fault.LOG_UNKNOWN, f"template {number} was erased and never added", number)
        if revision != self.last:
            yield Finding(Fault.REVISION_WRONG, f"the counter is at {revision}, the log at {self.last}")

    def senseless(self) -> list[int]:
        """Changes of no kind that there is, additions after the first, and erasures of what was never added."""
        unknown = self._ops == UNKNOWN
        additions = self._ops == ADD
        repeated = additions & ~np.isin(self._seqs, self.added.seqs)
        erasures = (self._ops == ERASE) & (self._templates != 0) & ~np.isin(self._templates, self.added.templates)
        return [int(each) for each in self._seqs[unknown | repeated | erasures]]

    def gaps(self) -> list[tuple[int, int]]:
        """First and last missing number of each gap; the log begins with 1."""
        numbers = np.concatenate([np.zeros(1, np.int64), self._seqs])
        before = np.flatnonzero(np.diff(numbers) > 1)
        return [(int(numbers[place]) + 1, int(numbers[place + 1]) - 1) for place in before.tolist()]
