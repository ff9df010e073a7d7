"""Rows that put a gallery in order which somebody changed behind the server's back. Nothing is invented."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, delete, func, select, update

from facedex.indexer.set_digest import EMPTY, TemplateDigester
from facedex.indexer.store import change_rows, gallery_rows
from facedex.indexer.store.moment import StoreMoment
from facedex.indexer.store.records import ChangeOp, GalleryRecord, Standing
from facedex.indexer.store.schema import OWNED, change, gallery, template

if TYPE_CHECKING:
    from collections.abc import Iterable

    from facedex.indexer.store.sealing import Seals


class StoreAmendment:
    """One transaction that amends a gallery. Whoever opens it holds the gallery's lock until it is committed."""

    def __init__(self, connection: Connection, record: GalleryRecord, digester: TemplateDigester, seals: Seals) -> None:
        self._connection = connection
        self._record = record
        self._digester = digester
        self.moment = StoreMoment(connection, seals)

    def number_anew(self, gaps: Iterable[tuple[int, int]]) -> None:
        """Fills missing numbers of the log with changes that concern nobody."""
        for first, last in gaps:
            for seq in range(first, last + 1):
                self._insert(ChangeOp.UPDATE, 0, identity_id=0, after=seq - 1)

    def void(self, seqs: Iterable[int]) -> None:
        """Makes changes that say nothing sensible concern nobody."""
        values = {"op": ChangeOp.UPDATE.value, "template_id": 0, "identity_id": 0}
        for seq in seqs:
            where = (change.c.gallery_id == self._record.id) & (change.c.seq == seq)
            self._connection.execute(update(change).where(where).values(values))

    def attribute(self, template_id: int, identity_id: int) -> None:
        """Lets the change that added a template name the identity that its row names."""
        where = (change.c.gallery_id == self._record.id) & (change.c.template_id == template_id)
        where &= change.c.op == ChangeOp.ADD.value
        self._connection.execute(update(change).where(where).values(identity_id=identity_id))

    def erase(self, template_id: int, identity_id: int) -> None:
        """Erases a template, or notes that it is gone."""
        where = (template.c.gallery_id == self._record.id) & (template.c.id == template_id)
        self._connection.execute(delete(template).where(where))
        self._append(ChangeOp.ERASE, template_id, identity_id)

    def note_added(self, template_id: int, identity_id: int) -> None:
        """Notes that a template is there."""
        self._append(ChangeOp.ADD, template_id, identity_id)

    def clear_crops(self) -> None:
        where = (template.c.gallery_id == self._record.id) & template.c.crop.is_not(None)
        self._connection.execute(update(template).where(where).values(crop=None))

    def seal(self) -> None:
        """Last: seals every row as it is, and has every index built anew."""
        self._append(ChangeOp.REBUILD, 0, 0)
        digest = EMPTY
        for rows in self.moment.templates(self._record):
            for row in rows:
                seal = self._digester.seal(row.identity_id, row.vector) if row.has_key else row.seal
                if seal != row.seal:
                    self._connection.execute(update(template).where(template.c.id == row.id).values(seal=seal))
                digest = digest.plus([self._digester.member(row.id, seal)])
        gallery_rows.set_standing(self._connection, self._record.id, Standing(self._last(), digest))

    def _append(self, op: ChangeOp, template_id: int, identity_id: int) -> None:
        standing = gallery_rows.select_standing(self._connection, self._record.id)
        # Above every number that anybody was ever told.
        after = max(self._last(), standing.revision if standing else 0)
        self.number_anew([(self._last() + 1, after)])
        self._insert(op, template_id, identity_id=identity_id, after=after)

    def _insert(self, op: ChangeOp, template_id: int, *, identity_id: int, after: int) -> None:
        change_rows.insert_changes(
            self._connection, self._record.id, [change_rows.NewChange(op, template_id, identity_id)], after=after
        )

    def _last(self) -> int:
        statement = select(func.max(change.c.seq)).where(change.c.gallery_id == self._record.id)
        return self._connection.execute(statement).scalar() or 0


def delete_strays(connection: Connection) -> None:
    """Deletes rows of galleries that are not there."""
    for table in OWNED:
        connection.execute(delete(table).where(table.c.gallery_id.not_in(select(gallery.c.id))))
