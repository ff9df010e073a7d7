"""Identities and templates in the store. Each function works inside the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    bindparam,
    func,
    insert,
    or_,
    select,
    update,
)

from facedex.indexer.store.parameters import in_parts
from facedex.indexer.store.records import (
    AttributeFilter,
    IdentityRecord,
    NewTemplate,
    OverdueIdentity,
    SealedTemplate,
    TemplateRecord,
    as_utc,
)
from facedex.indexer.store.schema import gallery, identity, successor_vector, template
from facedex.indexer.store.sealing import VECTOR, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from facedex.indexer.set_digest import TemplateDigester
    from facedex.indexer.store.sealing import Sealer, Seals

VECTOR_DTYPE = np.dtype("<f2")


SEALS = select(template.c.id.label("number"), template.c.seal).where(
    template.c.id.in_(bindparam("numbers", expanding=True)), template.c.model_digest == bindparam("model")
)
SUCCESSOR_SEALS = select(successor_vector.c.template_id.label("number"), successor_vector.c.seal).where(
    successor_vector.c.template_id.in_(bindparam("numbers", expanding=True)),
    successor_vector.c.model_digest == bindparam("model"),
)
# The one read of every answer: composed once, since composing it took longer than the database takes to answer it.
BY_TEMPLATE = (
    select(template.c.id.label("template_id"), identity)
    .join(identity)
    .where(template.c.id.in_(bindparam("template_ids", expanding=True)))
)
SOURCES_AMONG = (
    select(identity.c.external_id, template.c.source_digest, template.c.id)
    .join(identity, identity.c.id == template.c.identity_id)
    .where(
        identity.c.gallery_id == bindparam("gallery"),
        identity.c.external_id.in_(bindparam("names", expanding=True)),
        or_(
            identity.c.expires_at.is_(None), identity.c.expires_at > bindparam("now", type_=identity.c.expires_at.type)
        ),
        template.c.model_digest == bindparam("model"),
    )
)
NEW_IDENTITIES = insert(identity).returning(identity.c.id, sort_by_parameter_order=True)
NEW_TEMPLATES = insert(template).returning(template.c.id, sort_by_parameter_order=True)


def select_identity(connection: Connection, gallery_id: int, external_id: str) -> IdentityRecord | None:
    """One identity with its templates, expired or not."""
    where = (identity.c.gallery_id == gallery_id) & (identity.c.external_id == external_id)
    row = connection.execute(select(identity).where(where)).first()
    return None if row is None else _with_templates(connection, [row])[0]


def select_identities(
    connection: Connection,
    gallery_id: int,
    *,
    after: str,
    limit: int,
    filters: Sequence[AttributeFilter],
    now: datetime,
) -> list[IdentityRecord]:
    """A page of identities by external id that are not expired, with their templates."""
    statement = select(identity).where(identity.c.gallery_id == gallery_id, identity.c.external_id > after)
    statement = statement.where(_is_alive(now), *_conditions(connection, filters))
    statement = statement.order_by(identity.c.external_id).limit(limit)
    return _with_templates(connection, connection.execute(statement).all())


def select_identity_ids(
    connection: Connection, gallery_id: int, filters: Sequence[AttributeFilter], *, now: datetime
) -> list[int]:
    """The numbers of all identities that are not expired and for which every filter holds."""
    statement = select(identity.c.id).where(identity.c.gallery_id == gallery_id, _is_alive(now))
    return list(connection.execute(statement.where(*_conditions(connection, filters))).scalars())


def select_alive_id(connection: Connection, gallery_id: int, external_id: str, *, now: datetime) -> int | None:
    """The number of an identity, unless it is missing or expired."""
    return connection.execute(_id_of(gallery_id, external_id).where(_is_alive(now))).scalar()


def _id_of(gallery_id: int, external_id: str) -> Select[Any]:
    return select(identity.c.id).where(identity.c.gallery_id == gallery_id, identity.c.external_id == external_id)


def select_expired(connection: Connection, *, now: datetime, limit: int) -> list[tuple[str, str]]:
    """Gallery's name and external id of identities that have expired and are not held, the longest ago first."""
    statement = select(gallery.c.name, identity.c.external_id).join(gallery).where(identity.c.expires_at <= now)
    statement = statement.where(identity.c.hold_reason == "")
    rows = connection.execute(statement.order_by(identity.c.expires_at, identity.c.id).limit(limit))
    return [(row.name, row.external_id) for row in rows]


def select_overdue(connection: Connection, *, now: datetime) -> list[OverdueIdentity]:
    """Everybody whose time is over, held or not, the longest ago first."""
    faces = select(func.count()).where(template.c.identity_id == identity.c.id).scalar_subquery().label("faces")
    statement = select(gallery.c.name, identity, faces).join(gallery).where(identity.c.expires_at <= now)
    return [
        OverdueIdentity(row.name, row.external_id, as_utc(row.expires_at), row.faces, row.hold_reason)
        for row in connection.execute(statement.order_by(identity.c.expires_at, identity.c.id))
    ]


def _is_alive(now: datetime) -> ColumnElement[bool]:
    return or_(identity.c.expires_at.is_(None), identity.c.expires_at > now)


def select_ids_of(connection: Connection, gallery_id: int, external_ids: Iterable[str]) -> list[int]:
    """The numbers of those of these identities that are enrolled."""
    where = (identity.c.gallery_id == gallery_id) & identity.c.external_id.in_(list(external_ids))
    return list(connection.execute(select(identity.c.id).where(where)).scalars())


def select_by_template(connection: Connection, template_ids: Iterable[int]) -> dict[int, IdentityRecord]:
    """Template → its identity, without the list of templates. Erased ones are missing."""
    parts = in_parts(template_ids)
    rows = (row for part in parts for row in connection.execute(BY_TEMPLATE, {"template_ids": part}))
    return {row.template_id: _identity(row) for row in rows}


def select_seals(connection: Connection, template_ids: Sequence[int], model_digest: str) -> dict[int, bytes]:
    """Template → the seal on its vector by a model, be it the gallery's or that to which it changes. Erased ones are missing."""
    seals: dict[int, bytes] = {}
    for numbers in in_parts(template_ids):
        wanted = {"numbers": numbers, "model": model_digest}
        found = {row.number: row.seal for row in connection.execute(SEALS, wanted)}
        if len(found) < len(numbers):
            found |= {row.number: row.seal for row in connection.execute(SUCCESSOR_SEALS, wanted)}
        seals |= found
    return seals


def select_sources(connection: Connection, identity_id: int, model_digest: str) -> dict[str, int]:
    """Digest of photograph → template, for one identity."""
    where = (template.c.identity_id == identity_id) & (template.c.model_digest == model_digest)
    rows = connection.execute(select(template.c.source_digest, template.c.id).where(where))
    return {row.source_digest: row.id for row in rows}


def select_sources_among(
    connection: Connection, gallery_id: int, external_ids: Iterable[str], model_digest: str, *, now: datetime
) -> dict[str, dict[str, int]]:
    """Identity → digest of photograph → template; of those who have templates and are not expired."""
    found: dict[str, dict[str, int]] = {}
    wanted = {"gallery": gallery_id, "names": list(external_ids), "model": model_digest, "now": now}
    for row in connection.execute(SOURCES_AMONG, wanted):
        found.setdefault(row.external_id, {})[row.source_digest] = row.id
    return found


def select_vectors(
    connection: Connection, identity_id: int, model_digest: str, seals: Seals
) -> list[NDArray[np.float32]]:
    """The vectors of one identity, in order of enrolment; none where its key is destroyed."""
    key_id = select_key_id(connection, identity_id) if seals.are_used else ""
    sealer = seals.among([key_id]).get(key_id)
    if sealer is None:
        return []
    where = (template.c.identity_id == identity_id) & (template.c.model_digest == model_digest)
    columns = (template.c.vector, template.c.source_digest)
    rows = connection.execute(select(*columns).where(where).order_by(template.c.id)).all()
    return [decode_vector(sealer.opened(row.vector, Place(VECTOR, model_digest, row.source_digest))) for row in rows]


def select_key_id(connection: Connection, identity_id: int) -> str:
    return connection.execute(select(identity.c.key_id).where(identity.c.id == identity_id)).scalar() or ""


def update_identity(connection: Connection, identity_id: int, values: dict[str, Any]) -> None:
    connection.execute(update(identity).where(identity.c.id == identity_id).values(values))


@dataclass(frozen=True, slots=True)
class OwnedTemplate:
    """A template to add, the number of its identity, and what seals the identity's templates."""

    new: NewTemplate
    identity_id: int
    sealer: Sealer


def insert_templates(
    connection: Connection,
    templates: Sequence[OwnedTemplate],
    *,
    gallery_id: int,
    model_digest: str,
    digester: TemplateDigester,
    now: datetime,
) -> list[SealedTemplate]:
    """Adds templates and returns their numbers, in order, with their seals."""
    common: dict[str, Any] = {"gallery_id": gallery_id, "model_digest": model_digest, "created_at": now}
    rows = [{**common, **_template_values(each, model_digest, digester)} for each in templates]
    numbers = connection.execute(NEW_TEMPLATES, rows).scalars()
    return [SealedTemplate(number, row["seal"]) for number, row in zip(numbers, rows, strict=True)]


def _template_values(owned: OwnedTemplate, model_digest: str, digester: TemplateDigester) -> dict[str, Any]:
    new, sealer = owned.new, owned.sealer
    vector = encode_vector(new.vector)
    crop_place = Place.of_crop(None, model_digest, new.source_digest)
    return {
        "identity_id": owned.identity_id,
        "vector": sealer.seal(vector, Place(VECTOR, model_digest, new.source_digest)),
        "quality": new.quality,
        "source_digest": new.source_digest,
        "crop": None if new.crop is None else sealer.seal(new.crop, crop_place),
        "seal": digester.seal(owned.identity_id, vector),
    }


def copy_templates(
    connection: Connection, identity_id: int, to_identity_id: int, *, digester: TemplateDigester, seals: Seals
) -> list[SealedTemplate]:
    """Copies an identity's templates to another one, less the photographs that it has; returns the copies.

    Raises:
        DataKeyMissing, SealBroken: what is encrypted cannot be read.

    """
    known = {_photograph(row) for row in _template_rows(connection, to_identity_id)}
    rows = [row for row in _template_rows(connection, identity_id) if _photograph(row) not in known]
    if not rows:
        return []
    old, new = (seals.of(select_key_id(connection, each)) for each in (identity_id, to_identity_id))
    values = [_copied(row, to_identity_id, digester, old, new) for row in rows]
    numbers = connection.execute(NEW_TEMPLATES, values).scalars()
    return [SealedTemplate(number, row["seal"]) for number, row in zip(numbers, values, strict=True)]


def _copied(
    row: dict[str, Any], identity_id: int, digester: TemplateDigester, old: Sealer, new: Sealer
) -> dict[str, Any]:
    """The row as another identity has it, under that one's key."""
    vector_place = Place(VECTOR, row["model_digest"], row["source_digest"])
    crop_place = Place.of_crop(row["crop_model_digest"], row["model_digest"], row["source_digest"])
    vector = old.opened(row["vector"], vector_place)
    crop = None if row["crop"] is None else new.seal(old.opened(row["crop"], crop_place), crop_place)
    seal = digester.seal(identity_id, vector)
    return {**row, "identity_id": identity_id, "vector": new.seal(vector, vector_place), "crop": crop, "seal": seal}


def _template_rows(connection: Connection, identity_id: int) -> list[dict[str, Any]]:
    columns = [column for column in template.c if column is not template.c.id]
    statement = select(*columns).where(template.c.identity_id == identity_id).order_by(template.c.id)
    return [dict(row) for row in connection.execute(statement).mappings()]


def _photograph(row: dict[str, Any]) -> tuple[str, str]:
    return row["model_digest"], row["source_digest"]


def encode_vector(vector: NDArray[np.float32]) -> bytes:
    """Half precision: it changes no result of a search (docs/decisions/0003)."""
    return vector.astype(VECTOR_DTYPE).tobytes()


def decode_vector(blob: bytes) -> NDArray[np.float32]:
    """The inverse of `encode_vector`."""
    return np.frombuffer(blob, VECTOR_DTYPE).astype(np.float32)


def _conditions(connection: Connection, filters: Sequence[AttributeFilter]) -> list[Any]:
    return [_condition(connection, each) for each in filters]


def _condition(connection: Connection, each: AttributeFilter) -> Any:
    values = sorted(each.values)
    if connection.dialect.name != "sqlite":
        return identity.c.attributes[each.key].as_string().in_(values)
    # SQLite's paths cannot quote every key, so the pairs are looked through.
    pairs = func.json_each(identity.c.attributes).table_valued("key", "value")
    return select(pairs.c.key).where(pairs.c.key == each.key, pairs.c.value.in_(values)).exists()


def _with_templates(connection: Connection, rows: Sequence[Row[Any]]) -> list[IdentityRecord]:
    templates: dict[int, list[TemplateRecord]] = {row.id: [] for row in rows}
    columns = (template.c.id, template.c.identity_id, template.c.quality, template.c.created_at)
    statement = select(*columns).where(template.c.identity_id.in_(templates)).order_by(template.c.id)
    for found in connection.execute(statement):
        templates[found.identity_id].append(TemplateRecord(found.id, found.quality, as_utc(found.created_at)))
    return [_identity(row, tuple(templates[row.id])) for row in rows]


def _identity(row: Row[Any], templates: tuple[TemplateRecord, ...] = ()) -> IdentityRecord:
    return IdentityRecord(
        id=row.id,
        external_id=row.external_id,
        display_name=row.display_name,
        attributes=row.attributes,
        consent_reference=row.consent_reference,
        expires_at=None if row.expires_at is None else as_utc(row.expires_at),
        created_at=as_utc(row.created_at),
        purpose=row.purpose,
        hold_reason=row.hold_reason,
        key_id=row.key_id,
        templates=templates,
    )
