"""Archives made and imported, and all that a gallery holds, to compare it before and after."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from tests.indexer.erasure_site import ErasureSite, made_template

from facedex.indexer.archive.container import ArchiveReader
from facedex.indexer.archive.exporting import Exporter
from facedex.indexer.archive.importing import ArchiveImport, Counts
from facedex.indexer.identification import Query
from facedex.indexer.store.portable import PortablePerson
from facedex.indexer.store.records import as_utc
from facedex.indexer.store.schema import identity, template
from facedex.indexer.store.store import Store

ADA = "ada-4711-lovelace"
PASSPHRASE = "seven horses under one bridge"  # noqa: S105  (nothing is kept with it)


def export(site: ErasureSite, archive: Path, *, passphrase: str | None = None) -> dict[str, int]:
    """The gallery `staff`; a minute later, so that what comes next is after it."""
    counts = Exporter(site.store, passphrase=passphrase).gallery("staff", archive, lambda _share: None).counts
    site.clock.advance(minutes=1)
    return counts


def export_erasures(site: ErasureSite, archive: Path) -> Path:
    Exporter(site.store, passphrase=None).erasures(archive)
    return archive


def import_into(
    store: Store, archive: Path, *lists: Path, gallery: str = "staff", passphrase: str = "", groups: int | None = None
) -> dict[str, int]:
    """As the command does it; what became of people and templates. `groups`: it is stopped after so many."""
    with ExitStack() as files:
        readers = [files.enter_context(ArchiveReader.open(each, lambda: passphrase)) for each in (archive, *lists)]
        work = ArchiveImport(store, readers[0], lists=readers[1:])
        work.check(lambda _share: None)
        job = work.begin(gallery)
        running = work.run(job)
        for number, _ in enumerate(running, start=1):
            if number == groups:
                running.close()
        return Counts.of(store.job(job.id).result).numbers


def rehearse(store: Store, archive: Path, *lists: Path, gallery: str = "staff") -> dict[str, int]:
    with ExitStack() as files:
        readers = [files.enter_context(ArchiveReader.open(each, str)) for each in (archive, *lists)]
        counts = Counts.of(None)
        for group in ArchiveImport(store, readers[0], lists=readers[1:]).rehearse(gallery):
            counts = counts.plus(group)
        return counts.numbers


def held(store: Store, gallery: str = "staff") -> list[dict[str, Any]]:
    """Everybody with all that is held of them, but for the numbers that each database gives anew."""
    with store.exporting() as moment:
        people = list(moment.people(moment.gallery(gallery), now=store.now()))
    return [_without_numbers(each) for each in people if each is not None]


def _without_numbers(person: PortablePerson) -> dict[str, Any]:
    names = [each for each in person.__dataclass_fields__ if each not in {"number", "templates"}]
    faces = [(each.vector, each.source_digest, each.quality, each.crop, each.created_at) for each in person.templates]
    return {name: getattr(person, name) for name in names} | {"templates": faces}


def rows(store: Store) -> list[tuple[Any, ...]]:
    """All rows of people and templates as they are, numbers included; not what is made of a random key."""
    columns = [each for each in template.c if each.name not in {"seal", "gallery_id"}]
    people = [each for each in identity.c if each.name not in {"gallery_id", "key_id"}]
    with store._reading() as connection:
        return [
            tuple(str(as_utc(value) if isinstance(value, datetime) else value) for value in row)
            for statement in (select(*people).order_by(identity.c.id), select(*columns).order_by(template.c.id))
            for row in connection.execute(statement)
        ]


def names(site: ErasureSite, gallery: str = "staff") -> list[str]:
    return [each.external_id for each in site.store.identities(site.store.gallery(gallery))]


def answers(site: ErasureSite, people: Sequence[str], gallery: str = "staff") -> list[list[tuple[str, float]]]:
    """Who is found for a face of each, with the exact scores."""
    site.galleries.follow()
    probes = [made_template(name, 0).vector[None] for name in people]
    faces = [site.galleries.get(gallery).identify(each, Query(threshold=-1.0, limit=5)).faces[0] for each in probes]
    return [[(each.identity.external_id, each.score) for each in face.candidates] for face in faces]
