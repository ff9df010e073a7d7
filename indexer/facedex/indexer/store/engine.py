"""A database connection with the durability that invariant 1 promises."""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from facedex.indexer.errors import DatabaseUnsupported, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from sqlalchemy import Connection, MetaData

# How long a writer waits for another process's transaction before it gives up.
BUSY_TIMEOUT_SECONDS = 30.0
CONNECT_TIMEOUT_SECONDS = 10
SQLITE_CONNECTIONS = 64
WRITE_OPTION = "facedex_write"


@contextmanager
def named_errors() -> Generator[None]:
    """The driver's errors as StoreUnavailable."""
    try:
        yield
    except DBAPIError as error:
        # Only the driver's own words: a statement's parameters never leave this place.
        raise StoreUnavailable(str(error.orig).splitlines()[0] if error.orig else type(error).__name__) from None
    except SQLAlchemyError as error:
        raise StoreUnavailable(type(error).__name__) from None


def sqlite_url(path: Path) -> str:
    """The address of a SQLite file, whatever characters its path holds."""
    return make_url("sqlite+pysqlite://").set(database=str(path)).render_as_string(hide_password=False)


def open_engine(url: str) -> Engine:
    """Connects lazily to SQLite or PostgreSQL. Parameters stay out of error messages: they hold biometric data."""
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(url)
    return _open_postgresql(parsed)


def open_with_tables(url: str, metadata: MetaData) -> Engine:
    """Connects to a database of few tables beside the galleries', and makes those that are missing.

    Raises:
        StoreUnavailable, DatabaseUnsupported.

    """
    with named_errors():
        engine = open_engine(url)
        metadata.create_all(engine, checkfirst=True)
    return engine


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise DatabaseUnsupported("it is no address") from None
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise DatabaseUnsupported(f"{parsed.get_backend_name()} is not supported")
    return parsed


def _open_postgresql(url: URL) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    try:
        engine = create_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=20,
            max_overflow=40,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_SECONDS},
        )
    except ImportError:
        raise DatabaseUnsupported("its driver is not installed: pip install 'facedex[postgres]'") from None
    event.listen(engine, "connect", _set_session)
    return engine


def _open_sqlite(url: str) -> Engine:
    engine = create_engine(
        url,
        hide_parameters=True,
        # Kept open: opening one costs more than a read.
        pool_size=SQLITE_CONNECTIONS,
        max_overflow=0,
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
    )
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return engine


def _set_pragmas(connection: Any, _record: object) -> None:
    # The driver must not open transactions by itself: `_begin` does, with the right lock.
    connection.isolation_level = None
    _write_ahead(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _write_ahead(connection: Any) -> None:
    # Only the first process on a new file has to switch, and there SQLite does not wait for another one that does.
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin(connection: Connection) -> None:
    # A writer that starts as a reader fails when another writer was faster; taking the lock first waits instead.
    writes = connection.get_execution_options().get(WRITE_OPTION, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _set_session(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = on")
        cursor.execute(f"SET lock_timeout = '{BUSY_TIMEOUT_SECONDS:.0f}s'")
    connection.commit()
