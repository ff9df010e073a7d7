"""Erasing in one transaction: the rows go, a tombstone and the changes of the log stay."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, func, select

from facedex.indexer.errors import GalleryOnHold, IdentityOnHold, TemplateNotFound
from facedex.indexer.store import erasure_rows, gallery_rows, remembered
from facedex.indexer.store.change_rows import log_change
from facedex.indexer.store.records import ChangeOp, SealedTemplate, Standing, as_utc
from facedex.indexer.store.schema import gallery as gallery_table
from facedex.indexer.store.schema import identity, template
from facedex.indexer.store.tombstones import ErasureReason, ErasureScope, KeyedHash, Tombstone

if TYPE_CHECKING:
    from collections.abc import Callable

    from facedex.indexer.set_digest import TemplateDigester
    from facedex.indexer.store.records import GalleryRecord


@dataclass(frozen=True, slots=True)
class ErasureTerms:
    """What every erasure of an installation has in common."""

    store_id: str
    keyed_hash: KeyedHash
    digester: Callable[[str], TemplateDigester]
    """Digests of a model's templates."""
    now: datetime
    horizon_at: datetime
    reason: ErasureReason = ErasureReason.REQUESTED


def erase_identity(
    connection: Connection, terms: ErasureTerms, gallery: GalleryRecord, identity_id: int, *, standing: Standing
) -> tuple[Tombstone, Standing]:
    """Erases an identity with its templates, and what answers tell of it. The caller holds the gallery's lock.

    Also returns how the gallery stands afterwards.

    Raises:
        IdentityOnHold: nobody may erase it.

    """
    person = connection.execute(select(identity).where(identity.c.id == identity_id)).one()
    if person.hold_reason:
        raise IdentityOnHold(gallery.name, person.hold_reason)
    return _erase_person(connection, terms, gallery, person, standing=standing)


def erase_template(
    connection: Connection, terms: ErasureTerms, gallery: GalleryRecord, template_id: int, *, standing: Standing
) -> Tombstone:
    """Erases one template; the identity stays. The caller holds the gallery's lock.

    Raises:
        TemplateNotFound: the gallery has no such template.
        IdentityOnHold: nobody may erase it.

    """
    where = (template.c.gallery_id == gallery.id) & (template.c.id == template_id)
    face = connection.execute(select(*_FACE, identity.c.hold_reason).join(identity).where(where)).first()
    if face is None:
        raise TemplateNotFound(gallery.name, template_id)
    if face.hold_reason:
        raise IdentityOnHold(gallery.name, face.hold_reason)
    return _erase_face(connection, terms, gallery, face, standing=standing)


def remove_identity(
    connection: Connection, gallery: GalleryRecord, identity_id: int, *, digester: TemplateDigester, standing: Standing
) -> Standing:
    """Removes an identity with its templates; the caller holds the gallery's lock, and knows where the person went."""
    where = template.c.identity_id == identity_id
    rows = connection.execute(select(template.c.id, template.c.seal).where(where).order_by(template.c.id)).all()
    connection.execute(delete(identity).where(identity.c.id == identity_id))
    # An identity without templates leaves a trace too, so that the revision says that something changed.
    logged = [row.id for row in rows] or [0]
    removed = [SealedTemplate(row.id, row.seal) for row in rows]
    return log_change(
        connection,
        ChangeOp.ERASE,
        logged,
        gallery_id=gallery.id,
        identity_id=identity_id,
        after=standing.minus(removed, digester),
    )


def erase_gallery(connection: Connection, terms: ErasureTerms, gallery: GalleryRecord) -> Tombstone:
    """Erases a gallery with everybody in it, its log and its answers.

    Raises:
        GalleryOnHold: somebody in it may not be erased.

    """
    held = select(func.count()).where(identity.c.gallery_id == gallery.id, identity.c.hold_reason != "")
    count = connection.execute(held).scalar_one()
    if count:
        raise GalleryOnHold(gallery.name, count)
    return _erase_house(connection, terms, gallery)


def replay(connection: Connection, terms: ErasureTerms, gallery: GalleryRecord | None, tombstone: Tombstone) -> bool:
    """Erases again what a restored backup brought back; whether there was anything. Holds do not count.

    What has the number and not the birth of what was erased is somebody else.
    """
    if gallery is None:
        return False
    born = _born(connection, tombstone)
    if born is None or as_utc(born.created_at) != tombstone.born_at:
        return False
    if tombstone.scope is ErasureScope.GALLERY:
        _erase_house(connection, terms, gallery, keep=tombstone)
    elif tombstone.scope is ErasureScope.IDENTITY:
        _erase_person(connection, terms, gallery, born, standing=_standing(connection, gallery), keep=tombstone)
    else:
        _erase_face(connection, terms, gallery, born, standing=_standing(connection, gallery), keep=tombstone)
    return True


def _standing(connection: Connection, gallery: GalleryRecord) -> Standing:
    return gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)


def _born(connection: Connection, tombstone: Tombstone) -> Any:
    if tombstone.scope is ErasureScope.GALLERY:
        statement = select(gallery_table).where(gallery_table.c.id == tombstone.gallery_id)
    elif tombstone.scope is ErasureScope.IDENTITY:
        statement = select(identity).where(
            identity.c.id == tombstone.identity_id, identity.c.gallery_id == tombstone.gallery_id
        )
    else:
        (template_id,) = tombstone.template_ids
        statement = select(*_FACE).where(template.c.id == template_id, template.c.gallery_id == tombstone.gallery_id)
    return connection.execute(statement).first()


_HAS_CROP = template.c.crop.is_not(None).label("has_crop")
_FACE = (
    template.c.id,
    template.c.identity_id,
    template.c.source_digest,
    template.c.seal,
    template.c.created_at,
    _HAS_CROP,
)


def _erase_person(
    connection: Connection,
    terms: ErasureTerms,
    gallery: GalleryRecord,
    person: Any,
    *,
    standing: Standing,
    keep: Tombstone | None = None,
) -> tuple[Tombstone, Standing]:
    statement = select(*_FACE).where(template.c.identity_id == person.id).order_by(template.c.id)
    faces = connection.execute(statement).all()
    remembered.forget_identity(connection, gallery.id, person.external_id, terms.keyed_hash)
    digester = terms.digester(gallery.model.digest)
    standing = remove_identity(connection, gallery, person.id, digester=digester, standing=standing)
    tombstone = _tombstone(
        terms,
        gallery,
        ErasureScope.IDENTITY,
        revision=standing.revision,
        born_at=as_utc(person.created_at),
        identity_id=person.id,
        identity_hash=terms.keyed_hash.of_identity(person.external_id),
        identity_count=1,
        key_ids=(person.key_id,) if person.key_id else (),
        **_of_faces(faces, terms),
    )
    return _kept(connection, keep or tombstone), standing


def _erase_face(
    connection: Connection,
    terms: ErasureTerms,
    gallery: GalleryRecord,
    face: Any,
    *,
    standing: Standing,
    keep: Tombstone | None = None,
) -> Tombstone:
    remembered.forget_templates(connection, gallery.id, [face.id])
    connection.execute(delete(template).where(template.c.id == face.id))
    removed = [SealedTemplate(face.id, face.seal)]
    standing = log_change(
        connection,
        ChangeOp.ERASE,
        [face.id],
        gallery_id=gallery.id,
        identity_id=face.identity_id,
        after=standing.minus(removed, terms.digester(gallery.model.digest)),
    )
    tombstone = _tombstone(
        terms,
        gallery,
        ErasureScope.TEMPLATE,
        revision=standing.revision,
        born_at=as_utc(face.created_at),
        identity_id=face.identity_id,
        **_of_faces([face], terms),
    )
    return _kept(connection, keep or tombstone)


def _erase_house(
    connection: Connection, terms: ErasureTerms, gallery: GalleryRecord, *, keep: Tombstone | None = None
) -> Tombstone:
    crops = select(func.count()).where(template.c.gallery_id == gallery.id, template.c.crop.is_not(None))
    keys = select(identity.c.key_id).where(identity.c.gallery_id == gallery.id, identity.c.key_id != "")
    tombstone = _tombstone(
        terms,
        gallery,
        ErasureScope.GALLERY,
        revision=gallery.revision,
        born_at=gallery.created_at,
        identity_count=gallery.identity_count,
        template_count=gallery.template_count,
        crop_count=connection.execute(crops).scalar_one(),
        key_ids=tuple(connection.execute(keys).scalars()),
    )
    connection.execute(delete(gallery_table).where(gallery_table.c.id == gallery.id))
    return _kept(connection, keep or tombstone)


def _kept(connection: Connection, tombstone: Tombstone) -> Tombstone:
    erasure_rows.insert_tombstone(connection, tombstone)
    return tombstone


def _of_faces(faces: Any, terms: ErasureTerms) -> dict[str, Any]:
    return {
        "template_ids": tuple(face.id for face in faces),
        "source_hashes": tuple(terms.keyed_hash.of_source(face.source_digest) for face in faces),
        "template_count": len(faces),
        "crop_count": sum(bool(face.has_crop) for face in faces),
    }


def _tombstone(
    terms: ErasureTerms,
    gallery: GalleryRecord,
    scope: ErasureScope,
    *,
    revision: int,
    born_at: datetime,
    **counted: Any,
) -> Tombstone:
    return Tombstone(
        erasure_id=secrets.token_hex(16),
        store_id=terms.store_id,
        scope=scope,
        reason=terms.reason,
        gallery=gallery.name,
        gallery_id=gallery.id,
        revision=revision,
        erased_at=terms.now,
        horizon_at=terms.horizon_at,
        born_at=born_at,
        **counted,
    )
