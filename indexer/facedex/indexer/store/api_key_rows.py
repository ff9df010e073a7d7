"""API keys in the store. Each function works inside the caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from facedex.indexer.api_key import ApiKey, KeyTerms, Role
from facedex.indexer.store.records import as_utc
from facedex.indexer.store.schema import api_key, api_key_use

if TYPE_CHECKING:
    from datetime import date, datetime

    from facedex.indexer.api_key import KeyText


def insert_key(connection: Connection, text: KeyText, terms: KeyTerms, *, now: datetime) -> None:
    values = {
        "key_id": text.key_id,
        "secret_digest": text.digest,
        "label": terms.label,
        "roles": sorted(role.value for role in terms.roles),
        "galleries": None if terms.galleries is None else sorted(terms.galleries),
        "calls_per_second": terms.calls_per_second,
        "calls_per_day": terms.calls_per_day,
        "expires_at": terms.expires_at,
        "created_at": now,
    }
    connection.execute(insert(api_key).values(values))


def select_keys(connection: Connection) -> list[ApiKey]:
    """All keys that ever were, the newest first."""
    rows = connection.execute(select(api_key).order_by(api_key.c.created_at.desc(), api_key.c.key_id))
    return [_record(row) for row in rows]


def select_key(connection: Connection, key_id: str) -> ApiKey | None:
    row = connection.execute(select(api_key).where(api_key.c.key_id == key_id)).first()
    return None if row is None else _record(row)


def revoke_key(connection: Connection, key_id: str, *, now: datetime) -> ApiKey | None:
    """Notes when the key was revoked first, and returns it; None where there is none of that id."""
    living = (api_key.c.key_id == key_id) & api_key.c.revoked_at.is_(None)
    connection.execute(update(api_key).where(living).values(revoked_at=now))
    return select_key(connection, key_id)


def add_calls(connection: Connection, key_id: str, day: date, calls: int) -> int:
    """Adds to what a key has called on a day, and returns the sum, to which other servers add too."""
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    new = make(api_key_use).values(key_id=key_id, day=day, calls=calls)
    more = {"calls": api_key_use.c.calls + new.excluded.calls}
    added = new.on_conflict_do_update(index_elements=["key_id", "day"], set_=more).returning(api_key_use.c.calls)
    return int(connection.execute(added).scalar_one())


def select_calls(connection: Connection, day: date) -> dict[str, int]:
    """What each key has called on a day, as far as servers have noted it."""
    rows = connection.execute(select(api_key_use.c.key_id, api_key_use.c.calls).where(api_key_use.c.day == day))
    return {row.key_id: row.calls for row in rows}


def _record(row: Row[Any]) -> ApiKey:
    terms = KeyTerms(
        label=row.label,
        roles=frozenset(Role(each) for each in row.roles),
        galleries=None if row.galleries is None else frozenset(row.galleries),
        calls_per_second=row.calls_per_second,
        calls_per_day=row.calls_per_day,
        expires_at=None if row.expires_at is None else as_utc(row.expires_at),
    )
    revoked_at = None if row.revoked_at is None else as_utc(row.revoked_at)
    return ApiKey(row.key_id, terms, as_utc(row.created_at), revoked_at, row.secret_digest)
