from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from facedex.indexer.errors import IdentityNotFound, IdentityOnHold, InvalidArgument
from facedex.indexer.failpoints import Reached, Step, nothing_fails
from facedex.indexer.set_digest import TemplateDigester
from facedex.indexer.store import (
    change_rows,
    delivery_rows,
    erasing,
    gallery_rows,
    identity_rows,
    job_rows,
    ledger_rows,
    person_rows,
    remembered,
)
from facedex.indexer.store.amendment import StoreAmendment, delete_strays
from facedex.indexer.store.announcements import Announcements
from facedex.indexer.store.api_keys import ApiKeys
from facedex.indexer.store.audit_log import AuditLog
from facedex.indexer.store.encryption import Encryption
from facedex.indexer.store.engine import WRITE_OPTION, named_errors, open_engine
from facedex.indexer.store.enrolling import Enrolled, EnrolmentEntry, Enrolments, EventsAfter, MarkAfter, no_mark
from facedex.indexer.store.erasures import DEFAULT_HORIZON, Erasures
from facedex.indexer.store.exporting import StoreExport
from facedex.indexer.store.importing import Imports
from facedex.indexer.store.ledger_rows import FINDINGS_AT_ONCE
from facedex.indexer.store.migrate import upgrade
from facedex.indexer.store.moment import StoreMoment
from facedex.indexer.store.records import (
    BULK_ENROLMENT,
    KEY_ROTATION,
    STREAMED_ENROLMENT,
    AttributeFilter,
    BulkFinding,
    CertificateRecord,
    Change,
    ChangeOp,
    GalleryRecord,
    HeldPerson,
    IdentityRecord,
    JobRecord,
    JobState,
    LedgerMark,
    ModelRecord,
    NewEnrolment,
    OverdueIdentity,
    RememberedRequest,
    Standing,
)
from facedex.indexer.store.sealing import SealedReading, Seals
from facedex.indexer.store.successions import Successions
from facedex.indexer.store.tombstones import ErasureReason, Tombstone
from facedex.indexer.store.vault import Vault
from facedex.indexer.tracing import Traced, Work, untraced

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy import Connection, Engine


CHANGES_PER_READ = 10_000
CONSISTENCY_KEY = "consistency"


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did, and its signed receipt."""

    identity_count: int
    template_count: int
    revision: int
    receipt: str


@dataclass(frozen=True, slots=True)
class Merged:
    """What a transaction that made one identity of two did: how many templates the one that is left got."""

    template_count: int
    revision: int


class Store:
    """Galleries, identities, templates and the change log in SQL: the truth (invariant 1).

    When a method that changes something returns, the change is committed and on disk. Changes of a gallery are numbered
    in commit order (invariant 3). Every method may raise StoreUnavailable.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        reached: Reached = nothing_fails,
        vault: Vault | None = None,
        horizon: timedelta = DEFAULT_HORIZON,
        traced: Traced = untraced,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._key = b""
        self._digesters: dict[str, TemplateDigester] = {}
        vault = vault or Vault()
        self._seals = Seals(vault.keys, vault.transforms)
        self._unsealing = SealedReading(self._reading, self._seals)
        self.reached = reached
        self.traced = traced
        self.announcements = Announcements(engine)
        self.erasures = Erasures(
            engine,
            digester=self.digester,
            reading=self._reading,
            writing=self._writing,
            clock=clock,
            vault=vault,
            horizon=horizon,
            reached=reached,
        )
        self.successions = Successions(
            reading=self._reading, writing=self._writing, clock=clock, digester=self.digester, seals=self._seals
        )
        self.encryption = Encryption(
            self.erasures,
            reading=self._reading,
            writing=self._writing,
            vault=vault,
            seals=self._seals,
            clock=clock,
        )
        self.audit = AuditLog(
            reading=self._reading,
            writing=self._writing,
            one_moment=self._one_moment,
            clock=clock,
            erasures=self.erasures,
            witness=vault.witness,
        )
        self._enrolments = Enrolments(
            writing=self._writing,
            erasures=self.erasures,
            encryption=self.encryption,
            successions=self.successions,
            audit=self.audit,
            seals=self._seals,
            digester=self.digester,
            clock=clock,
        )
        self.api_keys = ApiKeys(reading=self._reading, writing=self._writing, clock=clock)
        self.imports = Imports(
            reading=self._reading,
            writing=self._writing,
            erasures=self.erasures,
            encryption=self.encryption,
            seals=self._seals,
            digester=self.digester,
            clock=clock,
        )

    @classmethod
    def open(
        cls,
        url: str,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        reached: Reached = nothing_fails,
        vault: Vault | None = None,
        horizon: timedelta = DEFAULT_HORIZON,
        traced: Traced = untraced,
    ) -> Store:
        """Connects, brings the tables to this version's schema, and does again what a restored backup undid.

        `horizon` is how long after an erasure copies may be left. Without a journal in the
        vault, erasures are known to the database alone. With keys in it, vectors and crops of new identities are encrypted.

        Raises:
            DataKeysMissing: somebody is encrypted, and these are not the keys.

        """
        with named_errors():
            store = cls(open_engine(url), clock=clock, reached=reached, vault=vault, horizon=horizon, traced=traced)
        with store._writing() as connection:
            upgrade(connection)
            # Read once and here: whoever enrols is inside a transaction, where no second one can make it.
            store._key = change_rows.select_secret(connection, CONSISTENCY_KEY) or b""
        store.encryption.check_keys()
        store.erasures.recover()
        store.encryption.sweep()
        return store

    def close(self) -> None:
        self._engine.dispose()

    def now(self) -> datetime:
        return self._clock()

    # Galleries

    def create_gallery(self, name: str, *, model: ModelRecord, policy: dict[str, Any]) -> GalleryRecord:
        with self._writing() as connection:
            gallery_rows.insert_gallery(connection, name, model_record=model, policy=policy, now=self.now())
            return gallery_rows.select_gallery(connection, name)

    def gallery(self, name: str) -> GalleryRecord:
        with self._reading() as connection:
            return gallery_rows.select_gallery(connection, name)

    def galleries(
        self, *, after: str = "", limit: int = 100, among: frozenset[str] | None = None
    ) -> list[GalleryRecord]:
        """A page of galleries by name; `among` names those that may be on it, None: all."""
        with self._reading() as connection:
            return gallery_rows.select_galleries(connection, after=after, limit=limit, among=among)

    def revisions(self) -> dict[str, tuple[int, int]]:
        """Name → (id, revision) of each gallery: what a follower of the log has to know."""
        with self._reading() as connection:
            return gallery_rows.select_revisions(connection)

    def update_policy(self, name: str, policy: dict[str, Any]) -> GalleryRecord:
        """Replaces the policy, whatever it was."""
        return self.change_policy(name, lambda _old: policy)

    def change_policy(self, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> GalleryRecord:
        """Makes a new policy of the old one, so that of two changes at the same time neither is lost.

        It is a change of the log, so that every process that follows the log hears of it.
        """
        with self._writing() as connection:
            gallery = gallery_rows.select_gallery(connection, name)
            standing = gallery_rows.lock_gallery(connection, gallery.id, name=name)
            policy = gallery_rows.select_gallery(connection, name).policy
            gallery_rows.update_policy(connection, name, change(policy))
            change_rows.log_change(
                connection, ChangeOp.POLICY, [0], gallery_id=gallery.id, identity_id=0, after=standing
            )
            return gallery_rows.select_gallery(connection, name)

    def add_certificate(self, gallery: GalleryRecord, digest: str, document: dict[str, Any]) -> int:
        """Puts a certificate in force, and tells everybody who follows the log; returns the number of the change."""
        with self._writing() as connection:
            standing = gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            gallery_rows.insert_certificate(connection, gallery.id, digest, document, now=self.now())
            return change_rows.log_change(
                connection, ChangeOp.POLICY, [0], gallery_id=gallery.id, identity_id=0, after=standing
            ).revision

    def certificate(self, gallery: GalleryRecord, digest: str = "") -> CertificateRecord | None:
        """The certificate in force, or one by its digest."""
        with self._reading() as connection:
            return gallery_rows.select_certificate(connection, gallery.id, digest)

    def request_rebuild(self, gallery: GalleryRecord) -> int:
        """Tells everybody who follows the log to build the index anew."""
        with self._writing() as connection:
            standing = gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            return change_rows.log_change(
                connection, ChangeOp.REBUILD, [0], gallery_id=gallery.id, identity_id=0, after=standing
            ).revision

    def delete_gallery(self, name: str) -> Erased:
        """Erases a gallery with everybody in it. Raises GalleryOnHold."""
        with self._writing() as connection:
            gallery = gallery_rows.select_gallery(connection, name)
            gallery_rows.lock_gallery(connection, gallery.id, name=name)
            gallery = gallery_rows.select_gallery(connection, name)
            tombstone = erasing.erase_gallery(connection, self.erasures.terms(), gallery)
        return self._completed(tombstone)

    # Jobs

    def create_job(self, kind: str, gallery: str, arguments: dict[str, Any]) -> JobRecord:
        """Long-running work for whichever process takes it up."""
        with self._writing() as connection:
            number = job_rows.insert_job(connection, kind, gallery, arguments, now=self.now())
            return job_rows.select_job(connection, number)

    def job(self, job_id: int) -> JobRecord:
        with self._reading() as connection:
            return job_rows.select_job(connection, job_id)

    def jobs(
        self, *, before: int | None = None, limit: int = 100, galleries: frozenset[str] | None = None
    ) -> list[JobRecord]:
        """A page of jobs, the newest first; `galleries` names those that they may be for, None: all."""
        with self._reading() as connection:
            return job_rows.select_jobs(connection, before=before, limit=limit, galleries=galleries)

    def claim_job(self, owner: str, *, silence: timedelta) -> JobRecord | None:
        """Takes up a job that waits, or whose owner has said nothing for so long."""
        with self._writing() as connection:
            now = self.now()
            return job_rows.claim_job(connection, owner, silent_since=now - silence, now=now)

    def report_progress(self, job: JobRecord, progress: float) -> bool:
        """Notes how far a job is, 0 to 1; False where its owner shall stop."""
        with self._writing() as connection:
            return job_rows.update_progress(connection, job.id, job.owner, progress, now=self.now())

    def finish_job(
        self, job: JobRecord, state: JobState, *, result: dict[str, Any] | None = None, error: str = ""
    ) -> None:
        with self._writing() as connection:
            job_rows.finish_job(connection, job.id, job.owner, state, result=result, error=error)

    def release_job(self, job: JobRecord) -> None:
        """Gives a job back that this process cannot finish now."""
        with self._writing() as connection:
            job_rows.release_job(connection, job.id, job.owner)

    def cancel_job(self, job_id: int) -> JobRecord:
        with self._writing() as connection:
            job_rows.select_job(connection, job_id)  # raises where there is none
            job_rows.request_cancel(connection, job_id)
            return job_rows.select_job(connection, job_id)

    def unfinished_bulk(self, gallery: str, source: dict[str, Any]) -> JobRecord | None:
        """The bulk enrolment of this source that was begun and not ended, whoever works on it."""
        with self._reading() as connection:
            known = ledger_rows.select_unfinished(connection, BULK_ENROLMENT)
        return next((each for each in known if (each.gallery, each.arguments) == (gallery, source)), None)

    def unfinished_rotations(self) -> list[JobRecord]:
        """Rotations of data keys, of everybody or in a gallery, that were begun and not ended, whoever works on them."""
        with self._reading() as connection:
            return ledger_rows.select_unfinished(connection, KEY_ROTATION)

    def begin_bulk(self, gallery: str, source: dict[str, Any], owner: str, *, known: JobRecord | None) -> JobRecord:
        """A bulk enrolment for this process: the known one where it stopped, or a new one.

        Raises:
            JobTaken: another process was faster.

        """
        return self._begun(BULK_ENROLMENT, gallery, source, owner, known=known)

    def begin_rotation(self, owner: str, *, known: JobRecord | None, gallery: GalleryRecord | None = None) -> JobRecord:
        """New data keys for everybody, or in a gallery, by this process: the known work where it stopped, or new work.

        Raises:
            JobTaken: another process was faster.
            DataKeysMissing: there are none.

        """
        arguments = self.encryption.begun_rotation(gallery) if known is None else known.arguments
        return self._begun(KEY_ROTATION, "" if gallery is None else gallery.name, arguments, owner, known=known)

    def _begun(
        self, kind: str, gallery: str, arguments: dict[str, Any], owner: str, *, known: JobRecord | None
    ) -> JobRecord:
        with self._writing() as connection:
            now = self.now()
            if known is None:
                number = job_rows.insert_job(connection, kind, gallery, arguments, now=now)
                known = job_rows.select_job(connection, number)
            return ledger_rows.take_over(connection, known, owner, now=now)

    def begin_stream(self, gallery: str, owner: str) -> JobRecord:
        """Enrolments over a stream, which nobody else can go on with."""
        with self._writing() as connection:
            now = self.now()
            number = job_rows.insert_job(connection, STREAMED_ENROLMENT, gallery, {}, now=now)
            return ledger_rows.take_over(connection, job_rows.select_job(connection, number), owner, now=now)

    def put_mark(self, mark: LedgerMark) -> None:
        """Notes how far enrolments are. Raises JobTaken where they are to stop."""
        with self._writing() as connection:
            ledger_rows.put_mark(connection, mark, now=self.now())

    def bulk_findings(self, job: JobRecord) -> Iterator[BulkFinding]:
        """What was noticed about items, in order of position."""
        page = self.findings_page(job.id)
        while page:
            yield from page
            page = self.findings_page(job.id, after=page[-1].position)

    def findings_page(self, job_id: int, *, after: int = -1) -> list[BulkFinding]:
        """What was noticed about some items behind a position, in order, of each item all."""
        with self._reading() as connection:
            page = ledger_rows.select_findings(connection, job_id, after=after)
        if len({each.position for each in page}) <= 1:
            return page
        # The last item of a page may go on in the next one.
        return [each for each in page if each.position < page[-1].position] if len(page) == FINDINGS_AT_ONCE else page

    # Identities

    def identity(self, gallery: GalleryRecord, external_id: str) -> IdentityRecord:
        """One identity; an expired one is not found."""
        with self._reading() as connection:
            return self._alive_identity(connection, gallery, external_id)

    def identities(
        self, gallery: GalleryRecord, *, after: str = "", limit: int = 100, filters: Sequence[AttributeFilter] = ()
    ) -> list[IdentityRecord]:
        with self._reading() as connection:
            return identity_rows.select_identities(
                connection, gallery.id, after=after, limit=limit, filters=filters, now=self.now()
            )

    def identity_ids(self, gallery: GalleryRecord, filters: Sequence[AttributeFilter]) -> list[int]:
        with self._reading() as connection:
            return identity_rows.select_identity_ids(connection, gallery.id, filters, now=self.now())

    def expired_identities(self, *, limit: int = 1_000) -> list[tuple[str, str]]:
        """Gallery's name and external id of identities that have expired and are not erased yet."""
        with self._reading() as connection:
            return identity_rows.select_expired(connection, now=self.now(), limit=limit)

    def overdue_identities(self) -> list[OverdueIdentity]:
        """Everybody whose time is over and who is still there, held or not."""
        with self._reading() as connection:
            return identity_rows.select_overdue(connection, now=self.now())

    def person(self, gallery: GalleryRecord, external_id: str) -> HeldPerson:
        """All that is held about an identity, expired or not."""
        return self._unsealing(
            lambda connection, seals: person_rows.select_person(
                connection, gallery.id, _known_identity(connection, gallery, external_id), seals
            )
        )

    def ids_of(self, gallery: GalleryRecord, external_ids: Iterable[str]) -> list[int]:
        with self._reading() as connection:
            return identity_rows.select_ids_of(connection, gallery.id, external_ids)

    def identities_of(self, template_ids: Iterable[int]) -> dict[int, IdentityRecord]:
        """Template → its identity; templates that are erased are missing."""
        wanted = tuple(template_ids)
        if not wanted:
            return {}
        with self._reading() as connection:
            return identity_rows.select_by_template(connection, wanted)

    def seals(self, template_ids: Sequence[int], model_digest: str) -> dict[int, bytes]:
        """Template → the seal on its vector by this model; templates that are erased, or have none, are missing."""
        if not template_ids:
            return {}
        with self._reading() as connection:
            return identity_rows.select_seals(connection, template_ids, model_digest)

    def sources(self, gallery: GalleryRecord, external_id: str) -> dict[str, int]:
        """Digest of photograph → template, for an identity that may not exist yet, or no longer."""
        return self.sources_among(gallery, [external_id]).get(external_id, {})

    def sources_among(self, gallery: GalleryRecord, external_ids: Iterable[str]) -> dict[str, dict[str, int]]:
        """Identity → digest of photograph → template, of those who have templates by the gallery's model."""
        with self._reading() as connection:
            return identity_rows.select_sources_among(
                connection, gallery.id, external_ids, gallery.model.digest, now=self.now()
            )

    def vectors(self, gallery: GalleryRecord, external_id: str) -> list[NDArray[np.float32]]:
        """The vectors of an identity, in order of enrolment; none where it is not enrolled."""

        def read(connection: Connection, seals: Seals) -> list[NDArray[np.float32]]:
            known = identity_rows.select_alive_id(connection, gallery.id, external_id, now=self.now())
            return [] if known is None else identity_rows.select_vectors(connection, known, gallery.model.digest, seals)

        return self._unsealing(read)

    def update_identity(self, gallery: GalleryRecord, external_id: str, values: dict[str, Any]) -> IdentityRecord:
        """Replaces columns of an identity."""
        with self._writing() as connection:
            standing = gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            record = _known_identity(connection, gallery, external_id)
            # Whoever is held stays beyond their time, and the hold must be changed then too.
            if record.is_expired(self.now()) and not (record.hold_reason or "hold_reason" in values):
                raise IdentityNotFound(gallery.name)
            identity_rows.update_identity(connection, record.id, values)
            change_rows.log_change(
                connection, ChangeOp.UPDATE, [0], gallery_id=gallery.id, identity_id=record.id, after=standing
            )
            return _known_identity(connection, gallery, external_id)

    # Enrolment and erasure

    def remembered_among(self, gallery: GalleryRecord, request_ids: Iterable[str]) -> dict[str, RememberedRequest]:
        """The first answers to those of the request ids that were answered."""
        with self._reading() as connection:
            return remembered.select_requests(connection, gallery.id, request_ids, self.erasures.keyed_hash)

    def forget_requests(self, *, before: datetime) -> int:
        with self._writing() as connection:
            return remembered.delete_requests(connection, before=before)

    def enrol(
        self,
        gallery: GalleryRecord,
        enrolment: NewEnrolment,
        *,
        answer_for: Callable[[Enrolled], RememberedRequest | None] = lambda _enrolled: None,
    ) -> Enrolled:
        """Adds templates of one identity, new or known, in one transaction with their changes and the remembered answer.

        A photograph that the identity has already is not added again.
        """
        (enrolled,) = self.enrol_all(gallery, [EnrolmentEntry(enrolment, answer_for)])
        return enrolled

    def enrol_all(
        self,
        gallery: GalleryRecord,
        entries: Sequence[EnrolmentEntry],
        *,
        mark: MarkAfter = no_mark,
        events: EventsAfter | None = None,
    ) -> list[Enrolled]:
        """Enrols one after the other in one transaction, all or none.

        With a mark of how far a bulk enrolment is, and with what the audit says of it.
        """
        return self._enrolments.enrol(gallery, entries, mark=mark, events=events)

    def delete_identity(
        self, gallery: GalleryRecord, external_id: str, *, reason: ErasureReason = ErasureReason.REQUESTED
    ) -> Erased:
        """Erases an identity with its templates. Raises IdentityNotFound, IdentityOnHold."""
        terms = self.erasures.terms(reason)
        with self._writing() as connection:
            standing = gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            record = _known_identity(connection, gallery, external_id)
            tombstone, _ = erasing.erase_identity(connection, terms, gallery, record.id, standing=standing)
        return self._completed(tombstone)

    def delete_template(self, gallery: GalleryRecord, template_id: int) -> Erased:
        """Erases one template. Raises TemplateNotFound, IdentityOnHold."""
        terms = self.erasures.terms()
        with self._writing() as connection:
            standing = gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            tombstone = erasing.erase_template(connection, terms, gallery, template_id, standing=standing)
        return self._completed(tombstone)

    def merge_identities(self, gallery: GalleryRecord, external_id: str, *, into: str) -> Merged:
        """Moves the templates of an identity to another one, and deletes it.

        They get new numbers, since a number in the log or in a snapshot means one face of one identity for ever. What is
        known of the person is what the other identity has, except that the earlier of both expiries counts: no template
        is kept for longer than was said. Nobody is erased, so there is no tombstone: an older backup may bring back both.

        Raises:
            IdentityOnHold: the one that would be deleted.

        """
        if external_id == into:
            raise InvalidArgument("into", "is the same identity; name another one")
        with self._writing() as connection:
            standing = gallery_rows.lock_gallery(
                connection, gallery.id, name=gallery.name, model_digest=gallery.model.digest
            )
            kept, merged = (self._alive_identity(connection, gallery, each) for each in (into, external_id))
            if merged.hold_reason:
                raise IdentityOnHold(gallery.name, merged.hold_reason)
            standing, count = self._move_templates(connection, gallery, merged.id, kept.id, standing=standing)
            standing = _expire_no_later(connection, gallery, kept, merged, standing=standing)
            digester = self.digester(gallery.model.digest)
            standing = erasing.remove_identity(connection, gallery, merged.id, digester=digester, standing=standing)
            return Merged(count, standing.revision)

    def _move_templates(
        self, connection: Connection, gallery: GalleryRecord, identity_id: int, into: int, *, standing: Standing
    ) -> tuple[Standing, int]:
        digester = self.digester(gallery.model.digest)
        copies = identity_rows.copy_templates(connection, identity_id, into, digester=digester, seals=self._seals)
        numbers = [each.id for each in copies]
        self.successions.copy(
            connection, gallery, identity_id, identity_rows.select_sources(connection, into, gallery.model.digest)
        )
        standing = change_rows.log_change(
            connection,
            ChangeOp.ADD,
            numbers,
            gallery_id=gallery.id,
            identity_id=into,
            after=standing.plus(copies, digester),
        )
        return standing, len(copies)

    def _completed(self, tombstone: Tombstone) -> Erased:
        receipt = self.erasures.complete(tombstone)
        return Erased(tombstone.identity_count, tombstone.template_count, tombstone.revision, receipt)

    # The change log

    def changes(self, gallery_id: int, *, after: int) -> Iterator[list[Change]]:
        """Changes above `after` in order, in batches."""
        batch = self._changes(gallery_id, after=after)
        while batch:
            yield batch
            batch = self._changes(gallery_id, after=batch[-1].seq) if len(batch) == CHANGES_PER_READ else []

    def _changes(self, gallery_id: int, *, after: int) -> list[Change]:
        return self._unsealing(
            lambda connection, seals: change_rows.select_changes(
                connection, gallery_id, after=after, limit=CHANGES_PER_READ, seals=seals
            )
        )

    def _alive_identity(self, connection: Connection, gallery: GalleryRecord, external_id: str) -> IdentityRecord:
        record = _known_identity(connection, gallery, external_id)
        if record.is_expired(self.now()):
            raise IdentityNotFound(gallery.name)
        return record

    def change_time(self, gallery_id: int, seq: int) -> datetime | None:
        """When a change was made: it tells a number from the same number in another history."""
        with self._reading() as connection:
            return change_rows.select_change_time(connection, gallery_id, seq)

    def delivered_revision(self, gallery_id: int, collection: str) -> int:
        """How much of a gallery's log a vector engine's collection holds; 0 where nothing is known of it."""
        with self._reading() as connection:
            return delivery_rows.select_revision(connection, gallery_id, collection)

    def additions_after(self, gallery_id: int, revision: int) -> int:
        """How many templates that are still there were added after a revision."""
        with self._reading() as connection:
            return change_rows.count_additions(connection, gallery_id, after=revision)

    def note_delivered(self, gallery_id: int, collection: str, revision: int) -> None:
        """Everything until this revision is in the collection. Nothing happens where the gallery is gone."""
        with self._writing() as connection:
            if gallery_rows.locked_gallery(connection, gallery_id) is not None:
                delivery_rows.put_revision(connection, gallery_id, collection, revision)

    def digester(self, model_digest: str) -> TemplateDigester:
        """Digests of a model's templates, with this installation's key."""
        known = self._digesters.get(model_digest)
        if known is None:
            known = self._digesters[model_digest] = TemplateDigester(self._key, model_digest=model_digest)
        return known

    def secret(self, name: str) -> bytes:
        """A random key of this installation, made on first use."""
        return self.erasures.secret(name)

    # Examination

    @contextmanager
    def moment(self) -> Generator[StoreMoment]:
        """The store as it is now, for as long as it is looked at; others go on changing it."""
        with self._one_moment() as connection:
            yield StoreMoment(connection, self._seals.noticing(self.encryption.refuse_replaced))

    @contextmanager
    def exporting(self) -> Generator[StoreExport]:
        """What archives are made of, as it is now; others go on changing it."""
        with self._one_moment() as connection:
            yield StoreExport(connection, self._seals.noticing(self.encryption.refuse_replaced), self.digester)

    @contextmanager
    def held(self, gallery: GalleryRecord) -> Generator[StoreMoment]:
        """The store while nobody can change this gallery: writers wait, so be quick."""
        writing = self._engine.connect().execution_options(**{WRITE_OPTION: True})
        with named_errors(), writing as connection, connection.begin() as transaction:
            gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            yield StoreMoment(connection, self._seals)
            transaction.rollback()

    @contextmanager
    def amending(self, gallery: GalleryRecord) -> Generator[StoreAmendment]:
        """Puts a gallery in order that was changed by somebody else; all of it is committed, or none."""
        with self._writing() as connection:
            gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            yield StoreAmendment(connection, gallery, self.digester(gallery.model.digest), self._seals)

    def delete_strays(self) -> None:
        """Deletes rows of galleries that are not there."""
        with self._writing() as connection:
            delete_strays(connection)

    # Transactions

    @contextmanager
    def _one_moment(self) -> Generator[Connection]:
        with self.traced(Work.READ), named_errors(), self._engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")  # noqa: PLW2901
            yield connection

    @contextmanager
    def _reading(self) -> Generator[Connection]:
        with self.traced(Work.READ), named_errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Generator[Connection]:
        with self.traced(Work.WRITE), named_errors(), self._for_writing() as connection:
            with connection.begin():
                yield connection
                self.reached(Step.BEFORE_COMMIT)
            self.reached(Step.AFTER_COMMIT)
            self.announcements.announce(connection)

    def _for_writing(self) -> Connection:
        return self._engine.connect().execution_options(**{WRITE_OPTION: True})


def _known_identity(connection: Connection, gallery: GalleryRecord, external_id: str) -> IdentityRecord:
    record = identity_rows.select_identity(connection, gallery.id, external_id)
    if record is None:
        raise IdentityNotFound(gallery.name)
    return record


def _expire_no_later(
    connection: Connection, gallery: GalleryRecord, kept: IdentityRecord, merged: IdentityRecord, *, standing: Standing
) -> Standing:
    if merged.expires_at is None or (kept.expires_at is not None and kept.expires_at <= merged.expires_at):
        return standing
    identity_rows.update_identity(connection, kept.id, {"expires_at": merged.expires_at})
    return change_rows.log_change(
        connection, ChangeOp.UPDATE, [0], gallery_id=gallery.id, identity_id=kept.id, after=standing
    )
