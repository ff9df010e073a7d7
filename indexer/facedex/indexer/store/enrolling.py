"""Enrolling a group of people in one transaction: what is there is read once, and each table is written once."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, chain, islice
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import bindparam, select

from facedex.indexer.errors import DataKeyMissing
from facedex.indexer.store import change_rows, erasing, gallery_rows, identity_rows, ledger_rows, remembered
from facedex.indexer.store.records import AddedTemplate, ChangeOp, SealedTemplate, Standing, as_utc
from facedex.indexer.store.schema import identity, template
from facedex.indexer.store.tombstones import ErasureReason

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from sqlalchemy import Connection

    from facedex.indexer.audit import AuditEvent
    from facedex.indexer.set_digest import TemplateDigester
    from facedex.indexer.store.audit_log import AuditLog
    from facedex.indexer.store.encryption import Encryption
    from facedex.indexer.store.erasing import ErasureTerms
    from facedex.indexer.store.erasures import Erasures
    from facedex.indexer.store.records import (
        GalleryRecord,
        IdentityDetails,
        LedgerMark,
        NewEnrolment,
        NewTemplate,
        RememberedRequest,
    )
    from facedex.indexer.store.sealing import Sealer, Seals
    from facedex.indexer.store.successions import Successions
    from facedex.indexer.store.tombstones import Tombstone

    Transaction = Callable[[], AbstractContextManager[Connection]]

# Composed once, since composing them takes as long as doing them.
RESIDENTS = select(identity).where(
    identity.c.gallery_id == bindparam("gallery"), identity.c.external_id.in_(bindparam("names", expanding=True))
)
SOURCES = select(template.c.identity_id, template.c.source_digest, template.c.id).where(
    template.c.identity_id.in_(bindparam("numbers", expanding=True)), template.c.model_digest == bindparam("model")
)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a transaction of enrolment did. `templates` are in the order of the request."""

    templates: tuple[AddedTemplate, ...]
    revision: int


class MarkAfter(Protocol):
    """How far a bulk enrolment is after these, if it is one."""

    def __call__(self, enrolled: Sequence[Enrolled], /) -> LedgerMark | None: ...


def no_mark(_enrolled: Sequence[Enrolled], /) -> None:
    """It is none."""


class EventsAfter(Protocol):
    """What the audit says of these enrolments."""

    def __call__(self, enrolled: Sequence[Enrolled], /) -> Sequence[AuditEvent]: ...


@dataclass(frozen=True, slots=True)
class EnrolmentEntry:
    """Templates to add for one identity, and what is remembered of the answer."""

    enrolment: NewEnrolment
    answer_for: Callable[[Enrolled], RememberedRequest | None] = lambda _enrolled: None


class Enrolments:
    """Enrols groups of people, as if one after the other."""

    def __init__(  # noqa: PLR0913  (what an enrolment touches)
        self,
        *,
        writing: Transaction,
        erasures: Erasures,
        encryption: Encryption,
        successions: Successions,
        audit: AuditLog,
        seals: Seals,
        digester: Callable[[str], TemplateDigester],
        clock: Callable[[], datetime],
    ) -> None:
        self._writing = writing
        self._audit = audit
        self._erasures = erasures
        self._encryption = encryption
        self._successions = successions
        self._seals = seals
        self._digester = digester
        self._clock = clock

    def enrol(
        self,
        gallery: GalleryRecord,
        entries: Sequence[EnrolmentEntry],
        *,
        mark: MarkAfter = no_mark,
        events: EventsAfter | None = None,
    ) -> list[Enrolled]:
        """All or none of them, all by one model, with a mark of how far a bulk enrolment is, and with the audit's entries.

        Raises:
            ModelChanged: the gallery's model is not theirs.
            IdentityOnHold: somebody whose time is over, and who would begin anew, is held.
            DataKeyMissing: somebody's data key is destroyed.
            JobTaken: the bulk enrolment is another process's, or cancelled.

        """
        terms = self._erasures.terms(ErasureReason.EXPIRED)
        model_digest = entries[0].enrolment.model_digest if entries else None
        with self._auditing(events) as audit, self._writing() as connection:
            standing = gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name, model_digest=model_digest)
            tombstones, enrolled = self._enrol(connection, gallery, entries, terms, standing)
            marked = mark(enrolled)
            if marked is not None:
                ledger_rows.put_mark(connection, marked, now=self._clock())
            audit(connection, enrolled)
        for tombstone in tombstones:
            self._erasures.complete(tombstone)
        return enrolled

    @contextmanager
    def _auditing(self, events: EventsAfter | None) -> Generator[Callable[[Connection, Sequence[Enrolled]], None]]:
        """Around the transaction: what it is given writes the audit's entries within it, where there are to be any."""
        if events is None:
            yield lambda _connection, _enrolled: None
            return
        with self._audit.beside_a_change() as append:
            yield lambda connection, enrolled: append(connection, events(enrolled))

    def _enrol(
        self,
        connection: Connection,
        gallery: GalleryRecord,
        entries: Sequence[EnrolmentEntry],
        terms: ErasureTerms,
        standing: Standing,
    ) -> tuple[list[Tombstone], list[Enrolled]]:
        residents, tombstones, standing = _residents(connection, gallery, entries, terms, standing)
        people = residents | self._newcomers(connection, gallery, entries, residents)
        steps = [_step(each, people[each.enrolment.details.external_id]) for each in entries]
        for step in steps:
            if step.values:
                identity_rows.update_identity(connection, step.person.number, step.values)
        sealed = self._insert(connection, gallery, steps)
        enrolled = self._log(connection, gallery, steps, sealed, standing)
        answers = (each.answer_for(done) for each, done in zip(entries, enrolled, strict=True))
        kept = [each for each in answers if each is not None]
        remembered.insert_requests(connection, gallery.id, kept, now=self._clock())
        return tombstones, enrolled

    def _newcomers(
        self,
        connection: Connection,
        gallery: GalleryRecord,
        entries: Iterable[EnrolmentEntry],
        residents: dict[str, _Person],
    ) -> dict[str, _Person]:
        """Puts those who are not there yet."""
        firsts: dict[str, NewEnrolment] = {}
        for each in entries:
            if each.enrolment.details.external_id not in residents:
                firsts.setdefault(each.enrolment.details.external_id, each.enrolment)
        if not firsts:
            return {}
        keys = self._encryption.new_keys(gallery.id, len(firsts))
        rows = [
            _identity_row(each, gallery.id, key_id=key.key_id, now=self._clock())
            for each, key in zip(firsts.values(), keys, strict=True)
        ]
        numbers = connection.execute(identity_rows.NEW_IDENTITIES, rows).scalars()
        return {
            row["external_id"]: _Person(number, row["key_id"], row, sealer=key.sealer)
            for number, row, key in zip(numbers, rows, keys, strict=True)
        }

    def _insert(self, connection: Connection, gallery: GalleryRecord, steps: Sequence[_Step]) -> list[SealedTemplate]:
        fresh = [(step, new) for step in steps for new in step.fresh]
        if not fresh:
            return []
        model_digest = steps[0].model_digest
        residents = {step.person.key_id for step, _ in fresh if step.person.sealer is None}
        sealers = self._seals.among(residents) if residents else {}
        if residents - sealers.keys():
            raise DataKeyMissing
        owned = [
            identity_rows.OwnedTemplate(new, step.person.number, step.person.sealer or sealers[step.person.key_id])
            for step, new in fresh
        ]
        sealed = identity_rows.insert_templates(
            connection,
            owned,
            gallery_id=gallery.id,
            model_digest=model_digest,
            digester=self._digester(model_digest),
            now=self._clock(),
        )
        for (step, new), each in zip(fresh, sealed, strict=True):
            step.person.sources[new.source_digest] = each.id
        embedded = {each.id: new.successor for (_, new), each in zip(fresh, sealed, strict=True) if new.successor}
        self._successions.insert(connection, gallery, embedded)
        return sealed

    def _log(
        self,
        connection: Connection,
        gallery: GalleryRecord,
        steps: Sequence[_Step],
        sealed: Sequence[SealedTemplate],
        standing: Standing,
    ) -> list[Enrolled]:
        changes = [step.changes() for step in steps]
        if any(changes):
            revision = change_rows.insert_changes(connection, gallery.id, [*chain(*changes)], after=standing.revision)
            digest = standing.plus(sealed, self._digester(steps[0].model_digest)).digest if sealed else standing.digest
            gallery_rows.set_standing(connection, gallery.id, Standing(revision, digest))
        revisions = accumulate((len(each) for each in changes), initial=standing.revision)
        return [
            Enrolled(tuple(step.added()), revision)
            for step, revision in zip(steps, islice(revisions, 1, None), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Person:
    """Somebody of the group: what the columns say of them, and photograph → template, which the group adds to.

    `sealer` is that of a newcomer, whose key was made just now.
    """

    number: int
    key_id: str
    columns: dict[str, Any]
    sources: dict[str, int] = field(default_factory=dict[str, int])
    coming: set[str] = field(default_factory=set[str])
    sealer: Sealer | None = None


@dataclass(frozen=True, slots=True)
class _Step:
    """What one entry changes: columns of its identity, and templates that the identity does not have yet."""

    person: _Person
    templates: tuple[NewTemplate, ...]
    fresh: tuple[NewTemplate, ...]
    values: dict[str, Any]
    model_digest: str

    def changes(self) -> list[change_rows.NewChange]:
        """In the order of the log, once the templates have numbers."""
        number = self.person.number
        updated = [change_rows.NewChange(ChangeOp.UPDATE, 0, number)] if self.values else []
        numbers = (self.person.sources[each.source_digest] for each in self.fresh)
        return [*updated, *(change_rows.NewChange(ChangeOp.ADD, each, number) for each in numbers)]

    def added(self) -> Iterator[AddedTemplate]:
        """In the order of the entry; the same photograph a second time is not new."""
        new = {each.source_digest for each in self.fresh}
        for each in self.templates:
            yield AddedTemplate(self.person.sources[each.source_digest], is_new=each.source_digest in new)
            new.discard(each.source_digest)


def _residents(
    connection: Connection,
    gallery: GalleryRecord,
    entries: Sequence[EnrolmentEntry],
    terms: ErasureTerms,
    standing: Standing,
) -> tuple[dict[str, _Person], list[Tombstone], Standing]:
    """Those of the group who are there. Whoever's time is over is erased, and begins anew."""
    people: dict[str, _Person] = {}
    tombstones: list[Tombstone] = []
    names = list({each.enrolment.details.external_id: None for each in entries})
    for row in connection.execute(RESIDENTS, {"gallery": gallery.id, "names": names}).all() if names else ():
        if row.expires_at is not None and as_utc(row.expires_at) <= terms.now:
            tombstone, standing = erasing.erase_identity(connection, terms, gallery, row.id, standing=standing)
            tombstones.append(tombstone)
        else:
            people[row.external_id] = _Person(row.id, row.key_id, _columns(row))
    _read_sources(connection, people.values(), entries)
    return people, tombstones, standing


def _read_sources(connection: Connection, people: Iterable[_Person], entries: Sequence[EnrolmentEntry]) -> None:
    numbers = {each.number: each for each in people}
    if numbers:
        wanted = {"numbers": list(numbers), "model": entries[0].enrolment.model_digest}
        for row in connection.execute(SOURCES, wanted):
            numbers[row.identity_id].sources[row.source_digest] = row.id


def _step(entry: EnrolmentEntry, person: _Person) -> _Step:
    """Entries of the same person come in their order, each on top of the ones before."""
    told = _told(entry.enrolment.details)
    values = {name: value for name, value in told.items() if person.columns[name] != value}
    person.columns.update(values)
    templates = entry.enrolment.templates
    unknown = {each.source_digest: each for each in templates if each.source_digest not in person.sources}
    fresh = tuple(each for source, each in unknown.items() if source not in person.coming)
    person.coming.update(unknown)
    return _Step(person, templates, fresh, values, entry.enrolment.model_digest)


def _told(details: IdentityDetails) -> dict[str, Any]:
    """What is said of a person, by column."""
    values = {
        "display_name": details.display_name,
        "attributes": details.attributes,
        "consent_reference": details.consent_reference,
        "expires_at": details.expires_at,
        "purpose": details.purpose,
    }
    return {name: value for name, value in values.items() if value is not None}


def _columns(row: Any) -> dict[str, Any]:
    return {
        "display_name": row.display_name,
        "attributes": row.attributes,
        "consent_reference": row.consent_reference,
        "expires_at": None if row.expires_at is None else as_utc(row.expires_at),
        "purpose": row.purpose,
    }


def _identity_row(new: NewEnrolment, gallery_id: int, *, key_id: str, now: datetime) -> dict[str, Any]:
    unsaid = {"display_name": "", "attributes": {}, "consent_reference": "", "purpose": ""}
    columns = {**unsaid, "expires_at": new.default_expires_at, **_told(new.details)}
    own = {"gallery_id": gallery_id, "key_id": key_id, "external_id": new.details.external_id, "created_at": now}
    return {**columns, **own}
