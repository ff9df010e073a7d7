"""The data keys: one random key for each identity, in a database of their own that no backup of the galleries holds."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    insert,
    select,
    update,
)

from facedex.indexer.store.engine import WRITE_OPTION, named_errors, open_with_tables
from facedex.indexer.store.purging import checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection, Engine

metadata = MetaData()
installations = Table("installation", metadata, Column("store_id", String(32), primary_key=True))
data_keys = Table(
    "data_key",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("key_id", String(32), nullable=False, unique=True),
    Column("store_id", String(32), nullable=False),
    # All zero: destroyed.
    Column("key", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    sqlite_autoincrement=True,
)
KEY_BYTES = 32
DESTROYED = bytes(KEY_BYTES)
MAX_PARAMETERS = 10_000


@dataclass(frozen=True, slots=True)
class DataKey:
    """AES-256 key of one identity. Its number names it and says nothing about whose it is."""

    key_id: str
    key: bytes = field(repr=False)


class KeyStore:
    """Keys that are there until they are destroyed, and never come back.

    A key is overwritten in its place and its row stays, so rows only ever follow each other and SQLite never has to
    distribute them over pages anew, which would leave copies (docs/decisions/0303).
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> KeyStore:
        """Raises StoreUnavailable, DatabaseUnsupported."""
        return cls(open_with_tables(url, metadata))

    def close(self) -> None:
        self._engine.dispose()

    def serves(self, store_id: str) -> bool:
        """Whether an installation has used this key store before."""
        with named_errors(), self._engine.connect() as connection:
            where = installations.c.store_id == store_id
            return connection.execute(select(installations).where(where)).first() is not None

    def admit(self, store_id: str) -> None:
        with named_errors(), self._writing() as connection, connection.begin():
            connection.execute(insert(installations).values(store_id=store_id))

    def create(self, store_id: str) -> DataKey:
        """A new key. When it is returned it is on disk."""
        made = DataKey(secrets.token_hex(16), secrets.token_bytes(KEY_BYTES))
        row = {"key_id": made.key_id, "key": made.key, "store_id": store_id, "created_at": datetime.now(UTC)}
        with named_errors(), self._writing() as connection, connection.begin():
            connection.execute(insert(data_keys).values(row))
        return made

    def keys(self, key_ids: Iterable[str]) -> dict[str, bytes]:
        """Those of these keys that are not destroyed."""
        with named_errors(), self._engine.connect() as connection:
            return {
                row.key_id: row.key
                for part in _parts(key_ids)
                for row in connection.execute(select(data_keys).where(data_keys.c.key_id.in_(part)))
                if row.key != DESTROYED
            }

    def living(self, store_id: str) -> dict[str, datetime]:
        """The names of an installation's keys, each with the moment when it was made."""
        where = (data_keys.c.store_id == store_id) & (data_keys.c.key != DESTROYED)
        with named_errors(), self._engine.connect() as connection:
            rows = connection.execute(select(data_keys.c.key_id, data_keys.c.created_at).where(where)).all()
        return {row.key_id: row.created_at.replace(tzinfo=UTC) for row in rows}

    def destroy(self, key_ids: Iterable[str]) -> None:
        """Overwrites keys; when it returns, that is on disk."""
        with named_errors(), self._writing() as connection, connection.begin():
            for part in _parts(key_ids):
                connection.execute(update(data_keys).where(data_keys.c.key_id.in_(part)).values(key=DESTROYED))
        self.cut_log()

    def cut_log(self) -> bool:
        """Empties SQLite's write-ahead log, which holds keys as they were; False where somebody is in the way."""
        return checkpoint(self._engine)

    def _writing(self) -> Connection:
        return self._engine.connect().execution_options(**{WRITE_OPTION: True})


def _parts(key_ids: Iterable[str]) -> Iterator[list[str]]:
    wanted = sorted(set(key_ids))
    for start in range(0, len(wanted), MAX_PARAMETERS):
        yield wanted[start : start + MAX_PARAMETERS]
