"""What mends a gallery: the index from the store, and the store only where somebody accepts it as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facedex.indexer.consistency.findings import Fault, Remedy, Report
from facedex.indexer.consistency.store_check import StoreCheck

if TYPE_CHECKING:
    from facedex.indexer.consistency.log_book import LogBook
    from facedex.indexer.indexes import Indexes
    from facedex.indexer.store.amendment import StoreAmendment
    from facedex.indexer.store.records import GalleryRecord
    from facedex.indexer.store.store import Store

# Whoever was erased stays erased; and what no index can hold is of no use to anybody.
ERASED_WHEN_ACCEPTED = frozenset({Fault.ROW_RETURNED, Fault.ROW_UNREADABLE, Fault.ROW_UNUSABLE, Fault.ROW_UNOWNED})


def mend(report: Report, *, store: Store, indexes: Indexes) -> None:
    """Mends what can be made from the store: crops that must not be kept, the snapshot, every index.

    A store that was changed behind the server's back is left alone, and so are the indexes, which may be older and right.
    """
    record = store.gallery(report.gallery)
    if Fault.CROP_UNWANTED in report.counts:
        with store.amending(record) as amendment:
            amendment.clear_crops()
    if report.needs(Remedy.DROP) or report.needs(Remedy.REBUILD):
        indexes.forget(record)
    if report.needs(Remedy.REBUILD) and not report.needs(Remedy.ACCEPT):
        store.request_rebuild(record)


def accept_store(report: Report, *, store: Store, indexes: Indexes) -> None:
    """Takes the store for the truth as it is now, and has every index built anew from it.

    Rows that somebody changed, added or removed count from now on. A template that was erased once, or that no index can
    hold, is erased; missing numbers of the log are filled with changes that concern nobody.
    """
    record = store.gallery(report.gallery)
    indexes.forget(record)
    with store.amending(record) as amendment:
        check = StoreCheck(amendment.moment, record, store.digester)
        findings = list(check.findings())
        amendment.number_anew(check.book.gaps())
        amendment.void(check.book.senseless())
        doomed = {each.template_id for each in findings if each.fault in ERASED_WHEN_ACCEPTED}
        for number in sorted(each for each in doomed if each is not None):
            amendment.erase(number, check.book.owner(number) or 0)
        for finding in findings:
            if finding.template_id is not None and finding.template_id not in doomed:
                _accept(finding.fault, finding.template_id, amendment, record, check.book)
        amendment.seal()


def _accept(fault: Fault, number: int, amendment: StoreAmendment, record: GalleryRecord, book: LogBook) -> None:
    row = amendment.moment.some_templates(record, [number]).get(number)
    if fault is Fault.ROW_MISSING:
        amendment.erase(number, book.owner(number) or 0)
    elif row is not None and fault is Fault.ROW_UNLOGGED:
        amendment.note_added(number, row.identity_id)
    elif row is not None and fault is Fault.ROW_MISATTRIBUTED:
        amendment.attribute(number, row.identity_id)
