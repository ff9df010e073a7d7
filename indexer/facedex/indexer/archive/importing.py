"""Imports an archive into a gallery: checked first, then group by group, going on exactly where it was killed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from facedex.indexer.archive.errors import ArchiveDamaged, ArchiveForeign, ErasuresUnfit, GalleryErased, ModelDiffers
from facedex.indexer.archive.exporting import CERTIFICATES, ERASURES, PEOPLE, TEMPLATES
from facedex.indexer.archive.manifest import Kind, Origin
from facedex.indexer.archive.rows import Rows, erasures
from facedex.indexer.calibration.certificate import Certificate
from facedex.indexer.calibration.errors import CertificateInvalid
from facedex.indexer.errors import GalleryNotFound, InvalidArgument
from facedex.indexer.galleries import GALLERY_NAME
from facedex.indexer.jobs.resuming import ended_in_order, resumed_or_begun
from facedex.indexer.policy import policy_from_json
from facedex.indexer.store.importing import ImportTerms, PersonOutcome
from facedex.indexer.store.records import CertificateRecord, LedgerMark
from facedex.indexer.store.tombstones import ErasureScope

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from facedex.indexer.archive.container import ArchiveReader
    from facedex.indexer.archive.manifest import Manifest, Member
    from facedex.indexer.policy import GalleryPolicy
    from facedex.indexer.store.importing import PersonVerdict
    from facedex.indexer.store.portable import ErasedRow, PortablePerson
    from facedex.indexer.store.records import GalleryRecord, JobRecord
    from facedex.indexer.store.store import Store

# People of one transaction, at fixed positions of the archive, so that a second run makes the same transactions.
GROUP_PEOPLE = 128
COUNTED = tuple(each.value for each in PersonOutcome)
COUNTED_TEMPLATES = ("new_templates", "known_templates", "erased_templates")


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of people and templates so far, by outcome."""

    numbers: dict[str, int]

    @classmethod
    def of(cls, stored: dict[str, Any] | None) -> Counts:
        return cls({name: int((stored or {}).get(name, 0)) for name in (*COUNTED, *COUNTED_TEMPLATES)})

    def plus(self, verdicts: Sequence[PersonVerdict]) -> Counts:
        added = Counter(each.outcome.value for each in verdicts)
        for name in COUNTED_TEMPLATES:
            added[name] = sum(getattr(each, name) for each in verdicts)
        return Counts({name: count + added[name] for name, count in self.numbers.items()})


class ArchiveImport:
    """One archive, and the lists of erasures that are given with it.

    What is written depends on the archive and on what is in the gallery, never on when a process was killed: after a
    kill, the same call leaves what an undisturbed one leaves, and a second import of the same archive changes nothing.
    """

    def __init__(self, store: Store, archive: ArchiveReader, *, lists: Sequence[ArchiveReader] = ()) -> None:
        self._store = store
        self._archive = archive
        self._lists = lists

    @property
    def origin(self) -> Origin:
        """Raises ArchiveForeign where it is no archive of people."""
        origin = self._archive.manifest.origin
        if origin is None:
            raise ArchiveForeign("it is a list of erasures, not one of people")
        return origin

    def check(self, report: Callable[[float], None]) -> None:
        """Every byte of every file, before anything is written; `report` is told which share is done.

        Raises:
            ArchiveDamaged: a digest is not that of what it stands for.
            ErasuresUnfit: a list is another installation's, or older than the archive.

        """
        for each in self._lists:
            self._check_list(each.manifest)
        readers = (self._archive, *self._lists)
        for place, reader in enumerate(readers):

            def report_one(done: float, place: int = place) -> None:
                report((place + done) / len(readers))

            reader.check(report_one)

    def _check_list(self, told: Manifest) -> None:
        if told.store_id != self._archive.manifest.store_id:
            raise ErasuresUnfit("is of another installation than the archive")
        if told.made_at < self._archive.manifest.made_at:
            raise ErasuresUnfit("is older than the archive")

    def remember_erasures(self) -> int:
        """Notes who was erased elsewhere, for all later imports; returns how many were not known yet."""
        return sum(self._store.imports.remember(part) for part in self._erased_parts())

    def total(self) -> int:
        """Rows of people."""
        return sum(each.rows for each in self._archive.members(PEOPLE))

    # Without writing

    def rehearse(self, name: str) -> Generator[list[PersonVerdict]]:
        """What would become of each person, in the archive's order. Raises what `begin` raises."""
        target = self._known_gallery(name)
        terms = self._terms(target)
        for group in self._groups(skipped=0):
            yield self._store.imports.judged(target, group, terms)

    # Writing

    def begin(self, name: str) -> JobRecord:
        """The archive's unfinished import into a gallery, or a new one; makes the gallery where there is none.

        Raises:
            ModelDiffers, GalleryErased, InvalidArgument: it cannot go there.
            GalleryNotFound: one person's archive needs a gallery that is there.
            JobTaken: a process that lives is at it.

        """
        known = self._known_gallery(name)
        self._terms(known)  # refused before anything is written
        self.remember_erasures()
        if known is None:
            self._create(name)
        return resumed_or_begun(self._store, name, {"archive": self._archive.digest, "items": self.total()})

    def run(self, job: JobRecord) -> Generator[list[PersonVerdict]]:
        """Yields each group when it is in. Interrupted or closed, the job waits for the same call.

        Raises:
            JobTaken: it was cancelled, or another process has it.
            ArchiveDamaged: what it says is nothing that a gallery holds.

        """
        ledger = _Ledger(job)
        with ended_in_order(self._store, job, lambda: ledger.counts.numbers):
            gallery = self._store.gallery(job.gallery)
            terms = self._terms(gallery)
            for group in self._groups(skipped=job.position):
                verdicts = self._store.imports.enrol(gallery, group, terms, mark=ledger.mark)
                ledger.move(verdicts)
                yield verdicts

    # The target

    def _create(self, name: str) -> None:
        origin = self.origin
        certificates = self._certificates()
        self._store.imports.create_gallery(name, model=origin.model, policy=origin.policy, certificates=certificates)

    def _known_gallery(self, name: str) -> GalleryRecord | None:
        model = self.origin.model
        if not GALLERY_NAME.fullmatch(name):
            raise InvalidArgument("--gallery", f"{name!r} is no name of a gallery: a-z, 0-9, '-' and '_', up to 63")
        try:
            known = self._store.gallery(name)
        except GalleryNotFound:
            if self._archive.manifest.kind is not Kind.GALLERY:
                raise
            self._policy()  # as the gallery will have it
            return None
        if known.model.digest != model.digest:
            raise ModelDiffers(gallery=name, own=known.model, archived=model)
        return known

    def _terms(self, target: GalleryRecord | None) -> ImportTerms:
        manifest = self._archive.manifest
        told = (each for part in self._erased_parts() for each in part)
        barred = self._store.imports.barred(manifest.store_id, made_at=manifest.made_at, gallery=target, told=told)
        if barred.names(ErasureScope.GALLERY, self.origin.number, self.origin.created_at):
            raise GalleryErased(self.origin.name)
        policy = self._policy() if target is None else policy_from_json(target.policy)
        return ImportTerms(manifest.made_at, barred, policy.keep_crops, self._default_expiry(policy.retention_seconds))

    def _default_expiry(self, retention_seconds: float | None) -> datetime | None:
        """Who never expired in their own gallery expires in one that promises it."""
        own = self._policy().retention_seconds if self.origin.policy else None
        if retention_seconds is None or retention_seconds == own:
            return None
        return self._store.now() + timedelta(seconds=retention_seconds)

    def _policy(self) -> GalleryPolicy:
        try:
            return policy_from_json(self.origin.policy)
        except (KeyError, TypeError, ValueError, InvalidArgument):
            raise ArchiveDamaged("its policy is none that a gallery has") from None

    # The archive's content

    def _certificates(self) -> list[CertificateRecord]:
        members = [each for each in self._archive.manifest.members if each.name == CERTIFICATES]
        try:
            rows = [row for each in members for row in json.loads(self._archive.content(each))]
            return [_certificate(row) for row in rows]
        except (KeyError, TypeError, ValueError, RecursionError, CertificateInvalid):
            raise ArchiveDamaged(f"{CERTIFICATES} holds no certificates") from None

    def _erased_parts(self) -> Iterator[list[ErasedRow]]:
        for reader in (self._archive, *self._lists):
            for each in reader.members(ERASURES):
                yield list(erasures(each, reader.content(each)))

    def _groups(self, *, skipped: int) -> Iterator[list[PortablePerson]]:
        position = 0
        for people, templates in self._parts():
            end = position + people.rows
            # What is done with is not even read.
            members = self._people(people, templates) if end > skipped else []
            for start in range(max(0, skipped - position), len(members), GROUP_PEOPLE):
                yield members[start : start + GROUP_PEOPLE]
            position = end

    def _parts(self) -> Iterator[tuple[Member, Member]]:
        people, templates = self._archive.members(PEOPLE), self._archive.members(TEMPLATES)
        if [each.name.replace(PEOPLE, TEMPLATES) for each in people] != [each.name for each in templates]:
            raise ArchiveDamaged("people and templates are not in the same parts")
        return zip(people, templates, strict=True)

    def _people(self, people: Member, templates: Member) -> list[PortablePerson]:
        contents = (self._archive.content(each) for each in (people, templates))
        return Rows(self.origin.model).people(people, next(contents), templates, next(contents))


class _Ledger:
    """Where an import stands."""

    def __init__(self, job: JobRecord) -> None:
        self._job = job
        self._position = job.position
        self.counts = Counts.of(job.result)

    def mark(self, verdicts: Sequence[PersonVerdict]) -> LedgerMark:
        """The ledger after these people."""
        return LedgerMark(
            job=self._job,
            before=self._position,
            position=self._position + len(verdicts),
            total=int(self._job.arguments["items"]),
            counts=self.counts.plus(verdicts).numbers,
        )

    def move(self, verdicts: Sequence[PersonVerdict]) -> None:
        self.counts = self.counts.plus(verdicts)
        self._position += len(verdicts)


def _certificate(row: dict[str, Any]) -> CertificateRecord:
    certificate = Certificate.from_json(row["document"], digest=row["digest"])
    return CertificateRecord(certificate.digest, row["document"], datetime.fromisoformat(row["created_at"]))
