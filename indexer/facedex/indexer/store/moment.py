"""The store as it was at one moment, row by row: what an examination reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select

from facedex.indexer.errors import GalleryNotFound, SealBroken
from facedex.indexer.store import gallery_rows
from facedex.indexer.store.parameters import MAX_PARAMETERS
from facedex.indexer.store.schema import OWNED, change, gallery, identity, template
from facedex.indexer.store.sealing import VECTOR, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from facedex.indexer.store.records import GalleryRecord, Standing
    from facedex.indexer.store.sealing import Sealer, Seals

ROWS_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True)
class StoredTemplate:
    """A row of a template. `is_owned`: its identity is there and of the same gallery.

    vector: half precision, little-endian, whatever its length; empty where the ciphertext is damaged.
    has_key: False where the data key that it needs is gone; the vector is empty then.
    """

    id: int
    identity_id: int
    model_digest: str
    vector: bytes
    seal: bytes
    has_crop: bool
    has_key: bool
    is_owned: bool


@dataclass(frozen=True, slots=True)
class LoggedChange:
    """A row of the change log as it is, whatever `op` it names."""

    seq: int
    op: str
    template_id: int
    identity_id: int


@dataclass(frozen=True, slots=True)
class StrayRows:
    """Rows of a table that belong to a gallery that is not there."""

    table: str
    gallery_id: int
    count: int


class StoreMoment:
    """Everything that is read through it was true at the same moment."""

    def __init__(self, connection: Connection, seals: Seals) -> None:
        self._connection = connection
        self._seals = seals

    def standing(self, record: GalleryRecord) -> Standing:
        standing = gallery_rows.select_standing(self._connection, record.id)
        if standing is None:
            raise GalleryNotFound(record.name)
        return standing

    def templates(self, record: GalleryRecord) -> Iterator[list[StoredTemplate]]:
        """All templates of a gallery in order of their numbers."""
        last = -1
        while rows := self._templates(_templates().where(template.c.gallery_id == record.id, template.c.id > last)):
            yield rows
            last = rows[-1].id

    def some_templates(self, record: GalleryRecord, numbers: Iterable[int]) -> dict[int, StoredTemplate]:
        """Those of the templates that are there, at most `MAX_PARAMETERS`."""
        wanted = template.c.id.in_(list(numbers)[:MAX_PARAMETERS])
        rows = self._connection.execute(_templates().where(template.c.gallery_id == record.id, wanted)).all()
        return {each.id: each for each in self._opened(rows)}

    def _templates(self, statement: Select[Any]) -> list[StoredTemplate]:
        return self._opened(self._connection.execute(statement.order_by(template.c.id).limit(ROWS_AT_ONCE)).all())

    def _opened(self, rows: Sequence[Any]) -> list[StoredTemplate]:
        sealers = self._seals.among(row.key_id or "" for row in rows)
        return [_template(row, sealers.get(row.key_id or "")) for row in rows]

    def log(self, record: GalleryRecord) -> Iterator[list[LoggedChange]]:
        """All changes of a gallery in order."""
        last = -(2**62)
        columns = (change.c.seq, change.c.op, change.c.template_id, change.c.identity_id)
        statement = select(*columns).where(change.c.gallery_id == record.id).order_by(change.c.seq).limit(ROWS_AT_ONCE)
        while rows := self._connection.execute(statement.where(change.c.seq > last)).all():
            yield [LoggedChange(row.seq, row.op, row.template_id, row.identity_id) for row in rows]
            last = rows[-1].seq

    def strays(self) -> list[StrayRows]:
        """Rows of galleries that are not there; foreign keys forbid them, and can be switched off."""
        found: list[StrayRows] = []
        for table in OWNED:
            owner = table.c.gallery_id
            statement = select(owner, func.count()).where(owner.not_in(select(gallery.c.id))).group_by(owner)
            found += [StrayRows(table.name, *row) for row in self._connection.execute(statement)]
        return found


def _templates() -> Select[Any]:
    owned = and_(identity.c.id == template.c.identity_id, identity.c.gallery_id == template.c.gallery_id)
    columns: list[ColumnElement[Any]] = [
        template.c.id,
        template.c.identity_id,
        template.c.model_digest,
        template.c.source_digest,
        template.c.vector,
        template.c.seal,
        identity.c.key_id,
        template.c.crop.is_not(None).label("has_crop"),
        identity.c.id.is_not(None).label("is_owned"),
    ]
    return select(*columns).select_from(template).join(identity, owned, isouter=True)


def _template(row: Any, sealer: Sealer | None) -> StoredTemplate:
    return StoredTemplate(
        row.id,
        row.identity_id,
        row.model_digest,
        b"" if sealer is None else _opened(row, sealer),
        bytes(row.seal or b""),
        bool(row.has_crop),
        sealer is not None,
        bool(row.is_owned),
    )


def _opened(row: Any, sealer: Sealer) -> bytes:
    try:
        return sealer.opened(bytes(row.vector), Place(VECTOR, row.model_digest, row.source_digest))
    except SealBroken:
        return b""
