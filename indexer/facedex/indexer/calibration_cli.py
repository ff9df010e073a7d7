"""`facedex-index calibrate`: which threshold keeps a target, from photographs, a gallery or another engine's scores."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from facedex.indexer.calibration.certificate import Subject
from facedex.indexer.calibration.errors import PromiseRefused
from facedex.indexer.cli_session import HasGalleries, check_output, good_order, opened, progress_of, say
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.evaluation.acquisition import AcquiredFace, NotAcquired, acquire
from facedex.indexer.evaluation.labelled import Split
from facedex.indexer.evaluation.people_lists import read_cohorts, read_roles
from facedex.indexer.evaluation.report import Report, answered, cohorts_of
from facedex.indexer.evaluation.report_document import write_csv, write_json
from facedex.indexer.evaluation.report_page import page_of
from facedex.indexer.evaluation.report_table import print_report
from facedex.indexer.evaluation.score_files import read_embeddings, read_scores
from facedex.indexer.evaluation.sources import (
    Calibrated,
    from_file,
    from_gallery,
    from_gallery_and_probes,
    from_photographs,
)
from facedex.indexer.galleries import Galleries
from facedex.indexer.gallery import Gallery
from facedex.indexer.jobs.calibration import subject_of
from facedex.indexer.jobs.folder import Photograph, photographs_of
from facedex.indexer.policy import QualityLimits
from facedex.indexer.vision.pipeline import FacePipeline
from facedex.indexer.vision.workbench import available_cores

REFUSED = 3

SCORES_HELP = (
    "--scores FILE has a row for each search: kind (mated or non_mated); score (the best candidate's of a non-mated search, "
    "the mate's of a mated one; empty where no face was found); rank (of the mate, from 1); probe_identity; "
    "nearest_identity (whose template scored best); gallery_templates (how many were searched). CSV, Parquet or NPZ."
)
EMBEDDINGS_HELP = (
    "--embeddings FILE holds vectors (a list a row, compared by cosine), identities, and role (enrolled or probe; without "
    "it each vector is searched among everybody else's). Parquet or NPZ."
)
EXIT_HELP = "Exit code 3: the target is refused, since the data do not carry it."


@dataclass(frozen=True, slots=True)
class Sources:
    """What the command line names to calibrate from."""

    people: Path | None
    gallery: str | None
    itself: bool
    scores: Path | None
    embeddings: Path | None
    split: Path | None
    seed: int

    def __post_init__(self) -> None:
        files = [each for each in (self.scores, self.embeddings) if each is not None]
        if not files and self.people is None and not self.itself:
            raise InvalidArgument(
                "PEOPLE", "name a folder with a folder a person, --from-gallery, --scores or --embeddings"
            )
        if len(files) > 1 or (files and (self.people is not None or self.itself)):
            raise InvalidArgument("--scores", "name one of PEOPLE, --from-gallery, --scores and --embeddings")
        if files and self.gallery is not None:
            raise InvalidArgument(
                "--gallery",
                "a file does not say of which model it is; calibrate a gallery with PEOPLE or --from-gallery",
            )
        if self.itself and self.gallery is None:
            raise InvalidArgument("--from-gallery", "needs --gallery NAME")
        if self.split is not None and (self.people is None or self.itself):
            raise InvalidArgument("--split", "says who of PEOPLE is enrolled; with --from-gallery the gallery says it")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What shall be told of the calibration, and into which files."""

    target_fpir: float
    templates: int | None
    cohorts: Path | None
    crops: bool
    page: Path | None
    json: Path | None
    csv: Path | None

    def __post_init__(self) -> None:
        if not 0 < self.target_fpir < 1:
            raise InvalidArgument("--target-fpir", "is a share between 0 and 1, such as 0.01")
        for option, file in (("--report", self.page), ("--json", self.json), ("--csv", self.csv)):
            check_output(option, file)


def add_commands(app: typer.Typer) -> None:
    """Adds the command of this module to the program."""
    app.command("calibrate", epilog=f"{SCORES_HELP}\n\n{EMBEDDINGS_HELP}\n\n{EXIT_HELP}")(calibrate)


def calibrate(  # noqa: PLR0913  (a command has as many options as it has)
    context: typer.Context,
    people: Annotated[
        Path | None, typer.Argument(help="A folder with a folder of photographs for each person.")
    ] = None,
    *,
    target_fpir: Annotated[float, typer.Option(help="Share of strangers that may be taken for somebody.")] = 0.01,
    templates: Annotated[
        int | None,
        typer.Option(min=1, help="Size of the gallery to promise it for; else --gallery's, or what was searched."),
    ] = None,
    gallery: Annotated[
        str | None,
        typer.Option(help="Gallery that is calibrated: its model and quality limits count, it keeps the result."),
    ] = None,
    from_gallery: Annotated[
        bool,
        typer.Option(
            "--from-gallery",
            help="Search the gallery with its own templates; PEOPLE, folders named by identity, then correct it as probes.",
        ),
    ] = False,
    scores: Annotated[Path | None, typer.Option(help="Searches of any engine, see below.")] = None,
    embeddings: Annotated[Path | None, typer.Option(help="Vectors of any engine, see below.")] = None,
    split: Annotated[
        Path | None, typer.Option(help="CSV with the columns person and role (enrolled or stranger).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another number splits PEOPLE in another way.")] = 0,
    cohorts: Annotated[Path | None, typer.Option(help="CSV with the columns person and cohort: rates of each.")] = None,
    crops: Annotated[bool, typer.Option("--crops", help="Show the faces of the hardest pairs in the report.")] = False,
    page: Annotated[Path | None, typer.Option("--report", help="Write the report into this file, as .html.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures into this file.")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the DET points into this file.")] = None,
) -> None:
    """Tells which threshold keeps a target FPIR, how sure that is, and what the data cannot carry."""
    with good_order():
        sources = Sources(people, gallery, from_gallery, scores, embeddings, split, seed)
        wanted = Wanted(target_fpir, templates, cohorts, crops, page, json_file, csv_file)
        report = _reported(context.obj, sources, wanted)
    if isinstance(report.answer, PromiseRefused):
        raise typer.Exit(REFUSED)


def _reported(place: HasGalleries, sources: Sources, wanted: Wanted) -> Report:
    if sources.scores is not None:
        return _told(from_file(read_scores(sources.scores)), wanted)
    if sources.embeddings is not None:
        return _told(from_file(read_embeddings(sources.embeddings)), wanted)
    with opened(place) as galleries:
        if sources.gallery is None:
            return _reported_models(galleries.pipeline, sources, wanted)
        return _reported_gallery(galleries, galleries.get(sources.gallery), sources, wanted)


def _reported_models(pipeline: FacePipeline, sources: Sources, wanted: Wanted) -> Report:
    limits = QualityLimits()
    split = _split(sources)
    found = from_photographs(split, partial(_look, pipeline), subject=_subject(pipeline, limits), limits=limits)
    return _told(found, wanted, pipeline=pipeline)


def _reported_gallery(galleries: Galleries, gallery: Gallery, sources: Sources, wanted: Wanted) -> Report:
    pipeline = galleries.pipeline_of(gallery)
    found = _of_gallery(gallery, pipeline, sources)
    wanted = replace(wanted, templates=wanted.templates or gallery.template_count or None)
    report = _told(found, wanted, pipeline=pipeline)
    if report.table.evidence.doubtful_searches:
        say(
            f"people seem to be enrolled twice, which raises thresholds: facedex-index … doctor --gallery {sources.gallery}"
        )
    if isinstance(report.answer, PromiseRefused):
        say(f"gallery {sources.gallery} keeps the certificate that it has, if any")
        return report
    gallery.certify(found.certificate)
    say(
        f"gallery {sources.gallery} has this certificate now; it decides by the target from: "
        f"facedex galleries update {sources.gallery} --target-fpir {wanted.target_fpir:g}"
    )
    return report


def _of_gallery(gallery: Gallery, pipeline: FacePipeline, sources: Sources) -> Calibrated:
    detector = pipeline.detector.manifest
    look = partial(_look, pipeline)
    if not sources.itself:
        limits = gallery.policy.enrolment.quality_limits
        return from_photographs(_split(sources), look, subject=subject_of(gallery, detector), limits=limits)
    with progress_of("searching the gallery with its own templates") as progress:
        if sources.people is None:
            return from_gallery(gallery, detector=detector, progress=progress)
        return from_gallery_and_probes(
            gallery, photographs_of(sources.people), look, detector=detector, progress=progress
        )


def _split(sources: Sources) -> Split:
    photographs = photographs_of(sources.people) if sources.people is not None else []
    if sources.split is None:
        return Split.at_random(photographs, seed=sources.seed)
    return Split.listed(photographs, read_roles(sources.split))


def _subject(pipeline: FacePipeline, limits: QualityLimits) -> Subject:
    embedder, detector = pipeline.embedder.manifest, pipeline.detector.manifest
    return Subject(embedder.name, embedder.sha256, detector.name, detector.digest, asdict(limits))


def _told(found: Calibrated, wanted: Wanted, *, pipeline: FacePipeline | None = None) -> Report:
    """Prints the report and writes it into the files that are asked for."""
    report = answered(
        found.certificate,
        found.searches,
        found.labels,
        target_fpir=wanted.target_fpir,
        gallery_templates=wanted.templates,
    )
    report = replace(report, failures=found.failures, uncorrected=found.uncorrected, notes=found.notes)
    if wanted.cohorts is not None:
        report = replace(report, cohorts=cohorts_of(report, read_cohorts(wanted.cohorts)))
    print_report(Console(), report)
    _write(report, wanted, pipeline)
    return report


def _write(report: Report, wanted: Wanted, pipeline: FacePipeline | None) -> None:
    if wanted.json is not None:
        write_json(report, wanted.json)
    if wanted.csv is not None:
        write_csv(report, wanted.csv)
    if wanted.page is not None:
        crops = _crops(report, pipeline) if wanted.crops and pipeline is not None else None
        wanted.page.write_text(page_of(report, crops=crops), encoding="utf-8")


def _crops(report: Report, pipeline: FacePipeline) -> dict[Path, NDArray[np.uint8]]:
    """The faces of the pairs that are shown: looked at again, since the crops of all would fill the memory."""
    pairs = (*report.hardest_non_mated(), *report.worst_mated())
    paths = {path for pair in pairs for path in (pair.probe_photograph, pair.enrolled_photograph) if path is not None}
    photographs = [Photograph("", path) for path in sorted(paths)]
    found = acquire(pipeline, photographs, workers=available_cores())
    return {each.photograph.path: each.crop for each in found if isinstance(each, AcquiredFace)}


def _look(pipeline: FacePipeline, photographs: Sequence[Photograph]) -> Iterable[AcquiredFace | NotAcquired]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        closing(acquire(pipeline, photographs, workers=available_cores())) as faces,
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
    ):
        yield from progress.track(faces, total=len(photographs), description="looking for faces")
