"""The audit in the store. Each function works inside the caller's transaction."""

from __future__ import annotations

import math
from contextlib import contextmanager, nullcontext
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, literal_column, select, type_coerce, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.types import NullType

from facedex.indexer.audit import NOTHING_PRUNED, RESTORED, UNREADABLE, AuditEntry, AuditEvent, AuditHead, chained
from facedex.indexer.store.prepared import Prepared
from facedex.indexer.store.records import as_utc
from facedex.indexer.store.schema import audit, audit_head

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from sqlalchemy import Select

# The row of the table that keeps the head, and the one that keeps the last entry that was pruned.
HEAD = audit_head.c.id == literal_column("1")
ANCHOR = audit_head.c.id == 2
# What reading an entry raises where a value is none that was ever written.
WRONG_VALUES = (TypeError, ValueError)
# Composed once, since composing them takes as long as doing them.
LOCKED_HEAD = select(audit_head).where(HEAD).with_for_update()
NEW_HEAD = update(audit_head).where(HEAD).values(number=bindparam("last_number"), hash=bindparam("last_hash"))
MOVED_HEAD = Prepared(
    NEW_HEAD.where(audit_head.c.number == bindparam("known_number"), audit_head.c.hash == bindparam("known_hash"))
)
NEW_ENTRIES = Prepared(insert(audit))


def append(connection: Connection, events: Sequence[AuditEvent], *, known: AuditHead = NOTHING_PRUNED) -> AuditHead:
    """Numbers events after those that there are, whoever wrote them, and returns the new head.

    `known` is what the head was when it was seen last; where that is what it is, it need not be read.
    """
    if not events:
        return locked_head(connection)
    entries = chained(events, known)
    if not _is_moved(connection, known, entries[-1]):
        entries = chained(events, locked_head(connection))
        connection.execute(NEW_HEAD, _last(entries[-1]))
    NEW_ENTRIES.execute(connection, [_row(each) for each in entries])
    return AuditHead(entries[-1].number, entries[-1].hash)


def _is_moved(connection: Connection, known: AuditHead, last: AuditEntry) -> bool:
    """Sets the head, unless it is another one by now: asked by the statement that sets it, so nobody comes in between."""
    seen = {"known_number": known.number, "known_hash": known.hash}
    return MOVED_HEAD.execute(connection, [{**seen, **_last(last)}]).rowcount == 1


def _last(entry: AuditEntry) -> dict[str, object]:
    return {"last_number": entry.number, "last_hash": entry.hash}


def locked_head(connection: Connection) -> AuditHead:
    """The head, while no other transaction can append."""
    row = connection.execute(LOCKED_HEAD).one()
    return AuditHead(row.number, row.hash)


def select_head(connection: Connection) -> AuditHead:
    row = connection.execute(select(audit_head).where(HEAD)).one()
    return AuditHead.read(row.number, row.hash)


def select_anchor(connection: Connection) -> AuditHead:
    """The last entry that was pruned."""
    row = connection.execute(select(audit_head).where(ANCHOR)).first()
    return NOTHING_PRUNED if row is None else AuditHead.read(row.number, row.hash)


def last_before(connection: Connection, moment: datetime, *, newest: int, at_most: int) -> AuditHead | None:
    """The last of the oldest entries, so many, up to the `newest`, that are all older than a moment; None where none is."""
    oldest = select(func.min(audit.c.number)).scalar_subquery()
    younger = select(func.min(audit.c.number)).where(audit.c.at >= moment).scalar_subquery()
    due = select(audit.c.number, audit.c.hash).where(
        audit.c.at < moment, audit.c.number < oldest + at_most, audit.c.number <= newest
    )
    due = due.where(audit.c.number < func.coalesce(younger, audit.c.number + 1))
    row = connection.execute(due.order_by(audit.c.number.desc()).limit(1)).first()
    return None if row is None else AuditHead(row.number, row.hash)


def delete_up_to(connection: Connection, anchor: AuditHead) -> list[AuditEvent]:
    """Takes out the oldest entries, and returns those of them that tell of a restored backup."""
    up_to = audit.c.number <= anchor.number
    restored = _entries(connection, select(audit).where(up_to, audit.c.action == RESTORED).order_by(audit.c.number))
    connection.execute(delete(audit).where(up_to))
    connection.execute(delete(audit_head).where(ANCHOR))
    connection.execute(insert(audit_head).values(id=2, number=anchor.number, hash=anchor.hash))
    return [each.event for each in restored]


def select_hash(connection: Connection, number: int) -> bytes | None:
    return connection.execute(select(audit.c.hash).where(audit.c.number == number)).scalar()


def select_entries(connection: Connection, *, after: int, limit: int) -> list[AuditEntry]:
    """Entries in order of their numbers."""
    return _entries(connection, select(audit).where(audit.c.number > after).order_by(audit.c.number).limit(limit))


def select_newest(
    connection: Connection,
    *,
    limit: int,
    key_id: str | None = None,
    gallery: str | None = None,
    action: str | None = None,
    since: datetime | None = None,
) -> list[AuditEntry]:
    """The newest entries, the newest first; with these values where they are given."""
    query = select(audit).order_by(audit.c.number.desc()).limit(limit)
    for column, wanted in ((audit.c.key_id, key_id), (audit.c.gallery, gallery), (audit.c.action, action)):
        query = query if wanted is None else query.where(column == wanted)
    return _entries(connection, query if since is None else query.where(audit.c.at >= since))


def _entries(connection: Connection, query: Select[Any]) -> list[AuditEntry]:
    # Somebody may have put in what was never written: SQLite takes anything, and hands out no text that is no UTF-8.
    is_sqlite = connection.dialect.name == "sqlite"
    rubbish = (*WRONG_VALUES, OperationalError) if is_sqlite else WRONG_VALUES
    try:
        return [_entry(row) for row in connection.execute(query)]
    except rubbish:
        as_they_are = [type_coerce(each, NullType()).label(each.name) for each in audit.c]
        untyped: Any = query.with_only_columns(*as_they_are)
        with _any_text(connection) if is_sqlite else nullcontext():
            return [_entry_at_best(row) for row in connection.execute(untyped)]


@contextmanager
def _any_text(connection: Connection) -> Generator[None]:
    """SQLite hands out what is no UTF-8 too, as a text that was never written."""
    driver: Any = connection.connection.driver_connection
    driver.text_factory = partial(str, encoding="utf-8", errors="backslashreplace")
    try:
        yield
    finally:
        driver.text_factory = str


def _row(entry: AuditEntry) -> dict[str, object]:
    event = entry.event
    return {
        "number": entry.number,
        "at": event.at,
        "key_id": event.key_id,
        "action": event.action,
        "gallery": event.gallery,
        "outcome": event.outcome,
        "threshold": event.threshold,
        "revision": event.revision,
        "hash": entry.hash,
    }


def _entry(row: Row[Any]) -> AuditEntry:
    """Raises TypeError, ValueError where a value is none that was ever written."""
    if not _is_sound(row):
        raise TypeError
    event = AuditEvent(
        at=as_utc(row.at if isinstance(row.at, datetime) else datetime.fromisoformat(row.at)),
        key_id=row.key_id,
        action=row.action,
        gallery=row.gallery,
        outcome=row.outcome,
        threshold=row.threshold,
        revision=row.revision,
    )
    return AuditEntry(row.number, event, row.hash)


def _is_sound(row: Row[Any]) -> bool:
    """Whether each value but the moment is of its column's type."""
    are_texts = all(isinstance(each, str) for each in (row.key_id, row.action, row.gallery, row.outcome))
    is_cosine = row.threshold is None or (isinstance(row.threshold, float) and math.isfinite(row.threshold))
    return are_texts and is_cosine and isinstance(row.revision, int | None) and isinstance(row.hash, bytes)


def _entry_at_best(row: Row[Any]) -> AuditEntry:
    """UNREADABLE where a value is none that was ever written."""
    try:
        return _entry(row)
    except WRONG_VALUES:
        return AuditEntry(row.number, UNREADABLE, row.hash if isinstance(row.hash, bytes) else b"")
