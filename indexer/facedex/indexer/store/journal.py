"""The erasure journal: tombstones outside the database, so that a restored backup of it brings nobody back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import JSON, Column, Index, MetaData, String, Table, insert, select

from facedex.indexer.store.engine import WRITE_OPTION, named_errors, open_with_tables
from facedex.indexer.store.parameters import in_parts
from facedex.indexer.store.tombstones import Tombstone

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Engine

metadata = MetaData()
tombstones = Table(
    "tombstone",
    metadata,
    Column("erasure_id", String(32), primary_key=True),
    Column("store_id", String(32), nullable=False),
    Column("document", JSON, nullable=False),
    Index("ix_tombstone_store_id", "store_id"),
)
PER_READ = 10_000


class Journal:
    """Erasures, kept where no backup of the database reaches. What was noted here is on disk, and is never changed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> Journal:
        """Raises StoreUnavailable, DatabaseUnsupported."""
        return cls(open_with_tables(url, metadata))

    def close(self) -> None:
        self._engine.dispose()

    def note(self, erased: Iterable[Tombstone]) -> None:
        """Notes erasures; those that are noted already stay as they are."""
        new = list(erased)
        options = {WRITE_OPTION: True}
        with named_errors(), self._engine.connect().execution_options(**options) as connection, connection.begin():
            known = _known(connection, [each.erasure_id for each in new])
            rows = [_row(each) for each in new if each.erasure_id not in known]
            if rows:
                connection.execute(insert(tombstones), rows)

    def erasure_ids(self) -> set[str]:
        with named_errors(), self._engine.connect() as connection:
            return set(connection.execute(select(tombstones.c.erasure_id)).scalars())

    def tombstones(self, erasure_ids: Iterable[str]) -> list[Tombstone]:
        """In the order in which they were erased."""
        found: list[Tombstone] = []
        with named_errors(), self._engine.connect() as connection:
            for part in in_parts(erasure_ids):
                wanted = select(tombstones.c.document).where(tombstones.c.erasure_id.in_(part))
                found += [Tombstone.from_json(each) for each in connection.execute(wanted).scalars()]
        return sorted(found, key=lambda each: (each.erased_at, each.revision))


def _known(connection: Connection, erasure_ids: list[str]) -> set[str]:
    known: set[str] = set()
    for part in in_parts(erasure_ids):
        where = tombstones.c.erasure_id.in_(part)
        known.update(connection.execute(select(tombstones.c.erasure_id).where(where)).scalars())
    return known


def _row(each: Tombstone) -> dict[str, object]:
    return {"erasure_id": each.erasure_id, "store_id": each.store_id, "document": each.to_json()}
