"""Encrypting what an installation held before it had data keys, one identity after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, bindparam, func, select, update

from facedex.indexer.store.schema import identity, successor_vector, template
from facedex.indexer.store.sealing import VECTOR, Place

if TYPE_CHECKING:
    from facedex.indexer.store.sealing import Sealer

UPDATE = update(template).where(template.c.id == bindparam("number"))
UPDATE_SUCCESSOR = update(successor_vector).where(successor_vector.c.template_id == bindparam("number"))


def count_open(connection: Connection) -> int:
    """How many identities are not encrypted."""
    return connection.execute(select(func.count()).where(identity.c.key_id == "")).scalar_one()


def select_open(connection: Connection, *, after: int, limit: int) -> list[tuple[int, int]]:
    """Number and gallery of identities that are not encrypted, in order."""
    statement = select(identity.c.id, identity.c.gallery_id).where(identity.c.key_id == "", identity.c.id > after)
    return [(row.id, row.gallery_id) for row in connection.execute(statement.order_by(identity.c.id).limit(limit))]


def select_key_ids(connection: Connection) -> set[str]:
    """The names of all keys that are in use."""
    return set(connection.execute(select(identity.c.key_id).where(identity.c.key_id != "")).scalars())


def seal_identity(connection: Connection, identity_id: int, key_id: str, sealer: Sealer) -> bool:
    """Encrypts all of an identity's faces; False where it is gone or encrypted. The caller holds the gallery's lock."""
    is_open = (identity.c.id == identity_id) & (identity.c.key_id == "")
    if connection.execute(update(identity).where(is_open).values(key_id=key_id)).rowcount == 0:
        return False
    faces = connection.execute(select(template).where(template.c.identity_id == identity_id)).all()
    if faces:
        connection.execute(
            UPDATE.values(vector=bindparam("sealed_vector"), crop=bindparam("sealed_crop")),
            [_sealed(face, sealer) for face in faces],
        )
    _seal_successors(connection, identity_id, sealer)
    return True


def _seal_successors(connection: Connection, identity_id: int, sealer: Sealer) -> None:
    columns = (successor_vector, template.c.source_digest)
    statement = select(*columns).join(template).where(template.c.identity_id == identity_id)
    rows = [
        {"number": each.template_id, "sealed_vector": sealer.seal(each.vector, _place(each))}
        for each in connection.execute(statement)
    ]
    if rows:
        connection.execute(UPDATE_SUCCESSOR.values(vector=bindparam("sealed_vector")), rows)


def _sealed(face: Any, sealer: Sealer) -> dict[str, Any]:
    crop_place = Place.of_crop(face.crop_model_digest, face.model_digest, face.source_digest)
    crop = None if face.crop is None else sealer.seal(face.crop, crop_place)
    return {
        "number": face.id,
        "sealed_vector": sealer.seal(face.vector, _place(face)),
        "sealed_crop": crop,
    }


def _place(face: Any) -> Place:
    return Place(VECTOR, face.model_digest, face.source_digest)
