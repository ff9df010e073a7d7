"""What an archive of a gallery is made of, read a page at a time."""

from __future__ import annotations

from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, or_, select, tuple_

from facedex.indexer.errors import IdentityNotFound, SealBroken, TemplateAltered
from facedex.indexer.store import gallery_rows, identity_rows, known_erasure_rows, person_rows
from facedex.indexer.store.portable import ErasedRow, PortablePerson, PortableTemplate
from facedex.indexer.store.records import CertificateRecord, as_utc
from facedex.indexer.store.schema import certificate, erasure, identity, template
from facedex.indexer.store.sealing import VECTOR, Place
from facedex.indexer.store.tombstones import ErasureScope, Tombstone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from facedex.indexer.set_digest import TemplateDigester
    from facedex.indexer.store.records import GalleryRecord, HeldPerson
    from facedex.indexer.store.sealing import Sealer, Seals

PEOPLE_PER_READ = 512
TEMPLATES_PER_READ = 1_024
ERASURES_PER_READ = 10_000
# Of one person at a time: what is in memory is bounded, whoever has how many.
TEMPLATES_AT_ONCE = 1_024


class StoreExport:
    """Reads galleries as they were at one moment, and gives no vector that is not the one that was enrolled."""

    def __init__(self, connection: Connection, seals: Seals, digester: Callable[[str], TemplateDigester]) -> None:
        self._connection = connection
        self._seals = seals
        self._digester = digester

    def gallery(self, name: str) -> GalleryRecord:
        return gallery_rows.select_gallery(self._connection, name)

    def certificates(self, gallery: GalleryRecord) -> list[CertificateRecord]:
        """All of a gallery, the one in force last."""
        statement = select(certificate).where(certificate.c.gallery_id == gallery.id).order_by(certificate.c.created_at)
        rows = self._connection.execute(statement)
        return [CertificateRecord(row.digest, row.document, as_utc(row.created_at)) for row in rows]

    def people(self, gallery: GalleryRecord, *, now: datetime) -> Iterator[PortablePerson | None]:
        """Everybody whose time is not over, or who is held, in order of number; None for each whose key is destroyed.

        Raises:
            TemplateAltered: what is stored of a face is not what was enrolled.

        """
        statement = select(identity).where(identity.c.gallery_id == gallery.id)
        is_there = or_(identity.c.expires_at.is_(None), identity.c.expires_at > now, identity.c.hold_reason != "")
        statement = statement.where(is_there).order_by(identity.c.id).limit(PEOPLE_PER_READ)
        last = 0
        while page := self._connection.execute(statement.where(identity.c.id > last)).all():
            yield from self._with_templates(gallery, page)
            last = page[-1].id

    def person(self, gallery: GalleryRecord, external_id: str) -> Iterator[PortablePerson | None]:
        """One person, expired or not. Raises IdentityNotFound, TemplateAltered."""
        where = (identity.c.gallery_id == gallery.id) & (identity.c.external_id == external_id)
        page = self._connection.execute(select(identity).where(where)).all()
        if not page:
            raise IdentityNotFound(gallery.name)
        return self._with_templates(gallery, page)

    def held_person(self, gallery: GalleryRecord, external_id: str) -> HeldPerson:
        """All that is held about one person. Raises IdentityNotFound."""
        record = identity_rows.select_identity(self._connection, gallery.id, external_id)
        if record is None:
            raise IdentityNotFound(gallery.name)
        return person_rows.select_person(self._connection, gallery.id, record, self._seals)

    def erasures_of(self, gallery: GalleryRecord) -> Iterator[ErasedRow]:
        """Who was erased from a gallery."""
        return self._erasures(erasure.c.gallery_id == gallery.id)

    def erasures(self) -> Iterator[ErasedRow]:
        """Who was erased here, and who elsewhere, as far as this installation was told."""
        yield from self._erasures(erasure.c.erasure_id != "")
        yield from known_erasure_rows.select_known(self._connection)

    def _erasures(self, where: Any) -> Iterator[ErasedRow]:
        last = ""
        statement = select(erasure.c.erasure_id, erasure.c.document).where(where).order_by(erasure.c.erasure_id)
        statement = statement.limit(ERASURES_PER_READ)
        while rows := self._connection.execute(statement.where(erasure.c.erasure_id > last)).all():
            yield from _erased_rows(Tombstone.from_json(row.document) for row in rows)
            last = rows[-1].erasure_id

    def _with_templates(self, gallery: GalleryRecord, page: Sequence[Any]) -> Iterator[PortablePerson | None]:
        sealers = self._seals.among(person.key_id for person in page)
        faces = groupby(self._templates(gallery, page), key=lambda face: face.identity_id)
        owner, owned = next(faces, (None, iter(())))
        for person in page:
            mine = owned if owner == person.id else iter(())
            sealer = sealers.get(person.key_id)
            if sealer is None:
                yield None
            else:
                yield from self._portions(gallery, person, mine, sealer)
            if owner == person.id:
                owner, owned = next(faces, (None, iter(())))

    def _templates(self, gallery: GalleryRecord, page: Sequence[Any]) -> Iterator[Any]:
        """The rows of all of these people, person by person."""
        owner, number = template.c.identity_id, template.c.id
        # By identity alone: with the gallery among the conditions, SQLite reads all of it for each page.
        of_model = select(template).where(owner <= page[-1].id, template.c.model_digest == gallery.model.digest)
        ordered = of_model.order_by(owner, number).limit(TEMPLATES_PER_READ)
        among = {person.id for person in page}
        place = (page[0].id, 0)
        while rows := self._connection.execute(
            ordered.where(owner >= place[0], tuple_(owner, number) > tuple_(*place))
        ).all():
            yield from (row for row in rows if row.identity_id in among)
            place = (rows[-1].identity_id, rows[-1].id)

    def _portions(
        self, gallery: GalleryRecord, person: Any, faces: Iterator[Any], sealer: Sealer
    ) -> Iterator[PortablePerson]:
        digester = self._digester(gallery.model.digest)
        first = tuple(_template(face, digester, sealer) for face in islice(faces, TEMPLATES_AT_ONCE))
        yield _person(person, first)
        while more := tuple(_template(face, digester, sealer) for face in islice(faces, TEMPLATES_AT_ONCE)):
            yield _person(person, more)


def _erased_rows(tombstones: Iterable[Tombstone]) -> Iterator[ErasedRow]:
    # A gallery is often deleted where it comes from when it has moved: that binds nobody else.
    told = (each for each in tombstones if each.scope is not ErasureScope.GALLERY)
    return (row for tombstone in told for row in ErasedRow.all_of(tombstone))


def _person(row: Any, templates: tuple[PortableTemplate, ...]) -> PortablePerson:
    return PortablePerson(
        number=row.id,
        external_id=row.external_id,
        display_name=row.display_name,
        attributes=row.attributes,
        consent_reference=row.consent_reference,
        purpose=row.purpose,
        hold_reason=row.hold_reason,
        expires_at=None if row.expires_at is None else as_utc(row.expires_at),
        created_at=as_utc(row.created_at),
        templates=templates,
    )


def _template(row: Any, digester: TemplateDigester, sealer: Sealer) -> PortableTemplate:
    place = Place(VECTOR, row.model_digest, row.source_digest)
    vector = _opened(row, row.vector, place, sealer)
    crop_place = Place.of_crop(row.crop_model_digest, row.model_digest, row.source_digest)
    crop = _opened(row, row.crop, crop_place, sealer)
    if vector is None or digester.seal(row.identity_id, vector) != row.seal:
        raise TemplateAltered(row.id)
    created_at = as_utc(row.created_at)
    return PortableTemplate(row.id, vector, row.source_digest, row.quality, crop, row.crop_model_digest, created_at)


def _opened(row: Any, stored: bytes | None, place: Place, sealer: Sealer) -> bytes | None:
    if stored is None:
        return None
    try:
        return sealer.opened(stored, place)
    except SealBroken:
        raise TemplateAltered(row.id) from None
