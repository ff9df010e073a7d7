"""Everything that the store holds about one person. Each function works inside the caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from facedex.indexer.store import identity_rows, remembered
from facedex.indexer.store.records import HeldChange, HeldPerson, HeldTemplate, as_utc
from facedex.indexer.store.schema import change, model, template
from facedex.indexer.store.sealing import VECTOR, Place

if TYPE_CHECKING:
    from facedex.indexer.store.records import IdentityRecord
    from facedex.indexer.store.sealing import Sealer, Seals


def select_person(connection: Connection, gallery_id: int, record: IdentityRecord, seals: Seals) -> HeldPerson:
    """What is held of an identity; faces whose key is destroyed are there without vector and crop."""
    sealer = seals.among([record.key_id]).get(record.key_id)
    faces = select(template, model.c.name.label("model_name")).join(model)
    rows = connection.execute(faces.where(template.c.identity_id == record.id).order_by(template.c.id)).all()
    return HeldPerson(
        record=record,
        templates=tuple(_held(row, sealer) for row in rows),
        changes=_changes(connection, gallery_id, record.id),
        answers=tuple(remembered.answers_about(connection, gallery_id, record.external_id)),
    )


def _held(row: Any, sealer: Sealer | None) -> HeldTemplate:
    def opened(stored: bytes | None, place: Place) -> bytes | None:
        return None if stored is None or sealer is None else sealer.opened(stored, place)

    vector = opened(row.vector, Place(VECTOR, row.model_digest, row.source_digest))
    crop_place = Place.of_crop(row.crop_model_digest, row.model_digest, row.source_digest)
    return HeldTemplate(
        id=row.id,
        model_name=row.model_name,
        model_digest=row.model_digest,
        quality=row.quality,
        source_digest=row.source_digest,
        created_at=as_utc(row.created_at),
        vector=None if vector is None else identity_rows.decode_vector(vector),
        crop=opened(row.crop, crop_place),
    )


def _changes(connection: Connection, gallery_id: int, identity_id: int) -> tuple[HeldChange, ...]:
    where = (change.c.gallery_id == gallery_id) & (change.c.identity_id == identity_id)
    rows = connection.execute(select(change).where(where).order_by(change.c.seq))
    return tuple(HeldChange(row.seq, row.op, row.template_id, as_utc(row.changed_at)) for row in rows)
