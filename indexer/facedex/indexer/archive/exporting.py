"""Makes archives: of a gallery, of one person, or of who was erased."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from typing import TYPE_CHECKING

from facedex.indexer.archive.container import written
from facedex.indexer.archive.manifest import Kind, Manifest, Origin
from facedex.indexer.archive.rows import Rows, erasures_file
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.jobs.subject_access import VectorChoice, person_files
from facedex.indexer.store.tombstones import moment_text

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from facedex.indexer.archive.container import ArchiveWriter
    from facedex.indexer.store.exporting import StoreExport
    from facedex.indexer.store.portable import ErasedRow, PortablePerson
    from facedex.indexer.store.records import CertificateRecord, GalleryRecord
    from facedex.indexer.store.store import Store

PEOPLE, TEMPLATES, ERASURES = "identities", "templates", "erasures"
CERTIFICATES = "certificates.json"
# What is in memory at once, and what a reader has to hold at once.
PEOPLE_PER_PART = 1_024
TEMPLATES_PER_PART = 1_024
ERASURES_PER_PART = 10_000


@dataclass(frozen=True, slots=True)
class Exported:
    """What an archive holds; see `Manifest.counts`."""

    counts: dict[str, int]


class Exporter:
    """Makes archives of a store as it is at one moment, while others go on changing it.

    With a pass phrase the file is encrypted; without one, vectors stand in it as they are.
    """

    def __init__(self, store: Store, *, passphrase: str | None) -> None:
        self._store = store
        self._passphrase = passphrase

    def gallery(self, name: str, target: Path, report: Callable[[float], None]) -> Exported:
        """A gallery with everybody in it. Raises GalleryNotFound, TemplateAltered, InvalidArgument."""
        with self._begun(target, Kind.GALLERY) as (moment, archive):
            record = moment.gallery(name)
            archive.origin = Origin.of(record, policy=record.policy)
            everybody = moment.people(record, now=self._store.now())
            archive.add_people(record, _reported(everybody, record.template_count, report))
            archive.add_certificates(moment.certificates(record))
            archive.add_erasures(moment.erasures_of(record))
        return Exported(archive.counts)

    def person(self, name: str, external_id: str, target: Path) -> Exported:
        """One person of a gallery, and for that person the same in words. Raises IdentityNotFound as well."""
        with self._begun(target, Kind.PERSON) as (moment, archive):
            record = moment.gallery(name)
            archive.origin = Origin.of(record, policy={})
            archive.add_people(record, moment.person(record, external_id))
            held = moment.held_person(record, external_id)
            # The vectors stand beside it, where they can be read to the last bit.
            choice = VectorChoice.WITHOUT_VECTORS
            archive.add_files(person_files(held, gallery=name, vectors=choice, exported_at=archive.made_at))
        return Exported(archive.counts)

    def erasures(self, target: Path) -> Exported:
        """Who was erased here, for those who import an archive that was made before. It names nobody."""
        with self._begun(target, Kind.ERASURES) as (moment, archive):
            archive.add_erasures(moment.erasures())
        return Exported(archive.counts)

    @contextmanager
    def _begun(self, target: Path, kind: Kind) -> Generator[tuple[StoreExport, _Archive]]:
        if target.exists():
            raise InvalidArgument("ARCHIVE", f"{target} is there already; choose another name, or delete it first")
        # Before the first row is read: who is erased while it is read was erased after the archive was made.
        made_at = self._store.now()
        with self._store.exporting() as moment, written(target, self._passphrase) as writer:
            archive = _Archive(writer, made_at)
            yield moment, archive
            store_id = self._store.imports.store_id
            writer.finish(Manifest(kind, store_id, made_at, _software(), archive.origin, archive.counts, ()))


class _Archive:
    """An archive in the making, in parts of bounded size."""

    def __init__(self, writer: ArchiveWriter, made_at: datetime) -> None:
        self._writer = writer
        self.made_at = made_at
        self.origin: Origin | None = None
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> dict[str, int]:
        return dict(self._counts)

    def add_people(self, record: GalleryRecord, people: Iterable[PortablePerson | None]) -> None:
        rows = Rows(record.model)
        for number, part in enumerate(_parts(self._readable(people))):
            templates = sum(len(each.templates) for each in part)
            self._writer.add(f"{PEOPLE}/{number:06}.parquet", rows.people_file(part), rows=len(part))
            self._writer.add(f"{TEMPLATES}/{number:06}.parquet", rows.templates_file(part), rows=templates)

    def _readable(self, people: Iterable[PortablePerson | None]) -> Iterator[PortablePerson]:
        last = -1
        for each in people:
            if each is None:
                self._counts["unreadable"] += 1
                continue
            self._counts["identities"] += each.number != last
            self._counts["templates"] += len(each.templates)
            self._counts["crops"] += sum(face.crop is not None for face in each.templates)
            last = each.number
            yield each

    def add_certificates(self, certificates: Sequence[CertificateRecord]) -> None:
        documents = [
            {"digest": each.digest, "document": each.document, "created_at": moment_text(each.created_at)}
            for each in certificates
        ]
        self._counts["certificates"] = len(documents)
        self._writer.add(CERTIFICATES, json.dumps(documents, ensure_ascii=False).encode(), rows=len(documents))

    def add_erasures(self, erased: Iterable[ErasedRow]) -> None:
        for number, part in enumerate(_batched(erased)):
            self._counts["erasures"] += len(part)
            self._writer.add(f"{ERASURES}/{number:06}.parquet", erasures_file(part), rows=len(part))

    def add_files(self, files: Iterable[tuple[str, bytes]]) -> None:
        for name, content in files:
            self._writer.add(name, content)


def _parts(people: Iterable[PortablePerson]) -> Iterator[list[PortablePerson]]:
    """People in their order; nobody is in a part twice, since whoever comes again fills a part alone."""
    part: list[PortablePerson] = []
    templates = 0
    for each in people:
        if part and (len(part) == PEOPLE_PER_PART or templates + len(each.templates) > TEMPLATES_PER_PART):
            yield part
            part, templates = [], 0
        part.append(each)
        templates += len(each.templates)
    if part:
        yield part


def _batched(erased: Iterable[ErasedRow]) -> Iterator[list[ErasedRow]]:
    rest = iter(erased)
    while part := list(islice(rest, ERASURES_PER_PART)):
        yield part


def _reported(
    people: Iterable[PortablePerson | None], total: int, report: Callable[[float], None]
) -> Iterator[PortablePerson | None]:
    done = 0
    for each in people:
        yield each
        done += 0 if each is None else len(each.templates)
        report(done / max(1, total))


def _software() -> str:
    return f"facedex {version('facedex')}"
