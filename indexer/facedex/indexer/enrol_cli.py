"""`facedex-index enrol`: many photographs or vectors at once."""

from __future__ import annotations

import csv
import itertools
import json
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from facedex.indexer.cli_session import (
    ENGINE,
    INTERRUPTED,
    RAY_ADDRESS,
    check_output,
    dealt_with,
    good_order,
    opened,
    opened_anew,
    opened_for_a_rehearsal,
    say,
)
from facedex.indexer.enroller import Enroller
from facedex.indexer.enrolment import EnrolOutcome
from facedex.indexer.errors import GalleryNotFound, InvalidArgument, JobTaken
from facedex.indexer.galleries import model_record
from facedex.indexer.jobs.bulk import BulkEnrolment, findings_of
from facedex.indexer.jobs.compreface import DumpOptions
from facedex.indexer.jobs.engines import Engine, EngineKind, sight
from facedex.indexer.jobs.folder import people_without_photographs
from facedex.indexer.jobs.sources import bulk_source
from facedex.indexer.policy import GalleryPolicy
from facedex.indexer.store.records import JobState
from facedex.indexer.vision.decode import ImageLimits

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from contextlib import AbstractContextManager

    from facedex.indexer.cli_session import HasGalleries
    from facedex.indexer.galleries import Galleries
    from facedex.indexer.gallery import Gallery
    from facedex.indexer.jobs.bulk import BulkOutcome
    from facedex.indexer.jobs.bulk_item import BulkItem, BulkSource
    from facedex.indexer.store.records import BulkFinding, JobRecord, ModelRecord
    from facedex.indexer.store.store import Store

SHOWN = 100


@dataclass(frozen=True, slots=True)
class Located:
    """A finding, and the item that it is about; not the item itself, which may hold a photograph."""

    place: str
    identity_id: str
    finding: BulkFinding

    @classmethod
    def of(cls, item: BulkItem, finding: BulkFinding) -> Located:
        return cls(_writable(item.place), item.details.external_id, finding)


def _writable(place: str) -> str:
    """A file's name may be no text: then bytes are shown by their numbers."""
    return place.encode("utf-8", "backslashreplace").decode()


def add_commands(app: typer.Typer) -> None:
    """Adds the command of this module to the program."""
    app.command()(enrol)


def enrol(  # noqa: PLR0913  (a command has as many options as it has)
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder with a folder of photographs for each person, a tar of one, a CSV or Parquet list "
            "(path, identity, attributes), a plain pg_dump of CompreFace (.sql, .sql.gz), or with --model vectors: NPZ or "
            "Parquet of vectors and identities, or such a dump."
        ),
    ],
    *,
    gallery: Annotated[str, typer.Option(help="Name of the gallery; it is created where there is none.")],
    model: Annotated[str | None, typer.Option(help="Digest or name of the model that made the vectors.")] = None,
    collection: Annotated[
        str | None, typer.Option(help="Name or API key of the face collection in a dump of CompreFace.")
    ] = None,
    calculator: Annotated[
        str | None, typer.Option(help="What --model is called in a dump of CompreFace; vectors of others are refused.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would happen, and enrol nobody.")] = False,
    engine: Annotated[EngineKind, ENGINE] = EngineKind.LOCAL,
    ray_address: Annotated[str | None, RAY_ADDRESS] = None,
    report: Annotated[Path | None, typer.Option(help="CSV file for all refusals and warnings.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Enrols many photographs or vectors. After an interruption, the same command goes on where it stopped.

    Exits with 0 also where photographs were refused: the report says which, and why.
    """
    with (
        good_order(interrupted="stopped; run the same command again to go on"),
        _galleries_with(gallery, context.obj, dry_run=dry_run) as galleries,
    ):
        check_output("--report", report, kinds=(".csv",))
        chosen = bulk_source(
            source,
            model_digest=_digest(galleries, gallery, model),
            max_image_bytes=ImageLimits().max_bytes,
            dump=DumpOptions(collection, calculator),
        )
        survey = chosen.survey()  # a source that cannot be read leaves no new gallery
        for person in people_without_photographs(source) if source.is_dir() else []:
            say(f"there is no photograph in {person}")
        people = _gallery_or_new(galleries, gallery, dry_run=dry_run)
        looking = Engine(engine, ray_address, context.obj.device)
        with sight(looking, galleries, galleries.eyes(people)) as seen:
            bulk = BulkEnrolment(galleries.store, Enroller(people, seen.eyes), workers=seen.callers)
            if dry_run:
                summary = _rehearsed(bulk, chosen, total=survey.count)
            else:
                summary = _enrolled(galleries.store, bulk, chosen, bulk.begin(gallery, survey))
        _print(summary, as_json=as_json)
        _write(report, summary.findings)
    if summary.done < summary.total:
        raise typer.Exit(INTERRUPTED)


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of the items of a source."""

    total: int
    done: int
    counts: dict[str, int]
    findings: list[Located]
    job: JobRecord | None = None

    @property
    def is_rehearsal(self) -> bool:
        return self.job is None


def _galleries_with(name: str, place: HasGalleries, *, dry_run: bool) -> AbstractContextManager[Galleries]:
    """Those in which the gallery is or may be made; a new one is rehearsed among galleries that are forgotten afterwards."""
    return opened_for_a_rehearsal(place) if dry_run and _is_new(name, place) else opened(place)


def _is_new(name: str, place: HasGalleries) -> bool:
    with opened_anew(place) as store:
        return name not in store.revisions()


def _gallery_or_new(galleries: Galleries, name: str, *, dry_run: bool) -> Gallery:
    try:
        return galleries.get(name)
    except GalleryNotFound:
        galleries.create(name, GalleryPolicy())
        say(f"gallery {name} would be created" if dry_run else f"created gallery {name}")
        return galleries.get(name)


def _digest(galleries: Galleries, name: str, model: str | None) -> str | None:
    """Of the model, which has to be the gallery's, or that of new galleries."""
    if model is None:
        return None
    own = _model_of(galleries, name)
    if model in {own.digest, own.name}:
        return own.digest
    raise InvalidArgument(
        "--model", f"the gallery's model is {own.name} ({own.digest}); other vectors say nothing in it"
    )


def _model_of(galleries: Galleries, name: str) -> ModelRecord:
    try:
        return galleries.record(name).model
    except GalleryNotFound:
        return model_record(galleries.pipeline.embedder.manifest)


# Work


def _enrolled(store: Store, bulk: BulkEnrolment, source: BulkSource, job: JobRecord) -> Summary:
    total = int(job.arguments["items"])
    going_on = f", going on behind {job.position} of {total}" if job.position else ""
    say(f"this is job {job.id}{going_on}")
    places = _Places.of_earlier_runs(source.items(), store.bulk_findings(job), job.position)
    with suppress(JobTaken):
        dealt_with("enrolling", places.watched(bulk.run(job, source)), total=total, done=job.position)
    ended = _own_end(store, job)
    counts = ended.result or {}
    findings = [places.located(each) for each in store.bulk_findings(ended)]
    return Summary(
        total, ended.position, {each.value: counts.get(each.value, 0) for each in EnrolOutcome}, findings, ended
    )


def _own_end(store: Store, job: JobRecord) -> JobRecord:
    """The job as this process left it.

    Raises:
        JobTaken: another process has it now.

    """
    ended = store.job(job.id)
    if ended.state is JobState.CANCELLED:
        say(f"job {job.id} was cancelled; what is enrolled stays")
    elif ended.owner not in {"", job.owner}:
        raise JobTaken(job.id)
    return ended


def _rehearsed(bulk: BulkEnrolment, source: BulkSource, *, total: int) -> Summary:
    rehearsal = _Rehearsal()
    done = dealt_with("enrolling", rehearsal.watched(bulk.rehearse(source)), total=total, done=0)
    return Summary(total, done, rehearsal.counts, rehearsal.findings)


class _Rehearsal:
    """Counts and findings of what would become of items."""

    def __init__(self) -> None:
        self.counts = {each.value: 0 for each in EnrolOutcome}
        self.findings: list[Located] = []

    def watched(self, groups: Generator[list[BulkOutcome]]) -> Generator[list[BulkOutcome]]:
        positions = itertools.count()
        with closing(groups):
            for group in groups:
                for each in group:
                    self.counts[each.result.outcome.value] += 1
                    self.findings += [
                        Located.of(each.item, found) for found in findings_of(each.result, next(positions))
                    ]
                yield group


class _Places:
    """Which item each finding is about, as the source was when it was looked at: a folder may change meanwhile."""

    def __init__(self, position: int) -> None:
        self._position = position
        self._items: dict[int, tuple[str, str]] = {}

    @classmethod
    def of_earlier_runs(cls, items: Iterator[BulkItem], findings: Iterable[BulkFinding], position: int) -> _Places:
        """Those before the position at which this run goes on; the source is still the one of the earlier runs."""
        places = cls(position)
        wanted = {each.position for each in findings}
        for number, item in enumerate(items) if wanted else ():
            if number in wanted:
                places._note(number, item)
            if number >= max(wanted):
                break
        return places

    def watched(self, groups: Generator[list[BulkOutcome]]) -> Generator[list[BulkOutcome]]:
        with closing(groups):
            for group in groups:
                for each in group:
                    if findings_of(each.result, self._position):
                        self._note(self._position, each.item)
                    self._position += 1
                yield group

    def _note(self, position: int, item: BulkItem) -> None:
        self._items[position] = (_writable(item.place), item.details.external_id)

    def located(self, finding: BulkFinding) -> Located:
        place, identity_id = self._items.get(finding.position, (f"item {finding.position}", ""))
        return Located(place, identity_id, finding)


# Results


def _write(report: Path | None, findings: Iterable[Located]) -> None:
    if report is None:
        return
    with report.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("item", "identity", "refused", "reason", "message"))
        for each in findings:
            refused = "yes" if each.finding.is_refusal else "no"
            writer.writerow((each.place, each.identity_id, refused, each.finding.reason, each.finding.message))


def _print(summary: Summary, *, as_json: bool) -> None:
    refusals = [each for each in summary.findings if each.finding.is_refusal]
    warnings = [each for each in summary.findings if not each.finding.is_refusal]
    if as_json:
        document = {
            "job": None if summary.job is None else summary.job.id,
            "state": None if summary.job is None else summary.job.state.value,
            "items": summary.total,
            "done": summary.done,
            **summary.counts,
            "refusals": [_row(each) for each in refusals],
            "warnings": [_row(each) for each in warnings],
        }
        print(json.dumps(document, indent=2))
        return
    console = Console()
    _print_findings(console, "Would be refused" if summary.is_rehearsal else "Refused", refusals)
    _print_findings(console, "Look at them", warnings)
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in summary.counts.items())
    console.print(f"{'would be: ' if summary.is_rehearsal else ''}{counts} of {summary.total}")


def _print_findings(console: Console, title: str, found: list[Located]) -> None:
    if not found:
        return
    table = Table(Column("item", overflow="fold"), "reason", "what to do", title=title)  # the end of a path counts
    for each in found[:SHOWN]:
        table.add_row(escape(each.place), each.finding.reason.replace("_", " "), escape(each.finding.message))
    console.print(table)
    if len(found) > SHOWN:
        console.print(f"and {len(found) - SHOWN} more: --report FILE.csv has them all")


def _row(each: Located) -> dict[str, object]:
    return {
        "item": each.place,
        "identity": each.identity_id,
        "reason": each.finding.reason,
        "message": each.finding.message,
    }
