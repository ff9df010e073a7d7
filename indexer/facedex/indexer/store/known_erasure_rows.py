"""Erasures of other installations that this one was told of. Each function works inside the caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, insert, select

from facedex.indexer.store.portable import ErasedRow
from facedex.indexer.store.records import as_utc
from facedex.indexer.store.schema import known_erasure
from facedex.indexer.store.tombstones import ErasureScope

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def insert_known(connection: Connection, erased: Sequence[ErasedRow]) -> int:
    """Remembers erasures, as many as a statement may name; returns how many were not known. They are never forgotten."""
    numbers = [each.number for each in erased]
    there = set(_rows(connection.execute(select(known_erasure).where(known_erasure.c.number.in_(numbers)))))
    new = sorted(set(erased) - there, key=lambda each: each.number)
    if new:
        connection.execute(insert(known_erasure), [_values(each) for each in new])
    return len(new)


def select_known(connection: Connection, store_id: str | None = None) -> Iterator[ErasedRow]:
    """Those of one installation, or all."""
    statement = select(known_erasure).execution_options(yield_per=10_000)
    wanted = statement if store_id is None else statement.where(known_erasure.c.store_id == store_id)
    return _rows(connection.execute(wanted))


def _values(each: ErasedRow) -> dict[str, object]:
    return {"store_id": each.store_id, "scope": each.scope.value, "number": each.number, "born_at": each.born_at}


def _rows(rows: Any) -> Iterator[ErasedRow]:
    return (ErasedRow(row.store_id, ErasureScope(row.scope), row.number, as_utc(row.born_at)) for row in rows)
