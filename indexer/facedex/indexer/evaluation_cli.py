"""`facedex-index grid`, `map` and `evaluate`: photographs in, pictures and error rates out. No gallery is touched."""

import json
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Protocol

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from facedex.indexer.calibration.uncertainty import RateInterval
from facedex.indexer.cli_session import check_output, good_order, say
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.evaluation.acquisition import AcquiredFace, NotAcquired, acquire, photographs_among
from facedex.indexer.evaluation.evaluation import Evaluation, Faces, OpenSet, evaluate
from facedex.indexer.evaluation.grid import SimilarityGrid, draw_grid, identity_means, label_of, similarity_grid
from facedex.indexer.evaluation.map import draw_map, map_of_faces
from facedex.indexer.evaluation.pairs import FAR, PairEvaluation, evaluate_pairs, photographs_in, read_pairs
from facedex.indexer.identification import STRICT_COSINE
from facedex.indexer.jobs.folder import Photograph, photographs_of
from facedex.indexer.models_cli import model_folder
from facedex.indexer.vision.pipeline import FacePipeline
from facedex.indexer.vision.workbench import available_cores

WIDEST_TABLE = 12  # columns of cosines; more of them do not fit a terminal
PICTURES = (".png", ".svg", ".pdf")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


class HasModels(Protocol):
    """What the program's callback leaves in the context: where the data folder is, and which models are meant."""

    @property
    def data(self) -> Path: ...
    @property
    def detector(self) -> str: ...
    @property
    def embedder(self) -> str: ...


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the program."""
    app.command("grid")(grid)
    app.command("map")(draw_map_of_people)
    app.command("evaluate")(evaluate_models)


def grid(
    context: typer.Context,
    photographs: Annotated[list[Path] | None, typer.Argument(help="Photographs, or folders of them.")] = None,
    *,
    rows: Annotated[list[Path] | None, typer.Option(help="Photographs or folders for the left edge.")] = None,
    columns: Annotated[list[Path] | None, typer.Option(help="Photographs or folders for the upper edge.")] = None,
    output: Annotated[Path | None, typer.Option(help="Draw the grid into this file, as .png, .svg or .pdf.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Cosine of a match; else the model's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compares photographs with each other: cosines in a grid."""
    with good_order():
        check_output("--output", output, kinds=PICTURES)
        edges = _edges(photographs, rows=rows, columns=columns)
        pipeline = _pipeline(context.obj)
        faces = _acquired(pipeline, (*edges.rows, *edges.columns))
        compared = similarity_grid(_faces_on(edges.rows, faces), _faces_on(edges.columns, faces))
        cosine = _threshold(pipeline, requested=threshold)
        if output is not None:
            draw_grid(compared, output, threshold=cosine)
    _report_grid(compared, threshold=cosine, as_json=as_json)


def draw_map_of_people(
    context: typer.Context,
    people: Annotated[Path, typer.Argument(help="A folder of photographs, or with a folder for each person.")],
    *,
    output: Annotated[Path, typer.Option(help="Draw the map into this file, as .png, .svg or .pdf.")] = Path("map.png"),
    seed: Annotated[int, typer.Option(help="Another number gives another arrangement.")] = 0,
) -> None:
    """Draws who resembles whom: t-SNE of the vectors, each point as its face."""
    with good_order():
        check_output("--output", output, kinds=PICTURES)
        faces = _acquired(_pipeline(context.obj), photographs_among([people])[people])
        vectors = np.stack([face.vector for face in faces]) if faces else np.empty((0, 1), np.float32)
        draw_map(faces, map_of_faces(vectors, seed=seed), output)
    people_count = len({face.photograph.identity_id for face in faces})
    say(f"drew {len(faces)} faces of {people_count} people into {output}")


def evaluate_models(
    context: typer.Context,
    people: Annotated[Path, typer.Argument(help="A folder with a folder of photographs for each person.")],
    *,
    detector: Annotated[str | None, typer.Option(help="Finds faces; else the program's.")] = None,
    embedder: Annotated[str | None, typer.Option(help="Makes vectors; else the program's.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Compare the pairs of LFW's pairs.txt instead.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures into this file.")] = None,
) -> None:
    """Measures models: the first photograph of each person is enrolled, those with one only are strangers."""
    with good_order():
        check_output("--json", json_file)
        pipeline = _pipeline(context.obj, detector=detector, embedder=embedder)
        run = _evaluated_people(pipeline, people) if pairs is None else _evaluated_pairs(pipeline, people, pairs)
        if json_file is not None:
            json_file.write_text(json.dumps(run.document(), indent=2), encoding="utf-8")
    console = Console()
    run.print_to(console)
    if run.faces.not_acquired:
        _print_not_acquired(console, run.faces.not_acquired)
    console.print(f"{run.looked_at} photographs, {run.faces_per_second:.1f} faces a second", highlight=False)


@dataclass(frozen=True, slots=True)
class _Run:
    """What was measured with which models, and how long looking at the photographs took."""

    models: dict[str, str]
    faces: Faces
    seconds: float
    result: Evaluation | PairEvaluation

    @property
    def looked_at(self) -> int:
        return len(self.faces.vectors) + len(self.faces.not_acquired)

    @property
    def faces_per_second(self) -> float:
        return len(self.faces.vectors) / self.seconds

    def document(self) -> dict[str, object]:
        failures = [
            {"path": str(each.photograph.path), "failure": each.failure.value, "message": each.message}
            for each in self.faces.not_acquired
        ]
        return {
            "models": self.models,
            "photographs": self.looked_at,
            "faces_per_second": round(self.faces_per_second, 2),
            "not_acquired": failures,
            **(_pairs_document(self.result) if isinstance(self.result, PairEvaluation) else _document(self.result)),
        }

    def print_to(self, console: Console) -> None:
        if isinstance(self.result, PairEvaluation):
            _print_pairs(console, self.result)
        else:
            _print_evaluation(console, self.result)


def _evaluated_people(pipeline: FacePipeline, people: Path) -> _Run:
    photographs = photographs_of(people)
    parts = OpenSet.of(photographs)
    faces, seconds = _looked_at(pipeline, photographs)
    result = evaluate(parts, faces, default_threshold=pipeline.embedder.manifest.default_threshold)
    return _Run(_names_of(pipeline), faces, seconds, result)


def _evaluated_pairs(pipeline: FacePipeline, people: Path, listed: Path) -> _Run:
    pairs = read_pairs(listed, people=people)
    faces, seconds = _looked_at(pipeline, photographs_in(pairs))
    return _Run(_names_of(pipeline), faces, seconds, evaluate_pairs(pairs, faces))


def _looked_at(pipeline: FacePipeline, photographs: Sequence[Photograph]) -> tuple[Faces, float]:
    started = time.perf_counter()
    faces = Faces.of(_with_progress(acquire(pipeline, photographs, workers=available_cores()), total=len(photographs)))
    return faces, time.perf_counter() - started


def _names_of(pipeline: FacePipeline) -> dict[str, str]:
    return {"detector": pipeline.detector.manifest.name, "embedder": pipeline.embedder.manifest.name}


def _document(result: Evaluation) -> dict[str, object]:
    return {
        "enrolled": len(result.parts.enrolled),
        "mated_probes": len(result.parts.mated_probes),
        "strangers": len(result.parts.strangers),
        "not_enrolled": result.not_enrolled,
        "hit_rates": [asdict(each) for each in result.hit_rates],
        "error_rates": [asdict(each) for each in result.error_rates],
    }


def _pairs_document(result: PairEvaluation) -> dict[str, object]:
    return {**asdict(result), "far": FAR}


def _print_evaluation(console: Console, result: Evaluation) -> None:
    parts = result.parts
    who = f"{len(parts.enrolled)} people enrolled, {len(parts.mated_probes)} probes of them, {len(parts.strangers)} strangers"
    table = Table("threshold for", "cosine", "FPIR", "FNIR, rank 1", title=who, caption="in brackets: 95 % intervals")
    for each in result.error_rates:
        name = "the model" if each.target_fpir is None else f"FPIR {each.target_fpir:.1%}"
        table.add_row(name, f"{each.threshold:.3f}", _interval(each.fpir), _interval(each.fnir))
    hits = Table("rank", "mate found within it", title="Whatever the score")
    for hit in result.hit_rates:
        hits.add_row(str(hit.rank), _interval(hit.rate))
    console.print(table, hits)
    for each in result.error_rates:
        if each.target_fpir is not None and not each.is_measured:
            _say_too_few(console, each.target_fpir, strangers=len(parts.strangers))
    if not parts.strangers:
        console.print("no strangers: add people with one photograph each, and FPIR can be measured")


def _say_too_few(console: Console, target_fpir: float, *, strangers: int) -> None:
    needed = round(1 / target_fpir)
    console.print(
        f"FPIR {target_fpir:.1%} is more than {strangers} strangers can show: its threshold stands above all of them; "
        f"{needed} would show one false positive, {30 * needed} a steady rate",
        highlight=False,
    )


def _print_pairs(console: Console, result: PairEvaluation) -> None:
    table = Table("", "", title=f"{result.pairs} pairs, {result.failed} of them without a face")
    table.add_row("accuracy", f"{result.accuracy:.2%} ± {result.standard_deviation:.2%} over the folds")
    table.add_row("threshold", f"{result.threshold:.3f}")
    table.add_row(f"true accept rate at FAR {FAR:g}", f"{result.tar:.2%}")
    table.add_row("area under the ROC curve", f"{result.area:.5f}")
    console.print(table)


def _print_not_acquired(console: Console, failures: Sequence[NotAcquired]) -> None:
    table = Table("photograph", "what to do", title=f"{len(failures)} photographs without a face, counted as misses")
    for each in failures:
        table.add_row(escape(str(each.photograph.path)), escape(each.message))
    console.print(table)


def _interval(rate: RateInterval) -> str:
    return f"{rate.estimate:.1%} ({rate.lower:.1%} – {rate.upper:.1%})"


@dataclass(frozen=True, slots=True)
class _Edges:
    """The photographs of the left and of the upper edge."""

    rows: tuple[Photograph, ...]
    columns: tuple[Photograph, ...]


def _edges(photographs: list[Path] | None, *, rows: list[Path] | None, columns: list[Path] | None) -> _Edges:
    """Photographs that are named for no edge are on both."""
    left, upper = (edge or photographs or [] for edge in (rows, columns))
    if not left or not upper:
        raise InvalidArgument("PHOTO", "name photographs or a folder of them, or both --rows and --columns")
    found = photographs_among([*left, *upper])
    return _Edges(*(tuple(each for place in edge for each in found[place]) for edge in (left, upper)))


def _faces_on(edge: Iterable[Photograph], faces: list[AcquiredFace]) -> list[AcquiredFace]:
    wanted = set(edge)
    on_edge = [face for face in faces if face.photograph in wanted]
    if not on_edge:
        raise InvalidArgument("PHOTO", "no face was found on an edge of the grid; name other photographs")
    return on_edge


def _acquired(pipeline: FacePipeline, photographs: Iterable[Photograph]) -> list[AcquiredFace]:
    """The faces, an identity's beside each other; photographs without one are listed on stderr."""
    in_order = sorted(set(photographs), key=lambda each: (each.identity_id, each.path))
    faces: list[AcquiredFace] = []
    for each in _with_progress(acquire(pipeline, in_order, workers=available_cores()), total=len(in_order)):
        if isinstance(each, AcquiredFace):
            faces.append(each)
        else:
            say(f"{each.photograph.path}: {each.message}")
    return faces


def _with_progress(
    acquired: Iterable[AcquiredFace | NotAcquired], *, total: int
) -> Generator[AcquiredFace | NotAcquired]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(acquired, total=total, description="looking for faces")


def _report_grid(compared: SimilarityGrid, *, threshold: float, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_grid_document(compared, threshold=threshold), indent=2))
        return
    rows, columns = ([label_of(face) for face in edge] for edge in (compared.rows, compared.columns))
    if len(columns) <= WIDEST_TABLE:
        cosines = np.where(compared.is_itself, np.nan, compared.cosines)
        _print_cosines("Cosines", rows, columns, cosines, threshold=threshold)
    means = identity_means(compared)
    if len(means.columns) < len(columns) or len(columns) > WIDEST_TABLE:
        _print_cosines("Mean cosines of people", means.rows, means.columns, means.cosines, threshold=threshold)


def _grid_document(compared: SimilarityGrid, *, threshold: float) -> dict[str, object]:
    means = identity_means(compared)
    return {
        "threshold": threshold,
        "rows": [_described(face) for face in compared.rows],
        "columns": [_described(face) for face in compared.columns],
        "cosines": compared.cosines.round(6).tolist(),
        "mean_cosines": {
            "rows": means.rows,
            "columns": means.columns,
            "cosines": [[None if np.isnan(mean) else round(mean, 6) for mean in row] for row in means.cosines.tolist()],
        },
    }


def _described(face: AcquiredFace) -> dict[str, object]:
    return {"path": str(face.photograph.path), "identity": face.photograph.identity_id}


def _print_cosines(
    title: str, rows: Sequence[str], columns: Sequence[str], cosines: NDArray[np.float64], *, threshold: float
) -> None:
    people = (Column(name, overflow="fold", min_width=5, justify="right") for name in columns)
    table = Table(Column("", no_wrap=True), *people, title=f"{title} (a match from {threshold:.3f})", padding=0)
    for name, values in zip(rows, cosines.tolist(), strict=True):
        table.add_row(name, *(_cell(value, threshold=threshold) for value in values))
    Console().print(table)


def _cell(cosine: float, *, threshold: float) -> str:
    if np.isnan(cosine):
        return ""
    return f"[bold green]{cosine:.2f}[/]" if cosine >= threshold else f"{cosine:.2f}"


def _pipeline(models: HasModels, *, detector: str | None = None, embedder: str | None = None) -> FacePipeline:
    cv2.setNumThreads(1)  # each photograph has a core of its own
    folder = model_folder(models)
    return FacePipeline(
        detector=folder.load_detector(detector or models.detector),
        embedder=folder.load_embedder(embedder or models.embedder),
    )


def _threshold(pipeline: FacePipeline, *, requested: float | None) -> float:
    known = pipeline.embedder.manifest.default_threshold
    return next(cosine for cosine in (requested, known, STRICT_COSINE) if cosine is not None)
