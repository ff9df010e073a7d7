"""The data keys: one random key for each identity, in a database of their own that no backup of the galleries holds.

Beside them, a key for each snapshot, what a rotation replaced, and the transforms of vectors.
"""

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
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from facedex.indexer.store import transform_rows
from facedex.indexer.store.engine import WRITE_OPTION, named_errors, open_with_tables
from facedex.indexer.store.parameters import in_parts
from facedex.indexer.store.prepared import Prepared
from facedex.indexer.store.purging import checkpoint
from facedex.indexer.store.transform_rows import KeyPlace, TransformRecord, metadata, transformed_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import ColumnElement, Connection, Engine

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
# Keys that a rotation replaces, noted before anything is encrypted with their successors.
replacements = Table(
    "replacement",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("replaced_by", String(32), nullable=False, index=True),
)
# One key for each snapshot. A destroyed one's row is used again, for there is a new snapshot every few minutes.
snapshot_keys = Table(
    "snapshot_key",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("key_id", String(32), nullable=False, unique=True),
    Column("store_id", String(32), nullable=False),
    # That of the snapshot whose place it takes; empty: of none.
    Column("replaces", String(32), nullable=False),
    Column("key", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
KEY_BYTES = 32
DESTROYED = bytes(KEY_BYTES)
# Composed once, since composing it takes as long as doing it.
KEYS = (
    select(data_keys.c.key_id, data_keys.c.key, transformed_keys.c.transform_id)
    .join(transformed_keys, transformed_keys.c.key_id == data_keys.c.key_id, isouter=True)
    .where(data_keys.c.key_id.in_(bindparam("names", expanding=True)))
)
NEW_KEYS = Prepared(
    insert(data_keys).values({each: bindparam(each) for each in ("key_id", "key", "store_id", "created_at")})
)


@dataclass(frozen=True, slots=True)
class DataKey:
    """AES-256 key of one identity. Its number names it and says nothing about whose it is."""

    key_id: str
    key: bytes = field(repr=False)
    # The transform of the vectors under it; empty: they are stored as they are.
    transform_id: str = ""


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

    def create_all(self, place: KeyPlace, *, count: int) -> list[DataKey]:
        """So many new keys. When they are returned they are on disk."""
        with named_errors(), self._writing() as connection, connection.begin():
            return _insert_keys(connection, place, count)

    def replace(self, place: KeyPlace, key_ids: Sequence[str]) -> dict[str, DataKey]:
        """Old key → the new key that is to take its place. When they are returned they are on disk.

        The old ones stay until `retire`, or until the new ones are destroyed.
        """
        with named_errors(), self._writing() as connection, connection.begin():
            made = dict(zip(key_ids, _insert_keys(connection, place, len(key_ids)), strict=True))
            for part in _parts(key_ids):
                # Of an attempt that died before anything was encrypted anew.
                connection.execute(delete(replacements).where(replacements.c.key_id.in_(part)))
            rows = [{"key_id": old, "replaced_by": new.key_id} for old, new in made.items()]
            if rows:
                connection.execute(insert(replacements), rows)
        return made

    def newest_number(self) -> int:
        """The number of the newest key; 0: there never was one."""
        with named_errors(), self._engine.connect() as connection:
            return connection.execute(select(func.max(data_keys.c.number))).scalar() or 0

    def made_until(self, number: int, key_ids: Iterable[str]) -> set[str]:
        """Those of these keys that are as old as the key of this number, or older, and are not destroyed."""
        with named_errors(), self._engine.connect() as connection:
            return {
                row.key_id
                for part in _parts(key_ids)
                for row in connection.execute(select(data_keys).where(data_keys.c.key_id.in_(part)))
                if row.number <= number and row.key != DESTROYED
            }

    def replaced(self, store_id: str) -> set[str]:
        """The keys of an installation that a rotation replaced, or meant to, and that are not destroyed."""
        with named_errors(), self._engine.connect() as connection:
            noted = set(connection.execute(select(replacements.c.key_id)).scalars())
        return noted & set(self.living(store_id))

    def keys(self, key_ids: Iterable[str]) -> dict[str, DataKey]:
        """Those of these keys that are not destroyed."""
        with named_errors(), self._engine.connect() as connection:
            return {
                row.key_id: DataKey(row.key_id, row.key, row.transform_id or "")
                for part in _parts(key_ids)
                for row in connection.execute(KEYS, {"names": part})
                if row.key != DESTROYED
            }

    def living(self, store_id: str) -> dict[str, datetime]:
        """The names of an installation's keys, each with the moment when it was made."""
        where = (data_keys.c.store_id == store_id) & (data_keys.c.key != DESTROYED)
        with named_errors(), self._engine.connect() as connection:
            rows = connection.execute(select(data_keys.c.key_id, data_keys.c.created_at).where(where)).all()
        return {row.key_id: row.created_at.replace(tzinfo=UTC) for row in rows}

    def are_noted(self, key_ids: Iterable[str]) -> bool:
        """Whether a rotation replaced any of these keys, or meant to."""
        with named_errors(), self._engine.connect() as connection:
            return any(
                connection.execute(select(replacements).where(replacements.c.key_id.in_(part)).limit(1)).first()
                for part in _parts(key_ids)
            )

    def destroy(self, key_ids: Iterable[str]) -> None:
        """Overwrites keys, and those in whose place they came; when it returns, that is on disk."""
        with named_errors(), self._writing() as connection, connection.begin():
            wanted = set(key_ids)
            while wanted:
                _overwrite(connection, wanted)
                wanted = _predecessors(connection, wanted)
        self.cut_log()

    def discard(self, key_ids: Iterable[str]) -> None:
        """Overwrites these keys and no others; when it returns, that is on disk."""
        with named_errors(), self._writing() as connection, connection.begin():
            _overwrite(connection, key_ids)
        self.cut_log()

    # Transforms of vectors

    def add_transform(self, place: KeyPlace, record: TransformRecord) -> None:
        """New keys of the gallery are bound to this transform from now on."""
        with named_errors(), self._writing() as connection, connection.begin():
            transform_rows.insert_transform(connection, place, record)

    def transforms(self, store_id: str) -> list[TransformRecord]:
        """An installation's transforms that are not destroyed, in the order in which they were made."""
        with named_errors(), self._engine.connect() as connection:
            return transform_rows.select_living(connection, store_id)

    def transform(self, transform_id: str) -> TransformRecord | None:
        """None where it is destroyed."""
        with named_errors(), self._engine.connect() as connection:
            return transform_rows.select_transform(connection, transform_id)

    def retire_transforms(self, store_id: str) -> int:
        """Destroys transforms that were replaced and that no key is bound to; returns how many."""
        with named_errors(), self._writing() as connection, connection.begin():
            bound = select(transformed_keys.c.transform_id).join(
                data_keys, data_keys.c.key_id == transformed_keys.c.key_id
            )
            needed = set(connection.execute(bound.where(data_keys.c.key != DESTROYED).distinct()).scalars())
            destroyed = transform_rows.destroy_replaced(connection, store_id, needed)
        self.cut_log()
        return destroyed

    # Keys of snapshots

    def create_for_snapshot(self, store_id: str, *, replaces: str) -> DataKey:
        """A new key for a snapshot, which will take the place of the one with the key `replaces`."""
        made = _new_key()
        values = {"key_id": made.key_id, "store_id": store_id, "replaces": replaces, "key": made.key}
        with named_errors(), self._writing() as connection, connection.begin():
            free = select(func.min(snapshot_keys.c.number)).where(snapshot_keys.c.key == DESTROYED)
            number = connection.execute(free).scalar()
            # Asked again, since another process may have been faster.
            is_free = (snapshot_keys.c.number == number) & (snapshot_keys.c.key == DESTROYED)
            if number is None or not connection.execute(update(snapshot_keys).where(is_free).values(values)).rowcount:
                connection.execute(insert(snapshot_keys).values(values))
        return made

    def snapshot_key(self, key_id: str) -> bytes | None:
        """The key of a snapshot; None where it is destroyed, or was never here."""
        with named_errors(), self._engine.connect() as connection:
            key = connection.execute(select(snapshot_keys.c.key).where(snapshot_keys.c.key_id == key_id)).scalar()
        return None if key in {None, DESTROYED} else key

    def settle_snapshot(self, key_id: str) -> None:
        """A snapshot is in its place: the key of the one before it is destroyed, if it is not yet."""
        replaced = select(snapshot_keys.c.replaces).where(snapshot_keys.c.key_id == key_id)
        with named_errors(), self._engine.connect() as connection:
            old = connection.execute(replaced).scalar() or ""
        if old and self.snapshot_key(old) is not None:
            self._destroy_snapshot_keys(snapshot_keys.c.key_id == old)

    def forget_snapshot(self, key_id: str) -> None:
        """Destroys the key of a snapshot that is deleted."""
        if self.snapshot_key(key_id) is not None:
            self._destroy_snapshot_keys(snapshot_keys.c.key_id == key_id)

    def forget_snapshots(self, store_id: str) -> None:
        """Destroys the keys of all of an installation's snapshots: each is built anew when it is needed."""
        self._destroy_snapshot_keys(snapshot_keys.c.store_id == store_id)

    def _destroy_snapshot_keys(self, which: ColumnElement[bool]) -> None:
        with named_errors(), self._writing() as connection, connection.begin():
            connection.execute(update(snapshot_keys).where(which).values(key=DESTROYED))
        self.cut_log()

    def cut_log(self) -> bool:
        """Empties SQLite's write-ahead log, which holds keys as they were; False where somebody is in the way."""
        return checkpoint(self._engine)

    def _writing(self) -> Connection:
        return self._engine.connect().execution_options(**{WRITE_OPTION: True})


def _new_key(transform_id: str = "") -> DataKey:
    return DataKey(secrets.token_hex(16), secrets.token_bytes(KEY_BYTES), transform_id)


def _insert_keys(connection: Connection, place: KeyPlace, count: int) -> list[DataKey]:
    transform_id = transform_rows.select_current(connection, place)
    made = [_new_key(transform_id) for _ in range(count)]
    now = datetime.now(UTC)
    rows = [{"key_id": each.key_id, "key": each.key, "store_id": place.store_id, "created_at": now} for each in made]
    if rows:
        NEW_KEYS.execute(connection, rows)
    if rows and transform_id:
        transform_rows.bind(connection, transform_id, [each.key_id for each in made])
    return made


def _overwrite(connection: Connection, key_ids: Iterable[str]) -> None:
    for part in _parts(key_ids):
        connection.execute(update(data_keys).where(data_keys.c.key_id.in_(part)).values(key=DESTROYED))


def _predecessors(connection: Connection, key_ids: Iterable[str]) -> set[str]:
    """Keys in whose place these came, and that are not destroyed."""
    noted = select(replacements.c.key_id).join(data_keys, data_keys.c.key_id == replacements.c.key_id)
    noted = noted.where(data_keys.c.key != DESTROYED)
    return {
        key_id
        for part in _parts(key_ids)
        for key_id in connection.execute(noted.where(replacements.c.replaced_by.in_(part))).scalars()
    }


def _parts(key_ids: Iterable[str]) -> Iterator[list[str]]:
    return in_parts(sorted(set(key_ids)))
