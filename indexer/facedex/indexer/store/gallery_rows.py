"""Galleries and their models in the store. Each function works inside the caller's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from facedex.indexer.errors import GalleryExists, GalleryNotFound, ModelChanged
from facedex.indexer.set_digest import EMPTY, SetDigest
from facedex.indexer.store.model_rows import insert_model_once, model_of
from facedex.indexer.store.records import CertificateRecord, GalleryRecord, Standing, as_utc
from facedex.indexer.store.schema import certificate, gallery, identity, model, template
from facedex.indexer.store.succession_rows import select_succession

if TYPE_CHECKING:
    from datetime import datetime

    from facedex.indexer.store.records import ModelRecord

# Each change of a gallery begins and ends with these: composed once, since composing them takes as long as doing them.
NUMBERED = gallery.c.id == bindparam("number")
LOCK = (
    update(gallery)
    .where(NUMBERED)
    .values(revision=gallery.c.revision)
    .returning(gallery.c.revision, gallery.c.digest, gallery.c.model_digest)
)
PUT = update(gallery).where(NUMBERED).values(revision=bindparam("new_revision"), digest=bindparam("new_digest"))


def insert_gallery(
    connection: Connection, name: str, *, model_record: ModelRecord, policy: dict[str, Any], now: datetime
) -> None:
    insert_model_once(connection, model_record)
    values: dict[str, Any] = {"name": name, "model_digest": model_record.digest, "policy": policy, "created_at": now}
    values |= {"revision": 0, "digest": EMPTY.to_bytes()}
    try:
        connection.execute(insert(gallery).values(values))
    except IntegrityError:
        raise GalleryExists(name) from None


def select_gallery(connection: Connection, name: str) -> GalleryRecord:
    row = connection.execute(_galleries().where(gallery.c.name == name)).first()
    if row is None:
        raise GalleryNotFound(name)
    return _record(connection, row)


def select_galleries(
    connection: Connection, *, after: str, limit: int, among: frozenset[str] | None = None
) -> list[GalleryRecord]:
    """A page of galleries by name; of those with these names, None: of all."""
    page = _galleries().where(gallery.c.name > after).order_by(gallery.c.name).limit(limit)
    rows = connection.execute(page if among is None else page.where(gallery.c.name.in_(sorted(among))))
    return [_record(connection, row) for row in rows.all()]


def select_revisions(connection: Connection) -> dict[str, tuple[int, int]]:
    """Name → (id, revision) of each gallery."""
    rows = connection.execute(select(gallery.c.name, gallery.c.id, gallery.c.revision))
    return {row.name: (row.id, row.revision) for row in rows}


def lock_gallery(connection: Connection, gallery_id: int, *, name: str, model_digest: str | None = None) -> Standing:
    """Takes the row lock that puts changes in commit order (invariant 3), and returns how the gallery stands.

    Raises:
        GalleryNotFound: it is no more.
        ModelChanged: its model is not the one of vectors that are about to be written.

    """
    row = connection.execute(LOCK, {"number": gallery_id}).first()
    if row is None:
        raise GalleryNotFound(name)
    if model_digest not in {None, row.model_digest}:
        raise ModelChanged(name)
    return Standing(row.revision, SetDigest.from_bytes(row.digest))


def select_standing(connection: Connection, gallery_id: int) -> Standing | None:
    """How a gallery stands; None where there is none of that number."""
    columns = (gallery.c.revision, gallery.c.digest)
    row = connection.execute(select(*columns).where(gallery.c.id == gallery_id)).first()
    return None if row is None else Standing(row.revision, SetDigest.from_bytes(row.digest))


def set_standing(connection: Connection, gallery_id: int, standing: Standing) -> None:
    new = {"new_revision": standing.revision, "new_digest": standing.digest.to_bytes()}
    connection.execute(PUT, {"number": gallery_id, **new})


def locked_gallery(connection: Connection, gallery_id: int) -> GalleryRecord | None:
    """A gallery by its number, locked; None where there is none."""
    row = connection.execute(_galleries().where(gallery.c.id == gallery_id)).first()
    if row is None:
        return None
    name = _record(connection, row).name
    lock_gallery(connection, gallery_id, name=name)
    return select_gallery(connection, name)


def insert_certificate(
    connection: Connection, gallery_id: int, digest: str, document: dict[str, Any], *, now: datetime
) -> None:
    """Adds a certificate, which is in force from now on; one that is known already is in force again."""
    connection.execute(delete(certificate).where(_is_certificate(gallery_id, digest)))
    values = {"gallery_id": gallery_id, "digest": digest, "document": document, "created_at": now}
    connection.execute(insert(certificate).values(values))


def select_certificate(connection: Connection, gallery_id: int, digest: str) -> CertificateRecord | None:
    """One certificate of a gallery; the newest where no digest is given."""
    columns = (certificate.c.digest, certificate.c.document, certificate.c.created_at)
    wanted = _is_certificate(gallery_id, digest) if digest else certificate.c.gallery_id == gallery_id
    newest = select(*columns).where(wanted).order_by(certificate.c.created_at.desc()).limit(1)
    row = connection.execute(newest).first()
    return None if row is None else CertificateRecord(row.digest, row.document, as_utc(row.created_at))


def _is_certificate(gallery_id: int, digest: str) -> ColumnElement[bool]:
    return and_(certificate.c.gallery_id == gallery_id, certificate.c.digest == digest)


def set_model(connection: Connection, gallery_id: int, model_digest: str) -> None:
    connection.execute(update(gallery).where(gallery.c.id == gallery_id).values(model_digest=model_digest))


def update_policy(connection: Connection, name: str, policy: dict[str, Any]) -> None:
    if connection.execute(update(gallery).where(gallery.c.name == name).values(policy=policy)).rowcount == 0:
        raise GalleryNotFound(name)


def _galleries() -> Select[Any]:
    identities = select(func.count()).where(identity.c.gallery_id == gallery.c.id).scalar_subquery()
    templates = select(func.count()).where(template.c.gallery_id == gallery.c.id).scalar_subquery()
    counts = (identities.label("identity_count"), templates.label("template_count"))
    return select(gallery, model, *counts).join(model)


def _record(connection: Connection, row: Row[Any]) -> GalleryRecord:
    columns = row._mapping  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  (SQLAlchemy's public name for it)
    return GalleryRecord(
        id=columns[gallery.c.id],
        name=columns[gallery.c.name],
        model=model_of(row),
        policy=columns[gallery.c.policy],
        revision=columns[gallery.c.revision],
        created_at=as_utc(columns[gallery.c.created_at]),
        identity_count=columns["identity_count"],
        template_count=columns["template_count"],
        succession=select_succession(connection, columns[gallery.c.id]),
    )
