"""Models in the store. Each function works inside the caller's transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, insert, select

from facedex.indexer.store.records import ModelRecord
from facedex.indexer.store.schema import model


def insert_model_once(connection: Connection, record: ModelRecord) -> None:
    known = connection.execute(select(model.c.digest).where(model.c.digest == record.digest)).first()
    if known is None:
        connection.execute(
            insert(model).values(
                digest=record.digest,
                name=record.name,
                dimension=record.dimension,
                licence=record.licence,
                default_threshold=record.default_threshold,
                threshold_basis=record.threshold_basis,
            )
        )


def model_of(row: Row[Any]) -> ModelRecord:
    """The model that a row was joined with."""
    columns = row._mapping  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  (SQLAlchemy's public name for it)
    return ModelRecord(
        digest=columns[model.c.digest],
        name=columns[model.c.name],
        dimension=columns[model.c.dimension],
        licence=columns[model.c.licence],
        default_threshold=columns[model.c.default_threshold],
        threshold_basis=columns[model.c.threshold_basis],
    )
