"""Putting an identity's faces under another key: its first one, or in place of an older one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select, update

from facedex.indexer.store.parameters import in_parts
from facedex.indexer.store.schema import identity, successor_vector, template
from facedex.indexer.store.sealing import VECTOR, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


def select_key_ids(connection: Connection, gallery_id: int | None = None) -> set[str]:
    """The names of all keys that are in use, everywhere or in one gallery."""
    return set(connection.execute(select(identity.c.key_id).where(_is_encrypted(gallery_id))).scalars())


def count_encrypted(connection: Connection, gallery_id: int | None = None) -> int:
    """How many identities are encrypted, everywhere or in one gallery."""
    return connection.execute(select(func.count()).where(_is_encrypted(gallery_id))).scalar_one()


def _is_encrypted(gallery_id: int | None) -> ColumnElement[bool]:
    is_encrypted = identity.c.key_id != ""
    return is_encrypted if gallery_id is None else is_encrypted & (identity.c.gallery_id == gallery_id)


def select_encrypted(
    connection: Connection, gallery_id: int | None = None, *, after: int, limit: int
) -> list[tuple[int, int, str]]:
    """Number, gallery and key of identities that are encrypted, everywhere or in one gallery, in order."""
    statement = select(identity.c.id, identity.c.gallery_id, identity.c.key_id)
    statement = statement.where(_is_encrypted(gallery_id), identity.c.id > after).order_by(identity.c.id).limit(limit)
    return [(row.id, row.gallery_id, row.key_id) for row in connection.execute(statement)]


def select_named(connection: Connection, key_ids: Iterable[str]) -> set[str]:
    """Those of these keys that an identity has."""
    named = select(identity.c.key_id)
    return {
        key_id
        for part in in_parts(sorted(key_ids))
        for key_id in connection.execute(named.where(identity.c.key_id.in_(part))).scalars()
    }


@dataclass(frozen=True, slots=True)
class SealedRows:
    """How much is under data keys: vectors with those of the model that a gallery changes to."""

    identities: int
    vectors: int
    crops: int


def count_sealed(connection: Connection, key_ids: Iterable[str] | None = None) -> SealedRows:
    """How much is under these keys; None: under any."""
    if key_ids is None:
        return _counted(connection, identity.c.key_id != "")
    parts = list(in_parts(sorted(key_ids)))
    counts = [_counted(connection, identity.c.key_id.in_(part)) for part in parts]
    return SealedRows(
        sum(each.identities for each in counts),
        sum(each.vectors for each in counts),
        sum(each.crops for each in counts),
    )


def _counted(connection: Connection, which: ColumnElement[bool]) -> SealedRows:
    def count(of: Select[Any]) -> int:
        return int(connection.execute(of.where(which)).scalar_one())

    faces = template.join(identity, identity.c.id == template.c.identity_id)
    successors = faces.join(successor_vector, successor_vector.c.template_id == template.c.id)
    return SealedRows(
        identities=count(select(func.count()).select_from(identity)),
        vectors=count(select(func.count()).select_from(faces)) + count(select(func.count()).select_from(successors)),
        crops=count(select(func.count(template.c.crop)).select_from(faces)),
    )


@dataclass(frozen=True, slots=True)
class KeyedSealer:
    """A sealer and the name of its key; empty: it leaves everything open."""

    key_id: str
    sealer: Sealer


def reseal_identity(connection: Connection, identity_id: int, *, old: KeyedSealer, new: KeyedSealer) -> bool:
    """Puts all of an identity's faces under another key. The caller holds the gallery's lock.

    False where the identity is gone, or is not under the old key any more.

    Raises:
        SealBroken: something of it is damaged; then nothing was changed.

    """
    is_old = (identity.c.id == identity_id) & (identity.c.key_id == old.key_id)
    if connection.execute(select(identity.c.id).where(is_old)).first() is None:
        return False
    faces = connection.execute(select(template).where(template.c.identity_id == identity_id)).all()
    rows = [_resealed(face, old.sealer, new.sealer) for face in faces]
    successors = [_resealed_successor(each, old.sealer, new.sealer) for each in _successors(connection, identity_id)]
    connection.execute(update(identity).where(is_old).values(key_id=new.key_id))
    if rows:
        update_faces = UPDATE.values(vector=bindparam("sealed_vector"), crop=bindparam("sealed_crop"))
        connection.execute(update_faces, rows)
    if successors:
        connection.execute(UPDATE_SUCCESSOR.values(vector=bindparam("sealed_vector")), successors)
    return True


def _successors(connection: Connection, identity_id: int) -> Sequence[Any]:
    statement = select(successor_vector, template.c.source_digest).join(template)
    return connection.execute(statement.where(template.c.identity_id == identity_id)).all()


def _resealed_successor(row: Any, old: Sealer, new: Sealer) -> dict[str, Any]:
    return {"number": row.template_id, "sealed_vector": _moved(row.vector, _place(row), old, new)}


def _resealed(face: Any, old: Sealer, new: Sealer) -> dict[str, Any]:
    crop_place = Place.of_crop(face.crop_model_digest, face.model_digest, face.source_digest)
    return {
        "number": face.id,
        "sealed_vector": _moved(face.vector, _place(face), old, new),
        "sealed_crop": None if face.crop is None else _moved(face.crop, crop_place, old, new),
    }


def _moved(stored: bytes, place: Place, old: Sealer, new: Sealer) -> bytes:
    return new.seal(old.opened(stored, place), place)


def _place(face: Any) -> Place:
    return Place(VECTOR, face.model_digest, face.source_digest)
