"""Transforms of vectors in the key store. Each function works inside the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    func,
    insert,
    select,
    update,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy import Connection

# All tables of the key store.
metadata = MetaData()
transforms = Table(
    "transform",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("transform_id", String(32), nullable=False, unique=True),
    Column("store_id", String(32), nullable=False),
    Column("gallery_id", BigInteger, nullable=False),
    # Empty: from here on, vectors of the gallery are stored as they are. All zero: destroyed.
    Column("seed", LargeBinary, nullable=False),
    Column("proof", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    sqlite_autoincrement=True,
)
# Keys under which vectors are transformed.
transformed_keys = Table(
    "transformed_key",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("transform_id", String(32), nullable=False, index=True),
)
SEED_BYTES = 32
DESTROYED = bytes(SEED_BYTES)


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """What a data key is for: an installation, and one of its galleries by number."""

    store_id: str
    gallery_id: int


@dataclass(frozen=True, slots=True)
class TransformRecord:
    """A transform without the secret that it needs. `proof` tells whether a secret is the right one.

    An empty seed says that the gallery's vectors are not transformed any more.
    """

    transform_id: str
    gallery_id: int
    seed: bytes = field(repr=False)
    proof: bytes = field(repr=False)
    created_at: datetime

    @property
    def is_none(self) -> bool:
        return not self.seed


def insert_transform(connection: Connection, place: KeyPlace, record: TransformRecord) -> None:
    values = {"transform_id": record.transform_id, "seed": record.seed, "proof": record.proof}
    own = {"store_id": place.store_id, "gallery_id": place.gallery_id, "created_at": record.created_at}
    connection.execute(insert(transforms).values(values | own))


# Composed once, since composing it takes as long as doing it.
NEWEST = (
    select(transforms.c.transform_id, transforms.c.seed)
    .where(transforms.c.store_id == bindparam("of_store"), transforms.c.gallery_id == bindparam("of_gallery"))
    .order_by(transforms.c.number.desc())
    .limit(1)
)


def select_current(connection: Connection, place: KeyPlace) -> str:
    """The transform to which new keys are bound; empty: none."""
    row = connection.execute(NEWEST, {"of_store": place.store_id, "of_gallery": place.gallery_id}).first()
    return "" if row is None or not row.seed else row.transform_id


def bind(connection: Connection, transform_id: str, key_ids: Iterable[str]) -> None:
    connection.execute(insert(transformed_keys), [{"key_id": each, "transform_id": transform_id} for each in key_ids])


def select_living(connection: Connection, store_id: str) -> list[TransformRecord]:
    where = (transforms.c.store_id == store_id) & (transforms.c.seed != DESTROYED)
    return [_record(row) for row in connection.execute(select(transforms).where(where).order_by(transforms.c.number))]


def select_transform(connection: Connection, transform_id: str) -> TransformRecord | None:
    """None where it is destroyed, or was never here."""
    where = (transforms.c.transform_id == transform_id) & (transforms.c.seed != DESTROYED)
    row = connection.execute(select(transforms).where(where)).first()
    return None if row is None else _record(row)


def destroy_replaced(connection: Connection, store_id: str, needed: Collection[str]) -> int:
    """Overwrites all but each gallery's newest one and those that are needed; returns how many."""
    own = transforms.c.store_id == store_id
    each_gallery = select(func.max(transforms.c.number)).where(own).group_by(transforms.c.gallery_id)
    newest = set(connection.execute(each_gallery).scalars())
    where = own & (transforms.c.seed != DESTROYED)
    rows = connection.execute(select(transforms.c.number, transforms.c.transform_id, transforms.c.seed).where(where))
    unneeded = [row.number for row in rows if row.number not in newest and row.seed and row.transform_id not in needed]
    for number in unneeded:
        connection.execute(update(transforms).where(transforms.c.number == number).values(seed=DESTROYED))
    return len(unneeded)


def _record(row: Any) -> TransformRecord:
    return TransformRecord(row.transform_id, row.gallery_id, row.seed, row.proof, row.created_at.replace(tzinfo=UTC))
