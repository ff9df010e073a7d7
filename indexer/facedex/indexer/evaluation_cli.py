"""`facedex-index grid`, `map` and `evaluate`: photographs in, pictures and error rates out. No gallery is touched."""

import json
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from facedex.indexer.calibration.acquisition import AcquiredFace, NotAcquired, acquire, photographs_among
from facedex.indexer.calibration.grid import SimilarityGrid, draw_grid, identity_means, label_of, similarity_grid
from facedex.indexer.calibration.map import draw_map, map_of_faces
from facedex.indexer.errors import IndexerError, InvalidArgument
from facedex.indexer.identification import STRICT_COSINE
from facedex.indexer.jobs.folder import Photograph
from facedex.indexer.models_cli import model_folder
from facedex.indexer.vision.errors import VisionError
from facedex.indexer.vision.pipeline import FacePipeline
from facedex.indexer.vision.workbench import available_cores

WIDEST_TABLE = 12

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Detector = Annotated[str | None, typer.Option(help="Finds faces; else the program's.")]
Embedder = Annotated[str | None, typer.Option(help="Makes vectors; else the program's.")]


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
    with _one_line_errors():
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
    with _one_line_errors():
        faces = _acquired(_pipeline(context.obj), photographs_among([people])[people])
        vectors = np.stack([face.vector for face in faces]) if faces else np.empty((0, 1), np.float32)
        draw_map(faces, map_of_faces(vectors, seed=seed), output)
    people_count = len({face.photograph.identity_id for face in faces})
    say(f"drew {len(faces)} faces of {people_count} people into {output}")


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
    acquired = with_progress(acquire(pipeline, in_order, workers=available_cores()), total=len(in_order))
    for failed in (each for each in acquired if isinstance(each, NotAcquired)):
        say(f"{failed.photograph.path}: {failed.message}")
    return [each for each in acquired if isinstance(each, AcquiredFace)]


def with_progress(acquired: Iterable[AcquiredFace | NotAcquired], *, total: int) -> list[AcquiredFace | NotAcquired]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        return list(progress.track(acquired, total=total, description="looking for faces"))


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


def say(line: str) -> None:
    """One line for people, out of the way of what programs read."""
    Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _one_line_errors() -> Generator[None]:
    """An error of ours becomes one line and exit code 1."""
    try:
        yield
    except (IndexerError, VisionError, OSError) as error:
        say(f"facedex-index: {error}")
        raise typer.Exit(1) from None
