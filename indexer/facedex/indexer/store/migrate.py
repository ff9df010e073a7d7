"""Brings a database to this version's schema with Alembic, which is imported only where there is something to do."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text

from facedex.indexer.errors import DatabaseTooNew

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

# Any number that no other program uses: two servers that start together upgrade one after the other.
POSTGRESQL_LOCK = 0x_FACE_DE
MIGRATIONS = "facedex.indexer.store.migrations"


def upgrade(connection: Connection) -> None:
    """Applies the migrations that are missing, inside the caller's transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": POSTGRESQL_LOCK})
    applied = _applied(connection)
    if applied is not None and applied not in known_revisions():
        raise DatabaseTooNew
    if applied != known_revisions()[-1]:
        _upgrade(connection)


@lru_cache(maxsize=1)
def known_revisions() -> tuple[str, ...]:
    """Those that this version brings along, the newest last: each is the first word of its file's name."""
    files = (resources.files(MIGRATIONS) / "versions").iterdir()
    return tuple(sorted(each.name.partition("_")[0] for each in files if each.name[0].isdigit()))


def _applied(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415  (a tenth of a command's start)

    command.upgrade(_config(connection), "head")


def _config(connection: Connection) -> Config:
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(resources.files(MIGRATIONS)))
    config.attributes["connection"] = connection
    return config
