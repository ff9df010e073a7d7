"""Brings a database to this version's schema with Alembic."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from facedex.indexer.errors import DatabaseTooNew

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Any number that no other program uses: two servers that start together upgrade one after the other.
POSTGRESQL_LOCK = 0x_FACE_DE


def upgrade(connection: Connection) -> None:
    """Applies the migrations that are missing, inside the caller's transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": POSTGRESQL_LOCK})
    applied = MigrationContext.configure(connection).get_current_revision()
    newest, *older = _known_revisions()
    if applied is not None and applied not in {newest, *older}:
        raise DatabaseTooNew
    if applied != newest:
        command.upgrade(_config(connection), "head")


@lru_cache(maxsize=1)
def _known_revisions() -> tuple[str, ...]:
    """Those that this version brings along, the newest first."""
    return tuple(each.revision for each in ScriptDirectory(_scripts()).walk_revisions())


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", _scripts())
    config.attributes["connection"] = connection
    return config


def _scripts() -> str:
    return str(resources.files("facedex.indexer.store.migrations"))
