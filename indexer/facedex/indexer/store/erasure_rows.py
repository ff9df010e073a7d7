"""Erasures in the store. Each function works inside the caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, func, insert, or_, select, update

from facedex.indexer.store.parameters import in_parts
from facedex.indexer.store.records import as_utc
from facedex.indexer.store.schema import erasure
from facedex.indexer.store.tombstones import ErasureRecord, Tombstone

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime


def insert_tombstone(connection: Connection, tombstone: Tombstone) -> None:
    connection.execute(
        insert(erasure).values(
            erasure_id=tombstone.erasure_id,
            gallery_id=tombstone.gallery_id,
            identity_hash=tombstone.identity_hash,
            document=tombstone.to_json(),
            receipt="",
            erased_at=tombstone.erased_at,
        )
    )


def select_erasure(connection: Connection, erasure_id: str) -> ErasureRecord | None:
    row = connection.execute(select(erasure).where(erasure.c.erasure_id == erasure_id)).first()
    return None if row is None else _record(row)


def select_erasures(
    connection: Connection,
    *,
    before: tuple[datetime, str] | None,
    limit: int,
    galleries: frozenset[str] | None = None,
) -> list[ErasureRecord]:
    """A page of erasures, the newest first; in galleries of these names, None: in all."""
    statement = select(erasure).order_by(erasure.c.erased_at.desc(), erasure.c.erasure_id.desc()).limit(limit)
    if galleries is not None:
        statement = statement.where(erasure.c.document["gallery"].as_string().in_(sorted(galleries)))
    if before is not None:
        moment, erasure_id = before
        at_once = and_(erasure.c.erased_at == moment, erasure.c.erasure_id < erasure_id)
        statement = statement.where(or_(erasure.c.erased_at < moment, at_once))
    return [_record(row) for row in connection.execute(statement)]


def select_incomplete(connection: Connection) -> list[Tombstone]:
    """Erasures whose rows are gone and that have no receipt yet."""
    return _tombstones(connection, erasure.c.receipt == "")


def select_unpurged(connection: Connection) -> list[Tombstone]:
    """Erasures of which copies may be left, the oldest first."""
    return _tombstones(connection, erasure.c.purged_at.is_(None) & (erasure.c.receipt != ""))


def select_erasure_ids(connection: Connection) -> set[str]:
    return set(connection.execute(select(erasure.c.erasure_id)).scalars())


def select_tombstones(connection: Connection, erasure_ids: Iterable[str]) -> list[Tombstone]:
    return _tombstones(connection, erasure.c.erasure_id.in_(list(erasure_ids)))


def select_erased_since(connection: Connection, gallery_id: int, identity_hash: str, moment: datetime) -> bool:
    """Whether an identity of that hash was erased from the gallery after a moment."""
    where = and_(
        erasure.c.gallery_id == gallery_id, erasure.c.identity_hash == identity_hash, erasure.c.erased_at > moment
    )
    return connection.execute(select(erasure.c.erasure_id).where(where)).first() is not None


def count_held(connection: Connection, table: Table, number: int, *, until: datetime) -> int:
    """How many rows of this number are older than an erasure: what is younger has the number and is somebody else."""
    where = (table.c.id == number) & (table.c.created_at <= until)
    return connection.execute(select(func.count()).select_from(table).where(where)).scalar_one()


def update_receipt(connection: Connection, erasure_id: str, receipt: str) -> None:
    connection.execute(update(erasure).where(erasure.c.erasure_id == erasure_id).values(receipt=receipt))


def update_purged(connection: Connection, erasure_ids: Iterable[str], *, now: datetime) -> None:
    for part in in_parts(erasure_ids):
        connection.execute(update(erasure).where(erasure.c.erasure_id.in_(part)).values(purged_at=now))


def _tombstones(connection: Connection, where: ColumnElement[bool]) -> list[Tombstone]:
    statement = select(erasure.c.document).where(where).order_by(erasure.c.erased_at)
    return [Tombstone.from_json(document) for document in connection.execute(statement).scalars()]


def _record(row: Row[Any]) -> ErasureRecord:
    purged_at = None if row.purged_at is None else as_utc(row.purged_at)
    return ErasureRecord(Tombstone.from_json(row.document), row.receipt, purged_at)
