"""The witness of the audit: its last head, noted where the database is not."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    Column,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
    update,
)

from facedex.indexer.audit import AuditHead
from facedex.indexer.store.engine import WRITE_OPTION, named_errors, open_with_tables
from facedex.indexer.store.prepared import Prepared

if TYPE_CHECKING:
    from sqlalchemy import Engine

# What a tag is of, so that none can stand for another.
HEAD = "audit"
ANCHOR = "audit anchor"

metadata = MetaData()
heads = Table(
    "audit_witness",
    metadata,
    Column("store_id", String(32), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    # Keyed with a secret of the galleries' database: forging a witness takes both databases.
    Column("tag", LargeBinary, nullable=False),
)
# The last entry that was pruned, in the same form.
anchors = Table(
    "audit_anchor",
    metadata,
    Column("store_id", String(32), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("tag", LargeBinary, nullable=False),
)

# Composed once, since composing it takes as long as doing it.
LATER_HEAD = Prepared(
    update(heads)
    .where(heads.c.store_id == bindparam("of_store"), heads.c.number <= bindparam("new_number"))
    .values(number=bindparam("new_number"), hash=bindparam("new_hash"), tag=bindparam("new_tag"))
)


@dataclass(frozen=True, slots=True)
class Testimony:
    """What was noted, and whether it is genuine."""

    head: AuditHead
    is_genuine: bool


class AuditWitness:
    """Keeps the last head of an audit beside the journal of erasures, so that cutting off the end is seen."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> AuditWitness:
        """Raises StoreUnavailable, DatabaseUnsupported."""
        return cls(open_with_tables(url, metadata))

    def close(self) -> None:
        self._engine.dispose()

    def note(self, store_id: str, head: AuditHead, key: bytes) -> None:
        """Notes a head; when it returns, that is on disk."""
        noted = _noted(store_id, head, key)
        later = {"of_store": store_id, **{f"new_{name}": value for name, value in noted.items()}}
        writing = self._engine.connect().execution_options(**{WRITE_OPTION: True})
        with named_errors(), writing as connection, connection.begin():
            # Two writers of one data folder: the later head stays.
            if LATER_HEAD.execute(connection, [later]).rowcount:
                return
            if connection.execute(select(heads.c.number).where(heads.c.store_id == store_id)).first() is None:
                connection.execute(insert(heads).values(store_id=store_id, **noted))

    def replace(self, store_id: str, head: AuditHead, key: bytes) -> None:
        """Notes a head that lies before the one noted: the database is an older copy, and its audit says so."""
        writing = self._engine.connect().execution_options(**{WRITE_OPTION: True})
        with named_errors(), writing as connection, connection.begin():
            connection.execute(update(heads).where(heads.c.store_id == store_id).values(_noted(store_id, head, key)))

    def note_anchor(self, store_id: str, anchor: AuditHead, key: bytes) -> None:
        """Notes the last entry that is pruned; when it returns, that is on disk."""
        writing = self._engine.connect().execution_options(**{WRITE_OPTION: True})
        with named_errors(), writing as connection, connection.begin():
            connection.execute(delete(anchors).where(anchors.c.store_id == store_id))
            values = _noted(store_id, anchor, key, kind=ANCHOR)
            connection.execute(insert(anchors).values(store_id=store_id, **values))

    def testimony(self, store_id: str, key: bytes) -> Testimony | None:
        """The head that was noted last; None where none was."""
        return self._read(heads, store_id, key, kind=HEAD)

    def anchor(self, store_id: str, key: bytes) -> Testimony | None:
        """The last entry that was pruned; None where none was."""
        return self._read(anchors, store_id, key, kind=ANCHOR)

    def _read(self, table: Table, store_id: str, key: bytes, *, kind: str) -> Testimony | None:
        with named_errors(), self._engine.connect() as connection:
            row = connection.execute(select(table).where(table.c.store_id == store_id)).first()
        if row is None:
            return None
        head = AuditHead.read(row.number, row.hash)
        is_genuine = isinstance(row.tag, bytes) and hmac.compare_digest(row.tag, _tag(store_id, head, key, kind=kind))
        return Testimony(head, is_genuine)


def _noted(store_id: str, head: AuditHead, key: bytes, *, kind: str = HEAD) -> dict[str, int | bytes]:
    return {"number": head.number, "hash": head.hash, "tag": _tag(store_id, head, key, kind=kind)}


def _tag(store_id: str, head: AuditHead, key: bytes, *, kind: str) -> bytes:
    return hmac.digest(key, f"facedex {kind} 1:{store_id}:{head}".encode(), "sha256")
