"""Removing what SQLite leaves of deleted rows: in its write-ahead log, and now and then in a page's free space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from facedex.indexer.errors import StoreUnavailable
from facedex.indexer.store.engine import BUSY_TIMEOUT_SECONDS, named_errors

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import Engine

from contextlib import contextmanager

# While it waits for readers, a checkpoint lets no writer in: short, and tried again later.
PATIENCE_SECONDS = 0.5
DEAD_ROWS = ("identity", "template", "successor_vector", "request", "gallery", "change")


def is_sqlite(engine: Engine) -> bool:
    return engine.dialect.name == "sqlite"


def checkpoint(engine: Engine) -> bool:
    """Moves the write-ahead log into the database and cuts it to nothing; False where a reader or writer is in the way."""
    if not is_sqlite(engine):
        return True
    with _alone(engine) as connection:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy


def vacuum(engine: Engine) -> None:
    """Writes the database anew, so that no page has free space that once held a row.

    `secure_delete` overwrites what is deleted, and not the copies that SQLite leaves in a page's free space when it
    distributes rows over pages anew: one name in a thousand, measured (docs/decisions/0303). Searches go on meanwhile,
    changes wait. PostgreSQL only marks dead rows as free; see docs/erasure.md.
    """
    with _alone(engine) as connection:
        if is_sqlite(engine):
            connection.execute("VACUUM")
        else:
            connection.execute(f"VACUUM {', '.join(DEAD_ROWS)}")


@contextmanager
def _alone(engine: Engine) -> Generator[Any]:
    """The driver's own connection, outside any transaction, which does not wait long for others.

    Raises StoreUnavailable inside the block too, where others are in the way.
    """
    with named_errors(), engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        library: Any = engine.dialect.dbapi
        if not is_sqlite(engine):
            driver.commit()
            driver.autocommit = True
        try:
            _set_patience(engine, driver, PATIENCE_SECONDS)
            yield driver
        except library.Error as error:  # the driver's own, which SQLAlchemy has not seen
            raise StoreUnavailable(str(error).partition("\n")[0]) from None
        finally:
            _set_patience(engine, driver, BUSY_TIMEOUT_SECONDS)
            if not is_sqlite(engine):
                driver.autocommit = False


def _set_patience(engine: Engine, driver: Any, seconds: float) -> None:
    if is_sqlite(engine):
        driver.execute(f"PRAGMA busy_timeout={int(1000 * seconds)}")
