"""The file of an index, against the store's rows and log at the file's own revision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.consistency.findings import Fault, Finding
from facedex.indexer.consistency.row_table import RowTable
from facedex.indexer.search.code_check import unfit_slots
from facedex.indexer.set_digest import EMPTY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from facedex.indexer.consistency.log_book import LogBook
    from facedex.indexer.search.snapshot import Snapshot
    from facedex.indexer.set_digest import TemplateDigester
    from facedex.indexer.store.moment import StoreMoment
    from facedex.indexer.store.records import GalleryRecord

ROWS_AT_ONCE = 4_096


class SnapshotCheck:
    """Compares a snapshot, which was read before the moment, with what the store says of its revision."""

    def __init__(self, snapshot: Snapshot, moment: StoreMoment, record: GalleryRecord, book: LogBook) -> None:
        self._snapshot = snapshot
        self._moment = moment
        self._record = record
        self._book = book
        self._table = RowTable(snapshot.parts)

    def findings(self, digester: TemplateDigester) -> Iterator[Finding]:
        yield from self._whereabouts()
        yield from self._rows()
        for part in self._snapshot.parts:
            if part.codes is not None:
                unfit = unfit_slots(part.rows, part.codes)
                for slot in unfit[part.alive[unfit]].tolist():
                    number = int(part.rows.template_ids[slot])
                    yield Finding(Fault.SNAPSHOT_CODE, "the scan would look for it in the wrong place", number)
        if self._digest(digester) != self._snapshot.digest:
            yield Finding(Fault.SNAPSHOT_DIGEST, f"at revision {self._snapshot.revision}")

    def _whereabouts(self) -> Iterator[Finding]:
        revision = self._snapshot.revision
        expected = self._book.living(revision=revision)
        for number in np.setdiff1d(expected, self._table.numbers).tolist():
            yield Finding(Fault.SNAPSHOT_MISSING, f"it was there at revision {revision}", number)
        for number in np.setdiff1d(self._table.numbers, expected).tolist():
            yield Finding(Fault.SNAPSHOT_EXTRA, f"it was not there at revision {revision}", number)
        for number in self._table.repeated().tolist():
            yield Finding(Fault.SNAPSHOT_EXTRA, "it stands there twice", number)

    def _rows(self) -> Iterator[Finding]:
        for rows in self._moment.templates(self._record):
            usable = [row for row in rows if len(row.vector) == 2 * self._record.model.dimension]
            found = self._table.differences(usable, first=rows[0].id, last=rows[-1].id)
            for number in found.identity.tolist():
                yield Finding(Fault.SNAPSHOT_IDENTITY, "another identity has it", number)
            for number in found.vector.tolist():
                yield Finding(Fault.SNAPSHOT_VECTOR, "its vector is another one", number)

    def _digest(self, digester: TemplateDigester) -> object:
        digest = EMPTY
        for rows in self._table.batches(ROWS_AT_ONCE):
            numbers = zip(rows.template_ids.tolist(), rows.identity_ids.tolist(), rows.vectors, strict=True)
            digest = digest.plus(digester.of(number, owner, vector.tobytes()) for number, owner, vector in numbers)
        return digest
