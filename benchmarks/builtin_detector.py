"""The built-in detector, and others beside it: what it finds, how closely, and how often it sees a face where none is.

    python -m benchmarks.builtin_detector PEOPLE --teacher yunet_s_dynamic.onnx --article FOLDER --json detector.json

PEOPLE holds a folder a person, with photographs of one main face. Each is looked at as it is, and a part of them at 160 to
2 000 px. The teacher says where that face and its landmarks are, and what lies beside all faces: the crops without a face.
How far the teacher is from itself, when a picture is a little smaller, is measured too: nobody can be much nearer to it.
`--candidate FILE.onnx`, with its manifest beside it, measures another file on the same pictures; it may be repeated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from benchmarks.machine import describe_machine
from benchmarks.report import Bar, Side, bars_as_json, print_bars, print_table, write_json
from numpy.typing import NDArray

from facedex.indexer.calibration.uncertainty import RateInterval, proportion_interval
from facedex.indexer.jobs.folder import Photograph, photographs_of
from facedex.indexer.vision import builtin
from facedex.indexer.vision.detector import Detector
from facedex.indexer.vision.findings import Findings
from facedex.indexer.vision.manifest import ModelManifest
from facedex.indexer.vision.models import (
    BUILTIN_DETECTOR,
    ModelFile,
    open_detector,
    open_refiner,
    read_manifest,
    read_model,
)
from facedex.indexer.vision.network import Network, open_with_free_size
from facedex.indexer.vision.pipeline import unhurried
from facedex.indexer.vision.refiner import Refiner
from facedex.indexer.vision.scan import Checkpoint, Scan, shrink
from facedex.training.held_out import DetectorFigures, evaluate_detector

BUILTIN_FILE = Path(builtin.__file__ or "").parent / f"{BUILTIN_DETECTOR}.onnx"
LONGER_SIDES = (160, 250, 640, 2000)
LEAST_STRIP_PX = 48
"""Of what lies beside the faces, on a photograph of 250 px."""
AGAIN = "the teacher again"
A_LITTLE_SMALLER = 0.95
LARGEST_FILE_BYTES = 400_000
LARGEST_LANDMARK_ERROR = 0.025
LEAST_FOUND = 0.995
MOST_FALSE_FACES = 0.01


class RememberingDetector(Detector):
    """Looks once at each picture: whoever asks again is told the same."""

    def __init__(self, manifest: ModelManifest, network: Network, refiner: Refiner | None) -> None:
        super().__init__(manifest, network, refiner)
        self._seen: dict[bytes, Findings] = {}

    @staticmethod
    def of(file: Path) -> RememberingDetector:
        """The detector of an ONNX file with its manifest beside it."""
        model = _model(file)
        network = open_with_free_size(model.manifest.name, model.graph, model.manifest.input)
        return RememberingDetector(model.manifest, network, open_refiner(model))

    def look(self, picture: NDArray[np.uint8]) -> Findings:
        key = sha256(picture.tobytes() + bytes(str(picture.shape), "ascii")).digest()
        if key not in self._seen:
            self._seen[key] = super().look(picture)
        return self._seen[key]


@dataclass(frozen=True, slots=True)
class AgainScan(Scan):
    """Looks at each picture a little smaller, so that every edge lies elsewhere on the detector's grid."""

    def find(self, picture: NDArray[np.uint8], *, shrunk_by: int, checkpoint: Checkpoint) -> Findings:
        smaller = shrink(picture, A_LITTLE_SMALLER)
        found = Scan.find(self, smaller, shrunk_by=shrunk_by, checkpoint=checkpoint)
        return found.placed(scale=picture.shape[1] / smaller.shape[1], left=0, top=0)


@dataclass(frozen=True, slots=True)
class Row:
    """One detector on photographs of one size; `longer_side` is 0 for photographs as they are."""

    name: str
    longer_side: int
    figures: DetectorFigures
    faceless_crops: int
    false_faces: int

    @property
    def false_rate(self) -> RateInterval | None:
        """False faces a crop without one, 1 at most; None where no crop was looked at."""
        if not self.faceless_crops:
            return None
        return proportion_interval(min(self.false_faces, self.faceless_crops), self.faceless_crops)


@dataclass(frozen=True, slots=True)
class Article:
    """Photographs of another origin on which every detector should find somebody."""

    photographs: int
    with_face: int


def main(
    people: Annotated[Path, typer.Argument(help="A folder a person.")],
    *,
    teacher: Annotated[Path, typer.Option(help="The detector that says where faces are, manifest beside it.")],
    article: Annotated[Path | None, typer.Option(help="Photographs on each of which somebody should be found.")] = None,
    candidate: Annotated[list[Path] | None, typer.Option(help="Another detector; may be repeated.")] = None,
    photographs_a_size: Annotated[int, typer.Option(min=1, help="Photographs for each size.")] = 200,
    as_they_are: Annotated[bool, typer.Option(help="Look at all photographs in their own size too.")] = True,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measures the built-in detector."""
    machine = describe_machine()
    shown = photographs_of(people)
    some = shown[:: max(1, len(shown) // photographs_a_size)]
    files = {"built-in": BUILTIN_FILE} | {str(file): file for file in candidate or []}
    rows = [row for side in LONGER_SIDES for row in _rows(files, teacher, some, side)]
    rows += _rows(files, teacher, shown, 0) if as_they_are else []
    articles = {} if article is None else {name: _on_article(file, article) for name, file in files.items()}
    bars = {name: _bars(name, file, rows, articles.get(name)) for name, file in files.items()}
    _print(rows, bars)
    write_json(json_path, {"machine": machine, "rows": [_plain(row) for row in rows], "bars": _bars_plain(bars)})


def _rows(files: dict[str, Path], teacher: Path, photographs: Sequence[Photograph], side: int) -> list[Row]:
    """The teacher looks once, for all of them; nothing is remembered from one size to the next."""
    taught = Scan(RememberingDetector.of(teacher))
    crops = list(faceless_crops(taught, photographs, side)) if side else []
    scans = {name: Scan(open_detector(_model(file))) for name, file in files.items()}
    rows = [_row(name, scan, taught, photographs, crops, side) for name, scan in scans.items()]
    return [*rows, _row(AGAIN, AgainScan(open_detector(_model(teacher))), taught, photographs, [], side)]


def _model(file: Path) -> ModelFile:
    return read_model(file, read_manifest(file.with_suffix(".toml")))


def _row(
    name: str,
    own: Scan,
    teacher: Scan,
    photographs: Sequence[Photograph],
    crops: Sequence[NDArray[np.uint8]],
    side: int,
) -> Row:
    figures = evaluate_detector(own, teacher, (scaled(each.path, side) for each in photographs))
    false = sum(len(own.find(crop, shrunk_by=1, checkpoint=unhurried)) for crop in crops)
    return Row(name, side, figures, len(crops), false)


def faceless_crops(teacher: Scan, photographs: Sequence[Photograph], side: int) -> Iterator[NDArray[np.uint8]]:
    """What lies to the left of all faces, where the teacher finds none."""
    for photograph in photographs:
        picture = scaled(photograph.path, side)
        found = teacher.find(picture, shrunk_by=1, checkpoint=unhurried)
        left = int(found.corners[:, 0].min()) if len(found) else 0
        strip = np.ascontiguousarray(picture[:, : max(0, left)])
        is_wide = strip.shape[1] >= LEAST_STRIP_PX * side // 250
        if is_wide and not len(teacher.find(strip, shrunk_by=1, checkpoint=unhurried)):
            yield strip


def scaled(path: Path, side: int) -> NDArray[np.uint8]:
    """The photograph with this longer side, or as it is where the side is 0."""
    picture = cv2.imread(str(path))
    if picture is None:
        raise typer.BadParameter(f"{path} is no picture")
    if not side:
        return np.asarray(picture, np.uint8)
    scale = side / max(picture.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=how), np.uint8)


def _on_article(file: Path, folder: Path) -> Article:
    own = Scan(open_detector(_model(file)))
    photographs = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in {".jpg", ".jpeg", ".png"}]
    found = [len(own.find(scaled(path, 0), shrunk_by=1, checkpoint=unhurried)) for path in photographs]
    return Article(len(found), sum(count > 0 for count in found))


def _bars(name: str, file: Path, rows: Sequence[Row], article: Article | None) -> list[Bar]:
    own = [row for row in rows if row.name == name]
    crops, false = (sum(getattr(row, each) for row in own) for each in ("faceless_crops", "false_faces"))
    model = _model(file)
    size = len(model.graph) + len(model.refiner or b"")
    bars = [Bar("bytes of its files", Side.AT_MOST, LARGEST_FILE_BYTES, size)]
    for row in own:
        where = f"{row.longer_side} px" if row.longer_side else "as they are"
        bars.append(Bar(f"main face found, {where}", Side.AT_LEAST, LEAST_FOUND, row.figures.found_rate.estimate))
        error = row.figures.median_landmark_error
        bars.append(Bar(f"median landmark error, {where}", Side.AT_MOST, LARGEST_LANDMARK_ERROR, error))
    if crops:
        bars.append(Bar("false faces a crop without one", Side.AT_MOST, MOST_FALSE_FACES, false / crops))
    if article is not None:
        bars.append(Bar("of the article's photographs", Side.AT_LEAST, article.photographs, article.with_face))
    return bars


def _plain(row: Row) -> dict[str, object]:
    found, false = row.figures.found_rate, row.false_rate
    return {
        "detector": row.name,
        "longer_side": row.longer_side or None,
        "photographs": row.figures.photographs,
        "main_face_found": [found.estimate, found.lower, found.upper],
        "median_landmark_error": row.figures.median_landmark_error,
        "faceless_crops": row.faceless_crops,
        "false_faces": row.false_faces,
        "false_faces_a_crop": None if false is None else [false.estimate, false.lower, false.upper],
    }


def _bars_plain(bars: dict[str, list[Bar]]) -> dict[str, object]:
    return {name: bars_as_json(each) for name, each in bars.items()}


def _print(rows: Sequence[Row], bars: dict[str, list[Bar]]) -> None:
    headings = ("", "px", "photographs", "main face found (95 %)", "landmarks", "false faces")
    cells = [
        (
            row.name,
            str(row.longer_side or "own"),
            str(row.figures.photographs),
            _rate(row.figures.found_rate),
            f"{row.figures.median_landmark_error:.2%}",
            f"{row.false_faces} of {row.faceless_crops}" if row.faceless_crops else "",
        )
        for row in rows
    ]
    print_table("Detection", headings, cells)
    for name, each in bars.items():
        typer.echo(name)
        print_bars(each)


def _rate(rate: RateInterval) -> str:
    return f"{rate.estimate:.1%} ({rate.lower:.1%} to {rate.upper:.1%})"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    typer.run(main)
