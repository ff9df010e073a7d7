from __future__ import annotations

import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from facedex.indexer.errors import IdentityNotFound, StoreUnavailable, TemplateNotFound
from facedex.indexer.failpoints import Reached, Step, nothing_fails
from facedex.indexer.set_digest import TemplateDigester
from facedex.indexer.store import change_rows, gallery_rows, identity_rows, job_rows
from facedex.indexer.store.amendment import StoreAmendment, delete_strays
from facedex.indexer.store.engine import WRITE_OPTION, open_engine
from facedex.indexer.store.migrate import upgrade
from facedex.indexer.store.moment import StoreMoment
from facedex.indexer.store.records import (
    AddedTemplate,
    AttributeFilter,
    CertificateRecord,
    Change,
    ChangeOp,
    GalleryRecord,
    IdentityDetails,
    IdentityRecord,
    JobRecord,
    JobState,
    ModelRecord,
    NewEnrolment,
    RememberedRequest,
    SealedTemplate,
    Standing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy import Connection, Engine

CHANGES_PER_READ = 10_000
CONSISTENCY_KEY = "consistency"


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a transaction of enrolment did. `templates` are in the order of the request."""

    templates: tuple[AddedTemplate, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Erased:
    """What a transaction of erasure did."""

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
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._key = b""
        self._digesters: dict[str, TemplateDigester] = {}
        self.reached = reached

    @classmethod
    def open(
        cls,
        url: str,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        reached: Reached = nothing_fails,
    ) -> Store:
        """Connects, and brings the tables to this version's schema."""
        with _named_errors():
            store = cls(open_engine(url), clock=clock, reached=reached)
        with store._writing() as connection:
            upgrade(connection)
            # Read once and here: whoever enrols is inside a transaction, where no second one can make it.
            store._key = change_rows.select_secret(connection, CONSISTENCY_KEY) or b""
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

    def galleries(self, *, after: str = "", limit: int = 100) -> list[GalleryRecord]:
        with self._reading() as connection:
            return gallery_rows.select_galleries(connection, after=after, limit=limit)

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
            _log(connection, ChangeOp.POLICY, [0], gallery=gallery, identity_id=0, after=standing)
            return gallery_rows.select_gallery(connection, name)

    def add_certificate(self, gallery: GalleryRecord, digest: str, document: dict[str, Any]) -> int:
        """Puts a certificate in force, and tells everybody who follows the log; returns the number of the change."""
        with self._writing() as connection:
            standing = gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            gallery_rows.insert_certificate(connection, gallery.id, digest, document, now=self.now())
            return _log(connection, ChangeOp.POLICY, [0], gallery=gallery, identity_id=0, after=standing).revision

    def certificate(self, gallery: GalleryRecord, digest: str = "") -> CertificateRecord | None:
        """The certificate in force, or one by its digest."""
        with self._reading() as connection:
            return gallery_rows.select_certificate(connection, gallery.id, digest)

    def request_rebuild(self, gallery: GalleryRecord) -> int:
        """Tells everybody who follows the log to build the index anew."""
        with self._writing() as connection:
            standing = gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            return _log(connection, ChangeOp.REBUILD, [0], gallery=gallery, identity_id=0, after=standing).revision

    def delete_gallery(self, name: str) -> int:
        with self._writing() as connection:
            return gallery_rows.delete_gallery(connection, name)

    # Jobs

    def create_job(self, kind: str, gallery: str, arguments: dict[str, Any]) -> JobRecord:
        """Long-running work for whichever process takes it up."""
        with self._writing() as connection:
            number = job_rows.insert_job(connection, kind, gallery, arguments, now=self.now())
            return job_rows.select_job(connection, number)

    def job(self, job_id: int) -> JobRecord:
        with self._reading() as connection:
            return job_rows.select_job(connection, job_id)

    def jobs(self, *, before: int | None = None, limit: int = 100) -> list[JobRecord]:
        """A page of jobs, the newest first."""
        with self._reading() as connection:
            return job_rows.select_jobs(connection, before=before, limit=limit)

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

    def sources(self, gallery: GalleryRecord, external_id: str) -> dict[str, int]:
        """Digest of photograph → template, for an identity that may not exist yet, or no longer."""
        with self._reading() as connection:
            known = identity_rows.select_alive_id(connection, gallery.id, external_id, now=self.now())
            return {} if known is None else identity_rows.select_sources(connection, known, gallery.model.digest)

    def vectors(self, gallery: GalleryRecord, external_id: str) -> list[NDArray[np.float32]]:
        """The vectors of an identity, in order of enrolment; none where it is not enrolled."""
        with self._reading() as connection:
            known = identity_rows.select_alive_id(connection, gallery.id, external_id, now=self.now())
            return [] if known is None else identity_rows.select_vectors(connection, known, gallery.model.digest)

    def update_identity(self, gallery: GalleryRecord, external_id: str, values: dict[str, Any]) -> IdentityRecord:
        """Replaces columns of an identity."""
        with self._writing() as connection:
            standing = gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            record = self._alive_identity(connection, gallery, external_id)
            identity_rows.update_identity(connection, record.id, values)
            _log(connection, ChangeOp.UPDATE, [0], gallery=gallery, identity_id=record.id, after=standing)
            return _known_identity(connection, gallery, external_id)

    # Enrolment and erasure

    def remembered(self, gallery: GalleryRecord, request_id: str) -> RememberedRequest | None:
        """The first answer to a request id."""
        with self._reading() as connection:
            return change_rows.select_request(connection, gallery.id, request_id)

    def forget_requests(self, *, before: datetime) -> int:
        with self._writing() as connection:
            return change_rows.delete_requests(connection, before=before)

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
        with self._writing() as connection:
            standing = gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            identity_id, standing = self._put_identity(connection, gallery, enrolment, standing=standing)
            enrolled = self._add_templates(connection, gallery, enrolment, identity_id=identity_id, standing=standing)
            remembered = answer_for(enrolled)
            if remembered is not None:
                change_rows.insert_request(connection, gallery.id, remembered, now=self.now())
            return enrolled

    def _put_identity(
        self, connection: Connection, gallery: GalleryRecord, enrolment: NewEnrolment, *, standing: Standing
    ) -> tuple[int, Standing]:
        details = enrolment.details
        standing = self._erase_expired(connection, gallery, details.external_id, standing=standing)
        known = identity_rows.select_ids_of(connection, gallery.id, [details.external_id])
        if not known:
            identity_id = identity_rows.insert_identity(
                connection, gallery.id, details, expires_at=enrolment.default_expires_at, now=self.now()
            )
            return identity_id, standing
        values = _changed_values(details)
        if values:
            identity_rows.update_identity(connection, known[0], values)
            standing = _log(connection, ChangeOp.UPDATE, [0], gallery=gallery, identity_id=known[0], after=standing)
        return known[0], standing

    def _erase_expired(
        self, connection: Connection, gallery: GalleryRecord, external_id: str, *, standing: Standing
    ) -> Standing:
        # Whoever is enrolled under the id of somebody whose time is over begins anew.
        identity_id = identity_rows.select_expired_id(connection, gallery.id, external_id, now=self.now())
        if identity_id is None:
            return standing
        return self._erase_identity(connection, gallery, identity_id, standing=standing)[1]

    def _add_templates(
        self,
        connection: Connection,
        gallery: GalleryRecord,
        enrolment: NewEnrolment,
        *,
        identity_id: int,
        standing: Standing,
    ) -> Enrolled:
        known = identity_rows.select_sources(connection, identity_id, enrolment.model_digest)
        fresh = {new.source_digest: new for new in enrolment.templates if new.source_digest not in known}
        sealed = self._insert(connection, gallery, enrolment, list(fresh.values()), identity_id)
        added = {source: each.id for source, each in zip(fresh, sealed, strict=True)}
        digester = self.digester(enrolment.model_digest)
        standing = Standing(standing.revision, standing.digest.plus(_members(digester, sealed)))
        standing = _log(
            connection, ChangeOp.ADD, list(added.values()), gallery=gallery, identity_id=identity_id, after=standing
        )
        templates = tuple(_added(new.source_digest, known, added) for new in enrolment.templates)
        return Enrolled(templates, standing.revision)

    def _insert(
        self,
        connection: Connection,
        gallery: GalleryRecord,
        enrolment: NewEnrolment,
        fresh: Sequence[Any],
        identity_id: int,
    ) -> list[SealedTemplate]:
        if not fresh:
            return []
        return identity_rows.insert_templates(
            connection,
            fresh,
            gallery_id=gallery.id,
            identity_id=identity_id,
            model_digest=enrolment.model_digest,
            digester=self.digester(enrolment.model_digest),
            now=self.now(),
        )

    def delete_identity(self, gallery: GalleryRecord, external_id: str) -> Erased:
        """Deletes an identity with its templates."""
        with self._writing() as connection:
            standing = gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            record = _known_identity(connection, gallery, external_id)
            count, standing = self._erase_identity(connection, gallery, record.id, standing=standing)
            return Erased(count, standing.revision)

    def delete_template(self, gallery: GalleryRecord, template_id: int) -> Erased:
        with self._writing() as connection:
            standing = gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            deleted = identity_rows.delete_template(connection, gallery.id, template_id)
            if deleted is None:
                raise TemplateNotFound(gallery.name, template_id)
            identity_id, sealed = deleted
            standing = self._without(gallery, [sealed], standing=standing)
            standing = _log(
                connection, ChangeOp.ERASE, [template_id], gallery=gallery, identity_id=identity_id, after=standing
            )
            return Erased(1, standing.revision)

    def _erase_identity(
        self, connection: Connection, gallery: GalleryRecord, identity_id: int, *, standing: Standing
    ) -> tuple[int, Standing]:
        """Returns how many templates are gone, and how the gallery stands afterwards."""
        sealed = identity_rows.delete_identity(connection, identity_id)
        standing = self._without(gallery, sealed, standing=standing)
        # An identity without templates leaves a trace too, so that the revision says that something changed.
        logged = [each.id for each in sealed] or [0]
        standing = _log(connection, ChangeOp.ERASE, logged, gallery=gallery, identity_id=identity_id, after=standing)
        return len(sealed), standing

    def _without(self, gallery: GalleryRecord, sealed: Sequence[SealedTemplate], *, standing: Standing) -> Standing:
        digester = self.digester(gallery.model.digest)
        return Standing(standing.revision, standing.digest.minus(_members(digester, sealed)))

    # The change log

    def changes(self, gallery_id: int, *, after: int) -> Iterator[list[Change]]:
        """Changes above `after` in order, in batches."""
        while batch := self._changes(gallery_id, after=after):
            yield batch
            after = batch[-1].seq

    def _changes(self, gallery_id: int, *, after: int) -> list[Change]:
        with self._reading() as connection:
            return change_rows.select_changes(connection, gallery_id, after=after, limit=CHANGES_PER_READ)

    def _alive_identity(self, connection: Connection, gallery: GalleryRecord, external_id: str) -> IdentityRecord:
        record = _known_identity(connection, gallery, external_id)
        if record.is_expired(self.now()):
            raise IdentityNotFound(gallery.name)
        return record

    def change_time(self, gallery_id: int, seq: int) -> datetime | None:
        """When a change was made: it tells a number from the same number in another history."""
        with self._reading() as connection:
            return change_rows.select_change_time(connection, gallery_id, seq)

    def digester(self, model_digest: str) -> TemplateDigester:
        """Digests of a model's templates, with this installation's key."""
        known = self._digesters.get(model_digest)
        if known is None:
            known = self._digesters[model_digest] = TemplateDigester(self._key, model_digest=model_digest)
        return known

    def secret(self, name: str) -> bytes:
        """A random key of this installation, made on first use."""
        with self._writing() as connection:
            value = change_rows.select_secret(connection, name)
            if value is None:
                value = secrets.token_bytes(32)
                change_rows.insert_secret(connection, name, value)
            return value

    # Examination

    @contextmanager
    def moment(self) -> Generator[StoreMoment]:
        """The store as it is now, for as long as it is looked at; others go on changing it."""
        with _named_errors(), self._engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")  # noqa: PLW2901
            yield StoreMoment(connection)

    @contextmanager
    def held(self, gallery: GalleryRecord) -> Generator[StoreMoment]:
        """The store while nobody can change this gallery: writers wait, so be quick."""
        writing = self._engine.connect().execution_options(**{WRITE_OPTION: True})
        with _named_errors(), writing as connection, connection.begin() as transaction:
            gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            yield StoreMoment(connection)
            transaction.rollback()

    @contextmanager
    def amending(self, gallery: GalleryRecord) -> Generator[StoreAmendment]:
        """Puts a gallery in order that was changed by somebody else; all of it is committed, or none."""
        with self._writing() as connection:
            gallery_rows.lock_gallery(connection, gallery.id, name=gallery.name)
            yield StoreAmendment(connection, gallery, self.digester(gallery.model.digest))

    def delete_strays(self) -> None:
        """Deletes rows of galleries that are not there."""
        with self._writing() as connection:
            delete_strays(connection)

    # Transactions

    @contextmanager
    def _reading(self) -> Generator[Connection]:
        with _named_errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Generator[Connection]:
        with (
            _named_errors(),
            self._engine.connect().execution_options(**{WRITE_OPTION: True}) as connection,
            connection.begin(),
        ):
            yield connection
            self.reached(Step.BEFORE_COMMIT)
        self.reached(Step.AFTER_COMMIT)


@contextmanager
def _named_errors() -> Generator[None]:
    try:
        yield
    except DBAPIError as error:
        # Only the driver's own words: a statement's parameters never leave this place.
        raise StoreUnavailable(str(error.orig).splitlines()[0] if error.orig else type(error).__name__) from None
    except SQLAlchemyError as error:
        raise StoreUnavailable(type(error).__name__) from None


def _known_identity(connection: Connection, gallery: GalleryRecord, external_id: str) -> IdentityRecord:
    record = identity_rows.select_identity(connection, gallery.id, external_id)
    if record is None:
        raise IdentityNotFound(gallery.name)
    return record


def _members(digester: TemplateDigester, sealed: Sequence[SealedTemplate]) -> Iterator[bytes]:
    return (digester.member(each.id, each.seal) for each in sealed)


def _added(source_digest: str, known: dict[str, int], added: dict[str, int]) -> AddedTemplate:
    if source_digest in known:
        return AddedTemplate(known[source_digest], is_new=False)
    known[source_digest] = added[source_digest]  # the same photograph a second time in one request is not new
    return AddedTemplate(added[source_digest], is_new=True)


def _changed_values(details: IdentityDetails) -> dict[str, Any]:
    values = {
        "display_name": details.display_name,
        "attributes": details.attributes,
        "consent_reference": details.consent_reference,
        "expires_at": details.expires_at,
    }
    return {name: value for name, value in values.items() if value is not None}


def _log(
    connection: Connection,
    op: ChangeOp,
    template_ids: Sequence[int],
    *,
    gallery: GalleryRecord,
    identity_id: int,
    after: Standing,
) -> Standing:
    """Numbers what was changed, and leaves the gallery at the last number, with the digest that is handed in."""
    revision = change_rows.insert_changes(
        connection, op, template_ids, gallery_id=gallery.id, identity_id=identity_id, after=after.revision
    )
    standing = Standing(revision, after.digest)
    if standing.revision != after.revision:
        gallery_rows.set_standing(connection, gallery.id, standing)
    return standing
