"""The audit in the store. Each function works inside the caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from facedex.indexer.audit import AuditEntry, AuditEvent, AuditHead, chained
from facedex.indexer.store.records import as_utc
from facedex.indexer.store.schema import audit, audit_head

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Select

# The one row of the table that keeps the head.
HEAD = audit_head.c.id == 1
# Composed once, since composing them takes as long as doing them.
LOCKED_HEAD = select(audit_head).where(HEAD).with_for_update()
NEW_HEAD = update(audit_head).where(HEAD).values(number=bindparam("last_number"), hash=bindparam("last_hash"))
NEW_ENTRIES = insert(audit)


def append(connection: Connection, events: Sequence[AuditEvent]) -> AuditHead:
    """Numbers events after those that there are, whoever wrote them, and returns the new head."""
    head = locked_head(connection)
    entries = chained(events, head)
    if not entries:
        return head
    connection.execute(NEW_ENTRIES, [_row(each) for each in entries])
    last = entries[-1]
    connection.execute(NEW_HEAD, {"last_number": last.number, "last_hash": last.hash})
    return AuditHead(last.number, last.hash)


def locked_head(connection: Connection) -> AuditHead:
    """The head, while no other transaction can append."""
    row = connection.execute(LOCKED_HEAD).one()
    return AuditHead(row.number, row.hash)


def select_head(connection: Connection) -> AuditHead:
    row = connection.execute(select(audit_head).where(HEAD)).one()
    return AuditHead(row.number, row.hash)


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
    return [_entry(row) for row in connection.execute(query)]


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
    event = AuditEvent(
        at=as_utc(row.at),
        key_id=row.key_id,
        action=row.action,
        gallery=row.gallery,
        outcome=row.outcome,
        threshold=row.threshold,
        revision=row.revision,
    )
    return AuditEntry(row.number, event, row.hash)
