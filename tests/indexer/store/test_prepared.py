"""Prepared statements do what SQLAlchemy's own way does, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from facedex.indexer.store.engine import named_errors, open_with_tables
from facedex.indexer.store.prepared import Prepared
from facedex.indexer.store.schema import audit, metadata

NEW = Prepared(insert(audit))
ODD = '100 % of "it\'s" – Zoë \U0001f600 :name ? %(name)s'


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    engine = open_with_tables(database_url, metadata)
    with named_errors(), engine.connect() as connection, connection.begin() as transaction:
        yield connection
        if transaction.is_active:
            transaction.rollback()
    engine.dispose()


def entry(number: int) -> dict[str, object]:
    """With something of each type, and what is odd or missing in every other one."""
    is_odd = number % 2 == 1
    elsewhere = timezone(timedelta(hours=5, minutes=45))
    return {
        "number": number,
        "at": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=elsewhere if is_odd else UTC),
        "key_id": "",
        "action": "Identify",
        "gallery": ODD if is_odd else "staff",
        "outcome": "OK",
        "threshold": None if is_odd else 0.1 + 0.2,
        "revision": None if is_odd else 2**62,
        "hash": bytes(range(256)),
    }


@pytest.mark.parametrize("count", [1, 2, 50])
def test_rows_are_stored_as_by_sqlalchemy(connection: Connection, count: int) -> None:
    ours, its = [entry(number) for number in range(count)], [entry(number) for number in range(100, 100 + count)]
    NEW.execute(connection, ours)
    connection.execute(insert(audit), its)
    stored = [tuple(row) for row in connection.execute(select(audit).order_by(audit.c.number))]
    assert [row[1:] for row in stored[:count]] == [row[1:] for row in stored[count:]]
    assert [row[0] for row in stored] == [each["number"] for each in ours + its]


def test_an_update_tells_how_many_rows_it_changed(connection: Connection) -> None:
    NEW.execute(connection, [entry(number) for number in range(3)])
    renamed = Prepared(
        update(audit).where(audit.c.number >= bindparam("least")).values({"outcome": bindparam("new_outcome")})
    )
    assert renamed.execute(connection, [{"new_outcome": "NEW", "least": 1}]).rowcount == 2
    assert renamed.execute(connection, [{"new_outcome": "NEW", "least": 7}]).rowcount == 0
    assert [row.outcome for row in connection.execute(select(audit).order_by(audit.c.number))] == ["OK", "NEW", "NEW"]


def test_a_row_without_a_value_is_an_error_and_not_a_null(connection: Connection) -> None:
    row = entry(1)
    del row["threshold"]
    with pytest.raises(KeyError, match="threshold"):
        NEW.execute(connection, [row])


def test_what_the_database_refuses_is_raised(connection: Connection) -> None:
    with pytest.raises(SQLAlchemyError):
        NEW.execute(connection, [entry(1), entry(1)])
