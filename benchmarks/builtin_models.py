"""The built-in embedder beside others on the same photographs, with 95 % intervals, and faces per second.

    python -m benchmarks.builtin_models PEOPLE --models FOLDER --json builtin_models.json

PEOPLE holds a folder a person: the first photograph of those with several is enrolled, those with one are strangers. FOLDER
holds the other models, NAME.onnx with NAME.toml; a missing one is left out, and so is face_recognition where it is not
installed. All of facedex's rows find faces with the built-in detector; face_recognition finds its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from benchmarks.builtin_detector import BUILTIN_FILE, RememberingDetector
from benchmarks.machine import describe_machine
from benchmarks.report import Bar, Side, bars_as_json, print_bars, print_table, write_json
from benchmarks.workers import Task
from numpy.typing import NDArray

from facedex.indexer.calibration.uncertainty import RateInterval
from facedex.indexer.evaluation.acquisition import AcquisitionFailure, NotAcquired, acquire
from facedex.indexer.evaluation.evaluation import Evaluation, Faces, OpenSet, evaluate
from facedex.indexer.jobs.folder import Photograph, photographs_of
from facedex.indexer.vision.embedder import Embedder
from facedex.indexer.vision.models import (
    BUILTIN_EMBEDDER,
    ModelFolder,
    open_embedder,
    read_manifest,
)
from facedex.indexer.vision.pipeline import FacePipeline

PEER = "face_recognition"
SMALL_PEER = "mobileface_v2"
OTHERS = ("face-reidentification-retail-0095", "w600k_mbf_int8", SMALL_PEER)
TARGET_FPIR = 0.01


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to a vector: what it makes of the photographs, and one face embedded for the clock."""

    name: str
    look: Callable[[OpenSet], Faces]
    embed_once: Task


@dataclass(frozen=True, slots=True)
class Row:
    """Rates with 95 % intervals; faces per second of one core's time, medians over rounds."""

    name: str
    rank_one: RateInterval
    found: RateInterval
    threshold: float
    not_found: int
    rounds: list[float]

    @property
    def faces_per_second(self) -> float:
        return float(np.median(self.rounds))


def main(
    people: Annotated[Path, typer.Argument(help="A folder a person.")],
    *,
    models: Annotated[Path, typer.Option(help="Folder of the other models.")],
    rounds: Annotated[int, typer.Option(help="How often the speed is measured, in turns.")] = 5,
    seconds: Annotated[float, typer.Option(help="Duration of one measurement.")] = 1.0,
    speed_alone: Annotated[
        bool, typer.Option(help="Only the clock: a minute instead of a quarter of an hour.")
    ] = False,
    peer: Annotated[bool, typer.Option(help="Measure face_recognition too, which takes longest.")] = True,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measures the built-in models."""
    machine = describe_machine()
    parts = OpenSet.of(photographs_of(people))
    contenders = list(_contenders(models, with_peer=peer))
    if speed_alone:
        speeds = _speeds(contenders, rounds=rounds, seconds=seconds)
        _print_speeds(speeds)
        write_json(
            json_path, {"machine": machine, "faces_per_core_second": speeds, "bars": bars_as_json(_speed_bars(speeds))}
        )
        return
    evaluations = {each.name: _evaluated(each, parts) for each in contenders}
    speeds = _speeds(contenders, rounds=rounds, seconds=seconds)
    rows = [_row(name, *evaluations[name], speeds[name]) for name in evaluations]
    bars = _bars({row.name: row for row in rows})
    _print(rows, bars)
    document: dict[str, object] = {
        "machine": machine,
        "enrolled": len(parts.enrolled),
        "mated_probes": len(parts.mated_probes),
        "strangers": len(parts.strangers),
        "rows": [asdict(row) | {"faces_per_second": row.faces_per_second} for row in rows],
        "bars": bars_as_json(bars),
    }
    write_json(json_path, document)


def _contenders(models: Path, *, with_peer: bool) -> Iterator[Contender]:
    detector = RememberingDetector.of(BUILTIN_FILE)

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
    turns = [{each.name: _per_core_second(each.embed_once, seconds) for each in contenders} for _ in range(rounds)]
    return {each.name: [turn[each.name] for turn in turns] for each in contenders}


def _per_core_second(task: Task, seconds: float) -> float:
    """Of processor time, so that what else the machine does takes no faces away from anybody."""
    done, begin = 0, time.process_time()
    while time.process_time() - begin < seconds:
        task()
        done += 1
    return done / (time.process_time() - begin)


def _row(name: str, evaluation: Evaluation, faces: Faces, rounds: list[float]) -> Row:
    (rates,) = (each for each in evaluation.error_rates if each.target_fpir == TARGET_FPIR)
    found = RateInterval(1 - rates.fnir.upper, 1 - rates.fnir.estimate, 1 - rates.fnir.lower)
    return Row(name, evaluation.hit_rates[0].rate, found, rates.threshold, len(faces.not_acquired), rounds)


def _bars(rows: dict[str, Row]) -> list[Bar]:
    own = rows["built-in"]
    bars = [
        Bar("found at FPIR 1 %", Side.AT_LEAST, 0.80, own.found.estimate),
        Bar("rank-1", Side.AT_LEAST, 0.95, own.rank_one.estimate),
    ]
    for name in (PEER, SMALL_PEER):
        if name in rows:
            found = rows[name].found.estimate
            bars.append(Bar(f"found at FPIR 1 %, as {name}", Side.AT_LEAST, found, own.found.estimate))
    return bars + _speed_bars({name: row.rounds for name, row in rows.items()})


def _speed_bars(speeds: dict[str, list[float]]) -> list[Bar]:
    """The median of the ratios of each round, in which all took their turn."""
    return [
        Bar(
            f"× faces per second of {name}",
            Side.AT_LEAST,
            times,
            float(np.median(np.divide(speeds["built-in"], speeds[name]))),
        )
        for name, times in ((PEER, 10.0), (SMALL_PEER, 1.0))
        if name in speeds
    ]


def _print_speeds(speeds: dict[str, list[float]]) -> None:
    cells = [(name, f"{np.median(each):.1f}", f"{min(each):.1f} to {max(each):.1f}") for name, each in speeds.items()]
    print_table("Faces a second of one core's time", ("", "median", "rounds"), cells)
    print_bars(_speed_bars(speeds))


def _print(rows: Sequence[Row], bars: list[Bar]) -> None:
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
    print_bars(bars)


def _rate(rate: RateInterval) -> str:
    return f"{rate.estimate:.1%} ({rate.lower:.1%} to {rate.upper:.1%})"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    typer.run(main)
