"""The store examined by itself: rows against their seals, against the digest of all of them, and against the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.consistency.findings import Fault, Finding
from facedex.indexer.consistency.log_book import LogBook
from facedex.indexer.policy import policy_from_json
from facedex.indexer.set_digest import EMPTY, TemplateDigester

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from facedex.indexer.store.moment import StoredTemplate, StoreMoment
    from facedex.indexer.store.records import GalleryRecord

# A unit vector in half precision is of unit length to 5e-4.
LENGTH_TOLERANCE = 2e-3
COMPONENT_BYTES = 2


class StoreCheck:
    """Examines a gallery's rows and log as they were at one moment."""

    def __init__(self, moment: StoreMoment, record: GalleryRecord, digester: Callable[[str], TemplateDigester]) -> None:
        self._moment = moment
        self._record = record
        self._digester = digester
        self.standing = moment.standing(record)
        self.book = LogBook(moment.log(record))
        self.count = 0

    def findings(self) -> Iterator[Finding]:
        yield from self.book.contradictions(revision=self.standing.revision)
        digest, numbers = EMPTY, [np.zeros(0, np.int64)]
        member = self._digester(self._record.model.digest).member
        for rows in self._moment.templates(self._record):
            digest = digest.plus(member(row.id, row.seal) for row in rows)
            numbers.append(np.array([row.id for row in rows], np.int64))
            self.count += len(rows)
            yield from self._of_rows(rows)
        for number in np.setdiff1d(self.book.living(), np.concatenate(numbers), assume_unique=True).tolist():
            yield Finding(Fault.ROW_MISSING, f"identity number {self.book.owner(number)} has lost it", number)
        if digest != self.standing.digest:
            yield Finding(Fault.GALLERY_DIGEST, f"at revision {self.standing.revision}, of {self.count} templates")

    def _of_rows(self, rows: Sequence[StoredTemplate]) -> Iterator[Finding]:
        keeps_crops = policy_from_json(self._record.policy).keep_crops
        numbers = np.array([row.id for row in rows], np.int64)
        added, erased = self.book.added.places(numbers), self.book.erased.places(numbers)
        owners = [int(self.book.added.identities[place]) if place >= 0 else None for place in added.tolist()]
        for row, owner, erasure in zip(rows, owners, erased.tolist(), strict=True):
            yield from self._of_log(row, owner, is_erased=erasure >= 0)
            if not row.has_key:
                yield Finding(Fault.ROW_UNREADABLE, f"of identity number {row.identity_id}", row.id)
            elif not self._is_sealed(row, owner):
                yield Finding(Fault.ROW_ALTERED, f"of identity number {row.identity_id}", row.id)
            if not row.is_owned:
                yield Finding(Fault.ROW_UNOWNED, f"there is no identity number {row.identity_id} here", row.id)
            if row.has_crop and not keeps_crops:
                yield Finding(Fault.CROP_UNWANTED, "the gallery's policy keeps no crops", row.id)
        yield from _unusable(rows, self._record)

    def _of_log(self, row: StoredTemplate, owner: int | None, *, is_erased: bool) -> Iterator[Finding]:
        if owner is None:
            yield Finding(Fault.ROW_UNLOGGED, f"of identity number {row.identity_id}", row.id)
        elif is_erased:
            yield Finding(Fault.ROW_RETURNED, f"of identity number {row.identity_id}", row.id)
        elif owner != row.identity_id:
            detail = f"it was added to identity number {owner}, and is of number {row.identity_id}"
            yield Finding(Fault.ROW_MISATTRIBUTED, detail, row.id)

    def _is_sealed(self, row: StoredTemplate, owner: int | None) -> bool:
        # With the identity that the log names: a row that was given to somebody else is one finding, not two.
        digester = self._digester(row.model_digest)
        owners = {row.identity_id, row.identity_id if owner is None else owner}
        return any(digester.seal(each, row.vector) == row.seal for each in owners)


def _unusable(rows: Sequence[StoredTemplate], record: GalleryRecord) -> Iterator[Finding]:
    usable: list[StoredTemplate] = []
    for row in (each for each in rows if each.has_key):
        reason = _unfit(row, record)
        if reason:
            yield Finding(Fault.ROW_UNUSABLE, reason, row.id)
        else:
            usable.append(row)
    vectors = np.frombuffer(b"".join(row.vector for row in usable), "<f2").reshape(len(usable), -1)
    lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
    for place in np.flatnonzero(~(np.abs(lengths - 1) <= LENGTH_TOLERANCE)).tolist():
        reason = (
            "has no finite vector" if not np.isfinite(lengths[place]) else f"has length {lengths[place]:.4g}, not 1"
        )
        yield Finding(Fault.ROW_UNUSABLE, reason, usable[place].id)


def _unfit(row: StoredTemplate, record: GalleryRecord) -> str:
    if row.model_digest != record.model.digest:
        return f"is of model {row.model_digest[:12]}…, the gallery is of {record.model.digest[:12]}…"
    if len(row.vector) != COMPONENT_BYTES * record.model.dimension:
        return f"has {len(row.vector)} bytes, not {COMPONENT_BYTES * record.model.dimension}"
    return ""
