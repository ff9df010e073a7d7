"""How far the collections of a vector engine are filled. Each function works inside the caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from facedex.indexer.store.schema import delivery

if TYPE_CHECKING:
    from sqlalchemy import Connection


def select_revision(connection: Connection, gallery_id: int, collection: str) -> int:
    """Every change until this one is in the collection; 0 where nothing is known of it."""
    own = (delivery.c.gallery_id == gallery_id) & (delivery.c.collection == collection)
    return connection.execute(select(delivery.c.revision).where(own)).scalar() or 0


def put_revision(connection: Connection, gallery_id: int, collection: str, revision: int) -> None:
    """The caller holds the gallery's lock. It never goes back."""
    own = (delivery.c.gallery_id == gallery_id) & (delivery.c.collection == collection)
    known = connection.execute(select(delivery.c.revision).where(own)).scalar()
    if known is None:
        values = {"gallery_id": gallery_id, "collection": collection, "revision": revision}
        connection.execute(insert(delivery).values(values))
    elif known < revision:
        connection.execute(update(delivery).where(own).values(revision=revision))
