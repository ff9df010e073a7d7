"""One gallery examined: its rows and log, its snapshot, and the index that searches use."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from facedex.indexer.consistency.findings import Fault, Finding, Report
from facedex.indexer.consistency.index_check import IndexCheck
from facedex.indexer.consistency.snapshot_check import SnapshotCheck
from facedex.indexer.consistency.store_check import StoreCheck
from facedex.indexer.errors import SealBroken
from facedex.indexer.gallery import Gallery
from facedex.indexer.indexes import Indexes
from facedex.indexer.search.snapshot import SnapshotRejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from facedex.indexer.store.records import GalleryRecord
    from facedex.indexer.store.store import Store


def check_gallery(gallery: Gallery, *, checkpoint: Callable[[], None] = lambda: None) -> Report:
    """The store, and the live index against it. Searches and changes go on; `checkpoint` may raise, to stop it.

    A rebuild that is under way is waited for: it may be about to mend what would be found.
    """
    started = time.perf_counter()
    gallery.catch_up()
    gallery.settle(checkpoint=checkpoint)
    report = Report(gallery.record.name)
    _check_store(gallery.store, gallery.record, report)
    checkpoint()
    report.note(IndexCheck(gallery, checkpoint=checkpoint).findings())
    report.seconds = time.perf_counter() - started
    return report


class DataFolderCheck:
    """Examines galleries of a data folder without a server: rows and log, snapshot, and the index as a start makes it."""

    def __init__(self, store: Store, folder: Path | None) -> None:
        self._store = store
        self.indexes = Indexes(store, folder)

    def gallery(self, name: str) -> Report:
        started = time.perf_counter()
        record = self._store.gallery(name)
        report = Report(name)
        is_sound = self._check_snapshot(record, report)
        _check_store(self._store, record, report)
        report.note(self._of_index(record, self.indexes if is_sound else Indexes(self._store)))
        report.seconds = time.perf_counter() - started
        return report

    def everywhere(self) -> Report:
        """What belongs to no gallery that is there."""
        report = Report("")
        with self._store.moment() as moment:
            for each in moment.strays():
                detail = f"{each.count} of the table {each.table}, of gallery number {each.gallery_id}"
                report.note([Finding(Fault.STRAY_ROWS, detail)])
        report.note(Finding(Fault.ORPHAN_FILE, path.name) for path in self.indexes.leftovers())
        return report

    def _check_snapshot(self, record: GalleryRecord, report: Report) -> bool:
        """Whether a start may use it."""
        try:
            # Read before the store: an index, and so its file, never leads it.
            snapshot = self.indexes.saved(record)
        except SnapshotRejected as rejection:
            report.note([Finding(Fault.SNAPSHOT_REJECTED, f"it {rejection}")])
            return False
        if snapshot is None:
            return True
        with self._store.moment() as moment:
            book = StoreCheck(moment, record, self._store.digester).book
            found = list(
                SnapshotCheck(snapshot, moment, record, book).findings(self._store.digester(record.model.digest))
            )
        report.note(found)
        return not found

    def _of_index(self, record: GalleryRecord, indexes: Indexes) -> Iterator[Finding]:
        try:
            gallery = Gallery(record, store=self._store, indexes=indexes)
            gallery.catch_up()
            gallery.settle()
        except (ValueError, SealBroken) as error:  # vectors of several lengths, a change of no kind that there is
            yield Finding(Fault.INDEX_UNBUILDABLE, f"building it failed with {type(error).__name__}")
        else:
            yield from IndexCheck(gallery, checkpoint=lambda: None).findings()


def _check_store(store: Store, record: GalleryRecord, report: Report) -> None:
    with store.moment() as moment:
        check = StoreCheck(moment, record, store.digester)
        report.note(check.findings())
    report.revision, report.templates = check.standing.revision, check.count
