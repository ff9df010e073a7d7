"""The index that searches use, against the store; searches and changes go on meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.consistency.findings import Fault, Finding
from facedex.indexer.consistency.row_table import RowTable
from facedex.indexer.search.code_check import unfit_slots
from facedex.indexer.search.segment import Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from facedex.indexer.gallery import Gallery, HeldGallery
    from facedex.indexer.search.segment import Rows
    from facedex.indexer.store.moment import StoredTemplate
    from facedex.indexer.store.records import GalleryRecord

# Looked at again while the gallery stands still: a few milliseconds.
SUSPECTS_AT_ONCE = 500
HIGHEST = 2**63 - 1
# After so many rows, somebody else may have the interpreter.
PAUSE_SECONDS = 0.001


class IndexCheck:
    """Compares the index with the store, row by row and code by code, and its digest with the gallery's.

    The rows are compared while both go on changing, so a difference is a suspicion at first. Each is looked at again while
    the gallery is held at one revision, and only what then differs is a finding.
    """

    def __init__(self, gallery: Gallery, *, checkpoint: Callable[[], None]) -> None:
        self._gallery = gallery
        self._checkpoint = checkpoint

    def findings(self) -> Iterator[Finding]:
        self._gallery.catch_up()
        table = RowTable(self._gallery.parts)
        suspects = np.unique(np.concatenate([table.repeated(), *self._suspects(table)])).tolist()
        for start in range(0, len(suspects), SUSPECTS_AT_ONCE):
            self._checkpoint()
            yield from self._confirmed(suspects[start : start + SUSPECTS_AT_ONCE])
        yield from self._unfit_codes()
        yield from self._whole()

    def _suspects(self, table: RowTable) -> Iterator[np.ndarray]:
        record = self._gallery.record
        first = 0
        with self._gallery.store.moment() as moment:
            for rows in moment.templates(record):
                self._rest()
                last = rows[-1].id
                found = table.differences(_comparable(rows, record), first=first, last=last)
                yield from (found.missing, found.extra, found.identity, found.vector)
                first = last + 1
        yield table.differences((), first=first, last=HIGHEST).extra

    def _rest(self) -> None:
        self._checkpoint()
        time.sleep(PAUSE_SECONDS)

    def _confirmed(self, suspects: Sequence[int]) -> list[Finding]:
        with self._gallery.held() as held:
            stored = held.moment.some_templates(self._gallery.record, suspects)
            repeated = set(RowTable(held.index.parts()).repeated().tolist())
            found = [
                _difference(number, stored.get(number), held.index.row(number), self._gallery.record)
                for number in suspects
            ]
        twice = [Finding(Fault.INDEX_REPEATED, "it stands there twice", each) for each in suspects if each in repeated]
        return [*twice, *(each for each in found if each is not None)]

    def _unfit_codes(self) -> Iterator[Finding]:
        for part in self._gallery.parts:
            if isinstance(part, Segment) and part.codes is not None:
                self._rest()
                unfit = unfit_slots(part.rows, part.codes)
                for slot in unfit[part.alive[unfit]].tolist():
                    number = int(part.rows.template_ids[slot])
                    yield Finding(Fault.INDEX_CODE, "the scan looks for it in the wrong place", number)

    def _whole(self) -> list[Finding]:
        with self._gallery.held() as held:
            standing = held.moment.standing(self._gallery.record)
            if held.revision > standing.revision:
                detail = f"it is at revision {held.revision}, the store at {standing.revision}"
                return [Finding(Fault.INDEX_AHEAD, detail)]
            found = list(_miscounted(held))
            if held.index.digest != standing.digest:
                found.append(Finding(Fault.INDEX_DIGEST, f"at revision {held.revision}"))
        return found


def _comparable(rows: Sequence[StoredTemplate], record: GalleryRecord) -> list[StoredTemplate]:
    # A row that no index can take has a finding of its own.
    return [row for row in rows if len(row.vector) == 2 * record.model.dimension]


def _difference(number: int, stored: StoredTemplate | None, row: Rows | None, record: GalleryRecord) -> Finding | None:
    if stored is None or not _comparable([stored], record):
        return None if row is None else Finding(Fault.INDEX_EXTRA, "a search still compares it", number)
    if row is None:
        return Finding(Fault.INDEX_MISSING, "no search finds it", number)
    if int(row.identity_ids[0]) != stored.identity_id:
        detail = f"identity number {row.identity_ids[0]} has it, not {stored.identity_id}"
        return Finding(Fault.INDEX_IDENTITY, detail, number)
    if row.vectors.tobytes() != stored.vector:
        return Finding(Fault.INDEX_VECTOR, "its vector is another one", number)
    return None


def _miscounted(held: HeldGallery) -> Iterator[Finding]:
    holds = sum(int(part.alive.sum()) for part in held.index.parts())
    if holds != len(held.index):
        yield Finding(Fault.INDEX_COUNT, f"it counts {len(held.index)} templates and holds {holds}")
