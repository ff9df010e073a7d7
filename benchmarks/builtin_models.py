"""The built-in detector and embedder beside others on the same photographs, with 95 % intervals, and faces per second.

    python -m benchmarks.builtin_models PEOPLE --models FOLDER --json builtin_models.json

PEOPLE holds a folder a person: the first photograph of those with several is enrolled, those with one are strangers. FOLDER
holds the other models, NAME.onnx with NAME.toml; a missing one is left out, and so is face_recognition where it is not
installed. All of facedex's rows find faces with the built-in detector; face_recognition finds its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from benchmarks.machine import describe_machine
from benchmarks.report import Bar, Side, bars_as_json, print_bars, print_table, write_json
from benchmarks.workers import Task, run_in_threads
from numpy.typing import NDArray

from facedex.indexer.calibration.uncertainty import RateInterval
from facedex.indexer.evaluation.acquisition import AcquisitionFailure, NotAcquired, acquire
from facedex.indexer.evaluation.evaluation import Evaluation, Faces, OpenSet, evaluate
from facedex.indexer.jobs.folder import Photograph, photographs_of
from facedex.indexer.vision import builtin
from facedex.indexer.vision.detector import Detector
from facedex.indexer.vision.embedder import Embedder
from facedex.indexer.vision.findings import Findings
from facedex.indexer.vision.manifest import ModelManifest
from facedex.indexer.vision.models import (
    BUILTIN_DETECTOR,
    BUILTIN_EMBEDDER,
    ModelFolder,
    open_detector,
    open_embedder,
    read_manifest,
)
from facedex.indexer.vision.network import Network, open_with_free_size
from facedex.indexer.vision.pipeline import FacePipeline
from facedex.indexer.vision.scan import Scan
from facedex.training.held_out import DetectorFigures, evaluate_detector

PEER = "face_recognition"
SMALL_PEER = "mobileface_v2"
OTHERS = ("face-reidentification-retail-0095", "w600k_mbf_int8", SMALL_PEER)
TARGET_FPIR = 0.01
LONGER_SIDES = (160, 250, 640, 2000)
LANDMARK_TEACHER = "yunet_s_dynamic"
LEAST_STRIP_PX = 48


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to a vector: what it makes of the photographs, and one face embedded for the clock."""

    name: str
    look: Callable[[OpenSet], Faces]
    embed_once: Task


@dataclass(frozen=True, slots=True)
class Row:
    """Rates with 95 % intervals; faces per second are medians over rounds, on one thread."""

    name: str
    rank_one: RateInterval
    found: RateInterval
    threshold: float
    not_found: int
    rounds: list[float]

    @property
    def faces_per_second(self) -> float:
        return float(np.median(self.rounds))


class RememberingDetector(Detector):
    """Looks once at each picture: all embedders are given the same faces."""

    def __init__(self, manifest: ModelManifest, network: Network) -> None:
        super().__init__(manifest, network)
        self._seen: dict[bytes, Findings] = {}

    @staticmethod
    def builtin() -> RememberingDetector:
        file = Path(builtin.__file__ or "").parent / f"{BUILTIN_DETECTOR}.onnx"
        manifest = read_manifest(file.with_suffix(".toml"))
        return RememberingDetector(manifest, open_with_free_size(manifest.name, file.read_bytes(), manifest.input))

    def look(self, picture: NDArray[np.uint8]) -> Findings:
        key = sha256(picture.tobytes() + bytes(str(picture.shape), "ascii")).digest()
        if key not in self._seen:
            self._seen[key] = super().look(picture)
        return self._seen[key]


def main(
    people: Annotated[Path, typer.Argument(help="A folder a person.")],
    *,
    models: Annotated[Path, typer.Option(help="Folder of the other models.")],
    rounds: Annotated[int, typer.Option(help="How often the speed is measured, in turns.")] = 5,
    seconds: Annotated[float, typer.Option(help="Duration of one measurement.")] = 1.0,
    photographs_a_size: Annotated[
        int, typer.Option(help="Photographs for each size that the detector is tried in.")
    ] = 200,
    peer: Annotated[bool, typer.Option(help="Measure face_recognition too, which takes longest.")] = True,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measures the built-in models."""
    machine = describe_machine()
    shown = photographs_of(people)
    parts = OpenSet.of(shown)
    contenders = list(_contenders(models, with_peer=peer))
    evaluations = {each.name: _evaluated(each, parts) for each in contenders}
    speeds = _speeds(contenders, rounds=rounds, seconds=seconds)
    rows = [_row(name, *evaluations[name], speeds[name]) for name in evaluations]
    detection = _detection(shown[:: max(1, len(shown) // photographs_a_size)], models)
    bars = _bars({row.name: row for row in rows})
    _print(rows, detection, bars)
    document: dict[str, object] = {
        "machine": machine,
        "enrolled": len(parts.enrolled),
        "mated_probes": len(parts.mated_probes),
        "strangers": len(parts.strangers),
        "rows": [asdict(row) | {"faces_per_second": row.faces_per_second} for row in rows],
        "detection": detection,
        "bars": bars_as_json(bars),
    }
    write_json(json_path, document)


def _contenders(models: Path, *, with_peer: bool) -> Iterator[Contender]:
    detector = RememberingDetector.builtin()

    def contender(name: str, embedder: Embedder) -> Contender:
        pipeline = FacePipeline(detector=detector, embedder=embedder)
        crop = np.random.default_rng(1).integers(0, 256, (embedder.size[1], embedder.size[0], 3)).astype(np.uint8)
        return Contender(name, lambda parts: _looked_at(pipeline, parts), lambda: embedder.embed(crop))

    yield contender("built-in", ModelFolder(models).load_embedder(BUILTIN_EMBEDDER))
    for name in OTHERS:
        if (models / f"{name}.onnx").exists():
            graph = (models / f"{name}.onnx").read_bytes()
            yield contender(name, open_embedder(read_manifest(models / f"{name}.toml"), graph))
    if with_peer and find_spec(PEER) is not None:
        yield _peer()


def _looked_at(pipeline: FacePipeline, parts: OpenSet) -> Faces:
    return Faces.of(acquire(pipeline, _all(parts), workers=1))


def _all(parts: OpenSet) -> list[Photograph]:
    return [*parts.enrolled, *parts.mated_probes, *parts.strangers]


def _peer() -> Contender:
    peer: Any = import_module(PEER)
    picture = np.random.default_rng(1).integers(0, 256, (250, 250, 3)).astype(np.uint8)
    box = [(60, 190, 190, 60)]
    return Contender(PEER, lambda parts: _peer_looked_at(peer, parts), lambda: peer.face_encodings(picture, box))


def _peer_looked_at(peer: Any, parts: OpenSet) -> Faces:
    """Its distances as inner products: of (2t, −|t|², 1) and (p, 1, −|p|²) that is −|t − p|²."""
    enrolled = set(parts.enrolled)
    vectors: dict[Photograph, NDArray[np.float32]] = {}
    failed: list[NotAcquired] = []
    for photograph in _all(parts):
        encoding = _peer_encoding(peer, photograph.path)
        if encoding is None:
            failed.append(NotAcquired(photograph, AcquisitionFailure.NO_FACE, "no face was found"))
            continue
        squared = float(encoding @ encoding)
        ends = (2 * encoding, [-squared, 1]) if photograph in enrolled else (encoding, [1, -squared])
        vectors[photograph] = np.concatenate(ends).astype(np.float32)
    return Faces(vectors, tuple(failed))


def _peer_encoding(peer: Any, path: Path) -> NDArray[np.float64] | None:
    picture = peer.load_image_file(path)
    boxes = peer.face_locations(picture)
    if not boxes:
        return None
    largest = max(boxes, key=lambda box: (box[2] - box[0]) * (box[1] - box[3]))
    return np.asarray(peer.face_encodings(picture, [largest])[0], np.float64)


def _evaluated(contender: Contender, parts: OpenSet) -> tuple[Evaluation, Faces]:
    faces = contender.look(parts)
    return evaluate(parts, faces, default_threshold=None), faces


def _speeds(contenders: Sequence[Contender], *, rounds: int, seconds: float) -> dict[str, list[float]]:
    """In turns, so that what else the machine does hits all of them."""
    for contender in contenders:
        contender.embed_once()
    turns = [
        {each.name: run_in_threads([each.embed_once], seconds=seconds).per_second for each in contenders}
        for _ in range(rounds)
    ]
    return {each.name: [turn[each.name] for turn in turns] for each in contenders}


def _row(name: str, evaluation: Evaluation, faces: Faces, rounds: list[float]) -> Row:
    (rates,) = (each for each in evaluation.error_rates if each.target_fpir == TARGET_FPIR)
    found = RateInterval(1 - rates.fnir.upper, 1 - rates.fnir.estimate, 1 - rates.fnir.lower)
    return Row(name, evaluation.hit_rates[0].rate, found, rates.threshold, len(faces.not_acquired), rounds)


def _detection(photographs: Sequence[Photograph], models: Path) -> list[dict[str, object]]:
    """The built-in detector beside YuNet, a row a size of the photographs."""
    if not (models / f"{LANDMARK_TEACHER}.onnx").exists():
        return []
    own = Scan(ModelFolder(models).load_detector(BUILTIN_DETECTOR))
    graph = (models / f"{LANDMARK_TEACHER}.onnx").read_bytes()
    teacher = Scan(open_detector(read_manifest(models / f"{LANDMARK_TEACHER}.toml"), graph))
    return [_detection_at(own, teacher, photographs, side) for side in LONGER_SIDES]


def _detection_at(own: Scan, teacher: Scan, photographs: Sequence[Photograph], side: int) -> dict[str, object]:
    figures: DetectorFigures = evaluate_detector(own, teacher, (_scaled(each.path, side) for each in photographs))
    crops = list(_faceless(teacher, photographs, side))
    false = sum(len(own.find(crop, shrunk_by=1, checkpoint=_unhurried)) for crop in crops)
    return {
        "longer_side": side,
        "photographs": figures.photographs,
        "main_face_found": asdict(figures.found_rate),
        "median_landmark_error": figures.median_landmark_error,
        "faceless_crops": len(crops),
        "false_faces": false,
    }


def _faceless(teacher: Scan, photographs: Sequence[Photograph], side: int) -> Iterator[NDArray[np.uint8]]:
    """What lies to the left of all faces, where the teacher finds none."""
    for photograph in photographs:
        picture = _scaled(photograph.path, side)
        found = teacher.find(picture, shrunk_by=1, checkpoint=_unhurried)
        left = int(found.corners[:, 0].min()) if len(found) else 0
        strip = np.ascontiguousarray(picture[:, : max(0, left)])
        is_wide = strip.shape[1] >= LEAST_STRIP_PX * side // 250
        if is_wide and not len(teacher.find(strip, shrunk_by=1, checkpoint=_unhurried)):
            yield strip


def _scaled(path: Path, side: int) -> NDArray[np.uint8]:
    picture = cv2.imread(str(path))
    if picture is None:
        raise typer.BadParameter(f"{path} is no picture")
    scale = side / max(picture.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=how), np.uint8)


def _unhurried() -> None:
    """Nobody waits."""


def _bars(rows: dict[str, Row]) -> list[Bar]:
    own = rows["built-in"]
    bars = [
        Bar("found at FPIR 1 %", Side.AT_LEAST, 0.80, own.found.estimate),
        Bar("rank-1", Side.AT_LEAST, 0.95, own.rank_one.estimate),
    ]
    for name, times in ((PEER, 10.0), (SMALL_PEER, 1.0)):
        if name in rows:
            found, speed = rows[name].found.estimate, float(np.median(np.divide(own.rounds, rows[name].rounds)))
            bars.append(Bar(f"found at FPIR 1 %, as {name}", Side.AT_LEAST, found, own.found.estimate))
            bars.append(Bar(f"× faces per second of {name}", Side.AT_LEAST, times, speed))
    return bars


def _print(rows: Sequence[Row], detection: Sequence[dict[str, object]], bars: list[Bar]) -> None:
    cells = [
        (
            row.name,
            _rate(row.rank_one),
            _rate(row.found),
            f"{row.threshold:.3f}",
            str(row.not_found),
            f"{row.faces_per_second:.0f}",
        )
        for row in rows
    ]
    headings = ("", "rank-1 (95 %)", "found at FPIR 1 % (95 %)", "threshold", "no face", "faces/s")
    print_table("Identification, first photographs enrolled", headings, cells)
    if detection:
        names = tuple(detection[0])
        print_table("Detection", names, [tuple(_figure(each[name]) for name in names) for each in detection])
    print_bars(bars)


def _rate(rate: RateInterval) -> str:
    return f"{rate.estimate:.1%} ({rate.lower:.1%} to {rate.upper:.1%})"


def _figure(value: object) -> str:
    if isinstance(value, dict):
        return _rate(RateInterval(**value))
    return f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    typer.run(main)
