"""A gallery's change of model in the store. Each function works inside the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from facedex.indexer.errors import SuccessionExists
from facedex.indexer.store.identity_rows import decode_vector, encode_vector
from facedex.indexer.store.model_rows import model_of
from facedex.indexer.store.parameters import in_parts
from facedex.indexer.store.records import SealedTemplate, Succession, as_utc
from facedex.indexer.store.schema import identity, model, succession, successor_vector, template
from facedex.indexer.store.sealing import CROP, VECTOR, Place

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

    from facedex.indexer.set_digest import TemplateDigester
    from facedex.indexer.store.sealing import Sealer, Seals

CROP_OF = (template.c.crop, func.coalesce(template.c.crop_model_digest, template.c.model_digest).label("crop_model"))
HAS_SUCCESSOR = select(successor_vector.c.template_id).where(successor_vector.c.template_id == template.c.id).exists()


@dataclass(frozen=True, slots=True)
class OldTemplate:
    """A template that has no vector of the new model.

    `crop` is a PNG, aligned as the model with the digest `crop_model` wants it; None where none was kept.
    """

    id: int
    source_digest: str
    crop_model: str
    crop: bytes | None


@dataclass(frozen=True, slots=True)
class SuccessionCounts:
    """How many have a vector of the new model."""

    templates: int
    embedded_templates: int
    identities: int
    embedded_identities: int


def select_succession(connection: Connection, gallery_id: int) -> Succession | None:
    statement = select(succession, model).join(model).where(succession.c.gallery_id == gallery_id)
    row = connection.execute(statement).first()
    return None if row is None else _record(row)


def _record(row: Row[Any]) -> Succession:
    columns = row._mapping  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  (SQLAlchemy's public name for it)
    return Succession(
        model=model_of(row),
        is_in_force=columns[succession.c.is_in_force],
        scale=columns[succession.c.scale],
        certificate_digest=columns[succession.c.certificate_digest],
        certificate=columns[succession.c.certificate],
        comparisons=columns[succession.c.comparisons],
        created_at=as_utc(columns[succession.c.created_at]),
    )


def insert_succession(connection: Connection, gallery_id: int, model_digest: str, *, now: datetime) -> None:
    """Raises SuccessionExists."""
    values = {"gallery_id": gallery_id, "model_digest": model_digest, "created_at": now}
    empty = {"is_in_force": False, "certificate_digest": "", "comparisons": {}}
    try:
        connection.execute(insert(succession).values(**values, **empty))
    except IntegrityError:
        raise SuccessionExists from None


def update_succession(connection: Connection, gallery_id: int, values: dict[str, Any]) -> None:
    connection.execute(update(succession).where(succession.c.gallery_id == gallery_id).values(values))


def delete_succession(connection: Connection, gallery_id: int) -> None:
    """With every vector of the new model that is still beside an old one."""
    own = select(template.c.id).where(template.c.gallery_id == gallery_id)
    connection.execute(delete(successor_vector).where(successor_vector.c.template_id.in_(own)))
    connection.execute(delete(succession).where(succession.c.gallery_id == gallery_id))


# Vectors of the new model


def select_old(connection: Connection, gallery_id: int, *, after: int, limit: int, seals: Seals) -> list[OldTemplate]:
    """Templates without a vector of the new model, in order of their numbers; crops whose keys are destroyed are left out."""
    columns = (*CROP_OF, template.c.id, template.c.source_digest, identity.c.key_id)
    statement = select(*columns).join(identity, identity.c.id == template.c.identity_id)
    where = (template.c.gallery_id == gallery_id) & (template.c.id > after) & ~HAS_SUCCESSOR
    rows = connection.execute(statement.where(where).order_by(template.c.id).limit(limit)).all()
    sealers = seals.among(row.key_id for row in rows)
    return [OldTemplate(row.id, row.source_digest, row.crop_model, _crop(row, sealers.get(row.key_id))) for row in rows]


def _crop(row: Any, sealer: Sealer | None) -> bytes | None:
    if row.crop is None or sealer is None:
        return None
    return sealer.opened(row.crop, Place(CROP, row.crop_model, row.source_digest))


def insert_successors(
    connection: Connection,
    vectors: dict[int, NDArray[np.float32]],
    *,
    digester: TemplateDigester,
    digest: str,
    seals: Seals,
) -> list[tuple[int, int]]:
    """Template → its vector (dimension,) by the new model. Returns template and identity of those that were added.

    Templates that are erased, have such a vector, or whose key is destroyed are passed over.
    """
    columns = (template.c.id, template.c.identity_id, template.c.source_digest, identity.c.key_id)
    statement = select(*columns).join(identity, identity.c.id == template.c.identity_id)
    where = template.c.id.in_(list(vectors)) & ~HAS_SUCCESSOR
    rows = connection.execute(statement.where(where).order_by(template.c.id)).all()
    sealers = seals.among(row.key_id for row in rows)
    rows = [row for row in rows if row.key_id in sealers]
    values = [_successor(row, vectors[row.id], digester, digest, sealers[row.key_id]) for row in rows]
    if values:
        connection.execute(insert(successor_vector), values)
    return [(row.id, row.identity_id) for row in rows]


def _successor(
    row: Any, vector: NDArray[np.float32], digester: TemplateDigester, digest: str, sealer: Sealer
) -> dict[str, Any]:
    encoded = encode_vector(vector)
    return {
        "template_id": row.id,
        "model_digest": digest,
        "vector": sealer.seal(encoded, Place(VECTOR, digest, row.source_digest)),
        "seal": digester.seal(row.identity_id, encoded),
    }


def count(connection: Connection, gallery_id: int) -> SuccessionCounts:
    own = template.c.gallery_id == gallery_id
    people = func.count(template.c.identity_id.distinct())
    both = template.join(successor_vector, successor_vector.c.template_id == template.c.id)
    templates, identities = connection.execute(select(func.count(), people).where(own)).one()
    embedded = connection.execute(select(func.count(), people).select_from(both).where(own)).one()
    return SuccessionCounts(templates, embedded[0], identities, embedded[1])


def select_left_behind(connection: Connection, gallery_id: int, *, after: str, limit: int) -> list[str]:
    """Ids of identities none of whose templates has a vector of the new model, in order."""
    embedded = _of_identity(identity.c.id).join(successor_vector, successor_vector.c.template_id == template.c.id)
    where = (identity.c.gallery_id == gallery_id) & (identity.c.external_id > after)
    statement = select(identity.c.external_id).where(where, ~embedded.exists(), _of_identity(identity.c.id).exists())
    return list(connection.execute(statement.order_by(identity.c.external_id).limit(limit)).scalars())


def _of_identity(number: ColumnElement[int]) -> Select[Any]:
    return select(template.c.id).where(template.c.identity_id == number).correlate(identity)


def select_templates_of(connection: Connection, identity_ids: Iterable[int]) -> dict[int, list[int]]:
    """Identity → its templates."""
    templates: dict[int, list[int]] = {}
    for part in in_parts(sorted(identity_ids)):
        statement = select(template.c.identity_id, template.c.id).where(template.c.identity_id.in_(part))
        for row in connection.execute(statement):
            templates.setdefault(row.identity_id, []).append(row.id)
    return templates


def select_embedded(connection: Connection, identity_ids: Iterable[int]) -> set[int]:
    """Those of these identities who have a vector of the new model."""
    both = template.join(successor_vector, successor_vector.c.template_id == template.c.id)
    found: set[int] = set()
    for part in in_parts(sorted(identity_ids)):
        statement = select(template.c.identity_id).select_from(both).where(template.c.identity_id.in_(part)).distinct()
        found.update(connection.execute(statement).scalars())
    return found


def select_successors_of(
    connection: Connection, identity_id: int, *, digest: str, seals: Seals, key_id: str
) -> dict[str, NDArray[np.float32]]:
    """Photograph → vector (dimension,) by the new model, of one identity; none where its key is destroyed."""
    columns = (template.c.source_digest.label("name"), template.c.source_digest, successor_vector.c.vector)
    statement = select(*columns).join(successor_vector, successor_vector.c.template_id == template.c.id)
    return _opened(connection, statement, identity_id, digest, seals.among([key_id]).get(key_id))


def select_old_faces(
    connection: Connection, identity_id: int, *, digest: str, seals: Seals, key_id: str
) -> dict[int, NDArray[np.float32]]:
    """Template → its vector (dimension,) by the old model, of one identity; none where its key is destroyed."""
    columns = (template.c.id.label("name"), template.c.source_digest, template.c.vector)
    return _opened(connection, select(*columns), identity_id, digest, seals.among([key_id]).get(key_id))


def _opened(
    connection: Connection, statement: Select[*tuple[Any, ...]], identity_id: int, digest: str, sealer: Sealer | None
) -> dict[Any, NDArray[np.float32]]:
    if sealer is None:
        return {}
    rows = connection.execute(statement.where(template.c.identity_id == identity_id).order_by(template.c.id))
    return {
        row.name: decode_vector(sealer.opened(row.vector, Place(VECTOR, digest, row.source_digest))) for row in rows
    }


# The end


def move_in(connection: Connection, gallery_id: int, digest: str) -> list[SealedTemplate]:
    """Puts every vector of the new model in the place of the old one, and returns the seals of all templates."""
    connection.execute(
        update(template)
        .where(template.c.gallery_id == gallery_id, HAS_SUCCESSOR)
        .values(
            vector=select(successor_vector.c.vector)
            .where(successor_vector.c.template_id == template.c.id)
            .scalar_subquery(),
            seal=select(successor_vector.c.seal)
            .where(successor_vector.c.template_id == template.c.id)
            .scalar_subquery(),
            # A crop stays as the old model wanted it, and says so.
            crop_model_digest=func.coalesce(template.c.crop_model_digest, template.c.model_digest),
            model_digest=digest,
        )
    )
    rows = connection.execute(select(template.c.id, template.c.seal).where(template.c.gallery_id == gallery_id))
    return [SealedTemplate(row.id, row.seal) for row in rows]
