"""Bringing people of an archive into a gallery, and leaving out who was erased since the archive was made."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from facedex.indexer.store import change_rows, gallery_rows, identity_rows, known_erasure_rows, ledger_rows
from facedex.indexer.store.portable import ErasedRow
from facedex.indexer.store.records import ChangeOp, SealedTemplate, Standing, as_utc
from facedex.indexer.store.schema import erasure, identity, template
from facedex.indexer.store.sealing import VECTOR, Place
from facedex.indexer.store.tombstones import ErasureScope, Tombstone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from facedex.indexer.set_digest import TemplateDigester
    from facedex.indexer.store.encryption import Encryption
    from facedex.indexer.store.erasures import Erasures
    from facedex.indexer.store.portable import PortablePerson, PortableTemplate
    from facedex.indexer.store.records import CertificateRecord, GalleryRecord, LedgerMark, ModelRecord
    from facedex.indexer.store.sealing import Sealer, Seals

    Transaction = Callable[[], AbstractContextManager[Connection]]

# An erasure is dated before it has its turn at the gallery: later by so much at most it is committed, or given up.
LONGEST_WAIT = timedelta(hours=1)


class PersonOutcome(enum.Enum):
    """What became of somebody in an archive."""

    NEW = "new"
    COMPLETED = "completed"
    """Was there, and got templates."""
    UNCHANGED = "unchanged"
    """Was there, with every template."""
    ERASED = "erased"
    """Left out: erased after the archive was made."""
    EXPIRED = "expired"
    """Left out: their time is over."""


@dataclass(frozen=True, slots=True)
class PersonVerdict:
    """What becomes of somebody, and of how many templates. Templates of those who are left out are in no count."""

    outcome: PersonOutcome
    new_templates: int = 0
    known_templates: int = 0
    erased_templates: int = 0


@dataclass(frozen=True, slots=True)
class Barred:
    """Whom an archive must not bring back, as it stood at `looked_at`.

    rows: what was erased where the archive comes from. people, photographs: keyed hash and birth of what was erased here,
    since an import keeps the birth. photographs_here: hashes of what was erased from the gallery since the archive.
    """

    rows: frozenset[tuple[ErasureScope, int, datetime]]
    people: frozenset[tuple[str, datetime]]
    photographs: frozenset[tuple[str, datetime]]
    photographs_here: frozenset[str]
    looked_at: datetime

    def names(self, scope: ErasureScope, number: int, born_at: datetime) -> bool:
        """Whether something of the archive's installation was erased there."""
        return (scope, number, born_at) in self.rows


@dataclass(frozen=True, slots=True)
class ImportTerms:
    """What holds for an import. `made_at`: the moment that the archive shows."""

    made_at: datetime
    barred: Barred
    keeps_crops: bool
    """Whether the gallery keeps crops; one that keeps none gets none."""
    default_expires_at: datetime | None = None
    """Of newcomers who have no expiry, where the gallery has a retention that their own had not."""


class Imports:
    """Adds people with their numbers made anew and all else as it was; whoever is there keeps what is known of them.

    Nobody comes in who was erased after the archive was made: here, from the gallery under the same id or anywhere with
    the same birth; or where the archive comes from. That is looked at under the gallery's lock, so an erasure that is
    acknowledged meanwhile counts.
    """

    def __init__(
        self,
        *,
        reading: Transaction,
        writing: Transaction,
        erasures: Erasures,
        encryption: Encryption,
        seals: Seals,
        digester: Callable[[str], TemplateDigester],
        clock: Callable[[], datetime],
    ) -> None:
        self._reading = reading
        self._writing = writing
        self._erasures = erasures
        self._encryption = encryption
        self._seals = seals
        self._digester = digester
        self._clock = clock

    @property
    def store_id(self) -> str:
        """Names this installation."""
        return self._erasures.signer.store_id

    def remember(self, erased: Sequence[ErasedRow]) -> int:
        """Notes erasures of other installations, for this import and all later ones; returns how many are new."""
        foreign = [each for each in erased if each.store_id != self.store_id]
        with self._writing() as connection:
            return known_erasure_rows.insert_known(connection, foreign)

    def create_gallery(
        self, name: str, *, model: ModelRecord, policy: dict[str, Any], certificates: Sequence[CertificateRecord]
    ) -> None:
        """A gallery with this policy and these certificates, the last of them in force. Raises GalleryExists."""
        with self._writing() as connection:
            gallery_rows.insert_gallery(connection, name, model_record=model, policy=policy, now=self._clock())
            number = gallery_rows.select_gallery(connection, name).id
            for each in certificates:
                gallery_rows.insert_certificate(connection, number, each.digest, each.document, now=each.created_at)

    def barred(
        self, store_id: str, *, made_at: datetime, gallery: GalleryRecord | None, told: Iterable[ErasedRow] = ()
    ) -> Barred:
        """Whom an archive of an installation must not bring into a gallery, or into a new one.

        `told` are further erasures. What is returned takes a few hundred bytes for each erasure that there ever was.
        """
        looked_at = self._clock()
        with self._reading() as connection:
            rows = set(known_erasure_rows.select_known(connection, store_id))
            tombstones = list(_tombstones(connection))
        own = (row for each in tombstones for row in ErasedRow.all_of(each))
        rows.update(row for row in chain(told, own) if row.store_id == store_id)
        photographs = [each for each in tombstones if each.scope is ErasureScope.TEMPLATE]
        here = [each for each in photographs if gallery and each.gallery_id == gallery.id and each.erased_at > made_at]
        return Barred(
            rows=frozenset((row.scope, row.number, row.born_at) for row in rows),
            people=frozenset((each.identity_hash, each.born_at) for each in tombstones if each.identity_hash),
            photographs=frozenset((source, each.born_at) for each in photographs for source in each.source_hashes),
            photographs_here=frozenset(source for each in here for source in each.source_hashes),
            looked_at=looked_at,
        )

    def judged(
        self, gallery: GalleryRecord | None, people: Sequence[PortablePerson], terms: ImportTerms
    ) -> list[PersonVerdict]:
        """What would become of people, in a gallery or in a new one; nothing is written."""
        with self._reading() as connection:
            return [each.verdict for each in self._cases(connection, gallery, people, terms)]

    def enrol(
        self,
        gallery: GalleryRecord,
        people: Sequence[PortablePerson],
        terms: ImportTerms,
        *,
        mark: Callable[[Sequence[PersonVerdict]], LedgerMark],
    ) -> list[PersonVerdict]:
        """Brings people in, no two of one id, in one transaction with a mark of how far the import is."""
        with self._writing() as connection:
            standing = gallery_rows.lock_gallery(
                connection, gallery.id, name=gallery.name, model_digest=gallery.model.digest
            )
            cases = self._cases(connection, gallery, people, terms)
            homes = self._homes(connection, gallery, cases, terms)
            fresh = [(homes[case.person.number], each) for case in cases for each in case.fresh]
            if not terms.keeps_crops:
                fresh = [(home, replace(each, crop=None)) for home, each in fresh]
            standing = self._insert_templates(connection, gallery, fresh, standing=standing)
            self._shorten(connection, gallery, cases, standing=standing)
            verdicts = [each.verdict for each in cases]
            ledger_rows.put_mark(connection, mark(verdicts), now=self._clock())
        return verdicts

    # Deciding

    def _cases(
        self,
        connection: Connection,
        gallery: GalleryRecord | None,
        people: Sequence[PortablePerson],
        terms: ImportTerms,
    ) -> list[_Case]:
        there = _There.of(connection, gallery, [each.external_id for each in people])
        gone = self._gone(connection, gallery, people, terms)
        photographs = terms.barred.photographs_here | _photographs_since(connection, gallery, terms)
        return [self._case(each, there, terms, is_gone=each.number in gone, photographs=photographs) for each in people]

    def _case(
        self,
        person: PortablePerson,
        there: _There,
        terms: ImportTerms,
        *,
        is_gone: bool,
        photographs: frozenset[str],
    ) -> _Case:
        resident = there.residents.get(person.external_id)
        now = self._clock()
        if is_gone:
            return _Case(person, resident, PersonVerdict(PersonOutcome.ERASED))
        if person.is_over(now) or (resident is not None and resident.is_over(now)):
            return _Case(person, resident, PersonVerdict(PersonOutcome.EXPIRED))
        allowed = [each for each in person.templates if not self._is_barred(each, terms, photographs)]
        known = there.sources.get(resident.number, frozenset()) if resident else frozenset[str]()
        fresh = tuple(each for each in allowed if each.source_digest not in known)
        verdict = PersonVerdict(
            _outcome(resident, fresh), len(fresh), len(allowed) - len(fresh), len(person.templates) - len(allowed)
        )
        return _Case(person, resident, verdict, fresh)

    def _gone(
        self,
        connection: Connection,
        gallery: GalleryRecord | None,
        people: Sequence[PortablePerson],
        terms: ImportTerms,
    ) -> set[int]:
        """The archive's numbers of those who were erased."""
        keyed = self._erasures.keyed_hash
        hashes = {each.number: keyed.of_identity(each.external_id) for each in people}
        erased = _erased_here(connection, gallery, list(hashes.values()), terms.made_at)
        return {
            each.number
            for each in people
            if terms.barred.names(ErasureScope.IDENTITY, each.number, each.created_at)
            or (hashes[each.number], each.created_at) in terms.barred.people
            or (hashes[each.number], None) in erased
            or (hashes[each.number], each.created_at) in erased
        }

    def _is_barred(self, each: PortableTemplate, terms: ImportTerms, photographs: frozenset[str]) -> bool:
        if terms.barred.names(ErasureScope.TEMPLATE, each.number, each.created_at):
            return True
        if not (photographs or terms.barred.photographs):
            return False
        hashed = self._erasures.keyed_hash.of_source(each.source_digest)
        return hashed in photographs or (hashed, each.created_at) in terms.barred.photographs

    # Writing

    def _homes(
        self, connection: Connection, gallery: GalleryRecord, cases: Sequence[_Case], terms: ImportTerms
    ) -> dict[int, _Home]:
        """Where templates go, by the archive's number of their person; newcomers are put there."""
        homes = {
            each.person.number: _Home(each.resident.number, each.resident.key_id) for each in cases if each.resident
        }
        newcomers = [each.person for each in cases if each.verdict.outcome is PersonOutcome.NEW]
        if not newcomers:
            return homes
        keys = self._encryption.new_keys(gallery.id, len(newcomers))
        rows = [
            _identity_row(each, gallery.id, key.key_id, terms.default_expires_at)
            for each, key in zip(newcomers, keys, strict=True)
        ]
        numbers = connection.execute(identity_rows.NEW_IDENTITIES, rows).scalars()
        for person, number, row in zip(newcomers, numbers, rows, strict=True):
            homes[person.number] = _Home(number, row["key_id"])
        return homes

    def _insert_templates(
        self,
        connection: Connection,
        gallery: GalleryRecord,
        fresh: Sequence[tuple[_Home, PortableTemplate]],
        *,
        standing: Standing,
    ) -> Standing:
        if not fresh:
            return standing
        digester = self._digester(gallery.model.digest)
        sealers = {home.key_id: self._seals.of(home.key_id) for home, _ in fresh}
        rows = [_template_row(each, home, gallery, digester, sealers[home.key_id]) for home, each in fresh]
        numbers = list(connection.execute(identity_rows.NEW_TEMPLATES, rows).scalars())
        sealed = [SealedTemplate(number, row["seal"]) for number, row in zip(numbers, rows, strict=True)]
        additions = [
            change_rows.NewChange(ChangeOp.ADD, number, row["identity_id"])
            for number, row in zip(numbers, rows, strict=True)
        ]
        revision = change_rows.insert_changes(connection, gallery.id, additions, after=standing.revision)
        standing = Standing(revision, standing.plus(sealed, digester).digest)
        gallery_rows.set_standing(connection, gallery.id, standing)
        return standing

    def _shorten(
        self, connection: Connection, gallery: GalleryRecord, cases: Sequence[_Case], *, standing: Standing
    ) -> None:
        """No template is kept for longer than was said: of both expiries the earlier one counts."""
        for each in cases:
            if each.resident is None or not each.fresh or not each.resident.outlives(each.person.expires_at):
                continue
            identity_rows.update_identity(connection, each.resident.number, {"expires_at": each.person.expires_at})
            standing = change_rows.log_change(
                connection,
                ChangeOp.UPDATE,
                [0],
                gallery_id=gallery.id,
                identity_id=each.resident.number,
                after=standing,
            )


@dataclass(frozen=True, slots=True)
class _Resident:
    """Somebody who is in the gallery under the id."""

    number: int
    key_id: str
    expires_at: datetime | None
    hold_reason: str

    def is_over(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now and not self.hold_reason

    def outlives(self, moment: datetime | None) -> bool:
        return moment is not None and (self.expires_at is None or self.expires_at > moment)


@dataclass(frozen=True, slots=True)
class _There:
    """Who of some people is in a gallery, and which photographs of them."""

    residents: Mapping[str, _Resident]
    sources: Mapping[int, frozenset[str]]

    @classmethod
    def of(cls, connection: Connection, gallery: GalleryRecord | None, external_ids: Sequence[str]) -> _There:
        if gallery is None:
            return cls({}, {})
        where = (identity.c.gallery_id == gallery.id) & identity.c.external_id.in_(external_ids)
        residents = {row.external_id: _resident(row) for row in connection.execute(select(identity).where(where))}
        numbers = [each.number for each in residents.values()]
        owned = template.c.identity_id.in_(numbers) & (template.c.model_digest == gallery.model.digest)
        sources: dict[int, set[str]] = {number: set() for number in numbers}
        for row in connection.execute(select(template.c.identity_id, template.c.source_digest).where(owned)):
            sources[row.identity_id].add(row.source_digest)
        return cls(residents, {number: frozenset(each) for number, each in sources.items()})


@dataclass(frozen=True, slots=True)
class _Case:
    """Somebody of the archive, who is there under the id, what becomes of them, and the templates that are new."""

    person: PortablePerson
    resident: _Resident | None
    verdict: PersonVerdict
    fresh: tuple[PortableTemplate, ...] = ()


@dataclass(frozen=True, slots=True)
class _Home:
    """An identity that gets templates."""

    identity_id: int
    key_id: str


def _outcome(resident: _Resident | None, fresh: Sequence[PortableTemplate]) -> PersonOutcome:
    if resident is None:
        return PersonOutcome.NEW
    return PersonOutcome.COMPLETED if fresh else PersonOutcome.UNCHANGED


def _tombstones(connection: Connection) -> Iterator[Tombstone]:
    documents = connection.execute(select(erasure.c.document).execution_options(yield_per=1_000)).scalars()
    return (Tombstone.from_json(each) for each in documents)


def _erased_here(
    connection: Connection, gallery: GalleryRecord | None, hashes: Sequence[str], made_at: datetime
) -> set[tuple[str, datetime | None]]:
    """Hash and birth of those erased from the gallery; without a birth where it was after the archive was made."""
    if gallery is None:
        return set()
    where = (erasure.c.gallery_id == gallery.id) & erasure.c.identity_hash.in_(hashes)
    rows = connection.execute(select(erasure.c.document).where(where)).scalars()
    found = [Tombstone.from_json(each) for each in rows]
    return {(each.identity_hash, None if each.erased_at > made_at else each.born_at) for each in found}


def _photographs_since(connection: Connection, gallery: GalleryRecord | None, terms: ImportTerms) -> frozenset[str]:
    """Hashes of the photographs erased from the gallery while the import goes on."""
    if gallery is None:
        return frozenset()
    since = max(terms.made_at, terms.barred.looked_at - LONGEST_WAIT)
    is_photograph = (erasure.c.gallery_id == gallery.id) & (erasure.c.identity_hash == "")
    rows = connection.execute(select(erasure.c.document).where(is_photograph, erasure.c.erased_at > since)).scalars()
    return frozenset(source for each in rows for source in Tombstone.from_json(each).source_hashes)


def _resident(row: Any) -> _Resident:
    expires_at = None if row.expires_at is None else as_utc(row.expires_at)
    return _Resident(row.id, row.key_id, expires_at, row.hold_reason)


def _identity_row(
    person: PortablePerson, gallery_id: int, key_id: str, default_expires_at: datetime | None
) -> dict[str, Any]:
    return {
        "gallery_id": gallery_id,
        "key_id": key_id,
        "external_id": person.external_id,
        "display_name": person.display_name,
        "attributes": person.attributes,
        "consent_reference": person.consent_reference,
        "purpose": person.purpose,
        "hold_reason": person.hold_reason,
        "expires_at": person.expires_at or default_expires_at,
        "created_at": person.created_at,
    }


def _template_row(
    each: PortableTemplate, home: _Home, gallery: GalleryRecord, digester: TemplateDigester, sealer: Sealer
) -> dict[str, Any]:
    model_digest = gallery.model.digest
    vector_place = Place(VECTOR, model_digest, each.source_digest)
    crop_place = Place.of_crop(each.crop_model_digest, model_digest, each.source_digest)
    return {
        "gallery_id": gallery.id,
        "identity_id": home.identity_id,
        "model_digest": model_digest,
        "vector": sealer.seal(each.vector, vector_place),
        "quality": each.quality,
        "source_digest": each.source_digest,
        "crop": None if each.crop is None else sealer.seal(each.crop, crop_place),
        "crop_model_digest": each.crop_model_digest,
        "seal": digester.seal(home.identity_id, each.vector),
        "created_at": each.created_at,
    }
