"""Word of changes between processes over one PostgreSQL, so that nobody has to ask the database over and over.

An announcement is no promise: one may get lost when its sender dies between commit and word. So whoever listens also looks
into the log at intervals. SQLite has no such word, and its readers look at intervals alone.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from facedex.indexer.errors import StoreUnavailable
from facedex.indexer.store.engine import named_errors

if TYPE_CHECKING:
    from threading import Event

    from sqlalchemy import Connection, Engine

_CHANNEL: Final = "facedex_change"
_CHANGED: Final = "facedex_changed"
_LONGEST_SLEEP_SECONDS: Final = 0.25
"""Whoever waits looks that often whether it shall stop."""


def mark_changed(connection: Connection) -> None:
    """Says, inside a transaction, that the change log has grown."""
    connection.info[_CHANGED] = True


class Announcements:
    """What this process says to the others over the same database, and hears from them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sender = secrets.token_hex(8)

    def announce(self, connection: Connection) -> None:
        """After a commit: tells the others, if the transaction has changed a gallery.

        Not inside of it, because PostgreSQL lets transactions that announce something commit one after the other only. Where
        the word cannot be said, nothing is raised: the change is on disk, and the others find it at their next look.
        """
        has_changed = connection.info.pop(_CHANGED, False)
        if has_changed and connection.dialect.name == "postgresql":
            words = {"channel": _CHANNEL, "sender": self._sender}
            with suppress(SQLAlchemyError), connection.begin():
                connection.execute(text("SELECT pg_notify(:channel, :sender)"), words)

    def listener(self) -> Listener:
        """What another thread waits on."""
        return Listener(self._engine, self._sender)


class Listener:
    """Waits for the word of others; for one thread. It holds a connection of its own to PostgreSQL."""

    def __init__(self, engine: Engine, own_name: str) -> None:
        self._engine = engine
        self._own_name = own_name
        self._connection: Connection | None = None

    def wait(self, seconds: float, stopping: Event) -> None:
        """Returns when another process has changed something, after so many seconds, or soon after `stopping` is set.

        Raises:
            StoreUnavailable: the database does not answer; the time has not been waited for.

        """
        if self._engine.dialect.name != "postgresql":
            stopping.wait(seconds)
            return
        dialect: Any = self._engine.dialect
        try:
            with named_errors():
                self._hear(seconds, stopping)
        except StoreUnavailable:
            self.close()
            raise
        except dialect.dbapi.Error as error:  # the driver's own, which SQLAlchemy has not seen
            self.close()
            raise StoreUnavailable(type(error).__name__) from None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def _hear(self, seconds: float, stopping: Event) -> None:
        driver = self._listening()
        until = time.monotonic() + seconds
        while not stopping.is_set() and (left := until - time.monotonic()) > 0:
            # All that has been said is taken at once: a thousand changes are one reason to look.
            heard = list(driver.notifies(timeout=min(left, _LONGEST_SLEEP_SECONDS), stop_after=1))
            if any(each.payload != self._own_name for each in heard):
                return

    def _listening(self) -> Any:
        """The driver's connection: SQLAlchemy has no word for this."""
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._connection.execute(text(f"LISTEN {_CHANNEL}"))
        return self._connection.connection.driver_connection
