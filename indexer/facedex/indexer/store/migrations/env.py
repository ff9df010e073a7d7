"""Alembic runs this. The connection comes from `facedex.indexer.store.migrate`, which owns the transaction."""

from __future__ import annotations

from alembic import context

from facedex.indexer.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
