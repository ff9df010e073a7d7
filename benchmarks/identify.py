"""Who is on a photograph of one megapixel: facedex over gRPC, its pipeline in process, and face_recognition, in one run.

    python -m benchmarks.identify --photographs FOLDER --json identify.json

FOLDER holds a folder a person; default: the sample people. Callers of the server and face_recognition are processes of
their own; face_recognition (dlib) looks for faces as it comes, from 40 px up, and without enlarging the photograph, from
80 px up. facedex looks for faces from 20 px up unless it is told otherwise.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from benchmarks.filled_store import GALLERY, fill_store
from benchmarks.machine import describe_machine
from benchmarks.photographs import HEIGHT, WIDTH, find_portraits, make_photographs
from benchmarks.report import Bar, Side, bars_as_json, print_bars, print_table, write_json
from benchmarks.server_process import ServerProcess
from benchmarks.vectors import make_faces
from benchmarks.workers import Round, Task, Workers, run_in_threads

from facedex.client import Client, Decision, SeveralFaces
from facedex.indexer.assembly import assemble_galleries
from facedex.indexer.galleries import Galleries, model_record
from facedex.indexer.identification import Query
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.store import Store
from facedex.indexer.vision.decode import ImageLimits
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER, ModelFolder
from facedex.indexer.vision.scan import SMALLEST_FACE_PX
from facedex.indexer.vision.workbench import available_cores

IN_FLIGHT = (1, 2, 4)
PEER_PROCESSES = (1, 2)
PEER = "face_recognition"
# How often face_recognition enlarges the photograph, twice in each direction, before it looks: 1 is its default.
ENLARGEMENTS = {1: PEER, 0: f"{PEER}, not enlarged"}
PEER_DIMENSION = 128
SAMPLE_PEOPLE = Path(__file__).parent.parent / "tests" / "data" / "people"


@dataclass(frozen=True, slots=True)
class Models:
    """A detector and an embedder by name, and the folder to take them from where they are not built in."""

    detector: str
    embedder: str
    folder: Path | None
    smallest_face_px: float

    @property
    def options(self) -> tuple[str, ...]:
        smallest = f"{self.smallest_face_px:g}"
        return ("--detector", self.detector, "--embedder", self.embedder, "--smallest-face-px", smallest)

    def add_to(self, models: ModelFolder) -> None:
        for name in {self.detector, self.embedder} - set(models.names()):
            if self.folder is None:
                raise typer.BadParameter(f"{name} is not built in: say with --models where it is")
            models.add(self.folder / f"{name}.onnx", self.folder / f"{name}.toml")


@dataclass(frozen=True, slots=True)
class OverTheWire:
    """A caller of the server: one photograph after the other."""

    address: str
    photographs: tuple[bytes, ...]

    def open(self, number: int) -> Task:
        client = Client.connect(self.address)
        probes = _from(self.photographs, number)
        return lambda: client.identify(GALLERY, next(probes))


@dataclass(frozen=True, slots=True)
class FaceRecognition:
    """face_recognition: HOG detector, encodings, distances to as many people as facedex's gallery holds."""

    photographs: tuple[bytes, ...]
    people: int
    enlargements: int

    def open(self, number: int) -> Task:
        peer: Any = import_module(PEER)
        gallery = np.random.default_rng(1).standard_normal((self.people, PEER_DIMENSION)) / np.sqrt(PEER_DIMENSION)
        probes = _from(self.photographs, number)

        def identify() -> list[int]:
            picture = peer.load_image_file(BytesIO(next(probes)))
            boxes = peer.face_locations(picture, number_of_times_to_upsample=self.enlargements)
            encodings = peer.face_encodings(picture, boxes)
            return [int(peer.face_distance(gallery, encoding).argmin()) for encoding in encodings]

        return identify


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of identifying, with so many photographs in flight."""

    name: str
    in_flight: int
    run: Callable[[float], Round]


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians over rounds."""

    name: str
    in_flight: int
    images_per_second: float
    median_ms: float
    p99_ms: float
    rounds: list[float]


def main(  # noqa: PLR0913  (a command has as many options as it has)
    *,
    photographs: Annotated[Path, typer.Option(help="Portraits, a folder a person.")] = SAMPLE_PEOPLE,
    people: Annotated[int, typer.Option(help="People of whom a photograph is made.")] = 20,
    templates: Annotated[int, typer.Option(help="Further templates in the gallery.")] = 1_000,
    detector: Annotated[str, typer.Option(help="Model that finds faces.")] = BUILTIN_DETECTOR,
    embedder: Annotated[str, typer.Option(help="Model that makes vectors.")] = BUILTIN_EMBEDDER,
    models: Annotated[Path | None, typer.Option(help="Folder of NAME.onnx and NAME.toml for them.")] = None,
    smallest_face_px: Annotated[float, typer.Option(help="Smallest face that facedex looks for.")] = SMALLEST_FACE_PX,
    rounds: Annotated[int, typer.Option(help="How often everything is measured, in turns.")] = 5,
    seconds: Annotated[float, typer.Option(help="Duration of one measurement.")] = 3.0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measures whole identifications."""
    machine = describe_machine()
    pictures = tuple(make_photographs(find_portraits(photographs, people)))
    chosen = Models(detector, embedder, models, smallest_face_px)
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "data"
        _fill(data, chosen, templates)
        server = stack.enter_context(ServerProcess(data, *chosen.options))
        known = _enrol(server.address, pictures)
        contenders = [
            *_over_the_wire(stack, server.address, pictures),
            *_in_process(stack, data, chosen, pictures),
            *_peer(stack, pictures, templates + people),
        ]
        measured = _measure(contenders, rounds=rounds, seconds=seconds)
    bars = _bars(measured)
    _print(measured, bars, chosen)
    document: dict[str, object] = {
        "machine": machine | {"peer": _peer_versions()},
        "photographs": {"count": len(pictures), "width": WIDTH, "height": HEIGHT, "identified": known},
        "mean_photograph_bytes": round(sum(map(len, pictures)) / len(pictures)),
        "models": {"detector": detector, "embedder": embedder, "smallest_face_px": smallest_face_px},
        "templates": templates + people,
        "rows": [asdict(row) for row in measured],
        "bars": bars_as_json(bars),
    }
    write_json(json_path, document)


def _from(photographs: tuple[bytes, ...], number: int) -> Any:
    """The photographs without end, each caller beginning with another one."""
    start = number % len(photographs)
    return cycle(photographs[start:] + photographs[:start])


def _fill(data: Path, models: Models, templates: int) -> None:
    folder = ModelFolder(data / "models")
    models.add_to(folder)
    manifest = folder.manifest(models.embedder)
    fill_store(data, make_faces(templates, 1, dimension=manifest.dimension).templates, model_record(manifest))


def _enrol(address: str, photographs: tuple[bytes, ...]) -> int:
    """Enrols everybody, and returns how many are then identified: what is measured must be right too."""
    with Client.connect(address) as client:
        for number, photograph in enumerate(photographs):
            client.enrol(GALLERY, f"known-{number}", images=[photograph], several_faces=SeveralFaces.LARGEST)
        answers = [client.identify(GALLERY, photograph).faces for photograph in photographs]
    return sum(bool(faces) and faces[0].decision is Decision.MATCH for faces in answers)


def _over_the_wire(stack: ExitStack, address: str, photographs: tuple[bytes, ...]) -> list[Contender]:
    workers = stack.enter_context(Workers(OverTheWire(address, photographs), max(IN_FLIGHT)))
    return [Contender("facedex, gRPC", each, _run_of(workers, each)) for each in IN_FLIGHT]


def _run_of(workers: Workers, in_flight: int) -> Callable[[float], Round]:
    return lambda seconds: workers.run(in_flight, seconds=seconds)


def _in_process(stack: ExitStack, data: Path, models: Models, photographs: tuple[bytes, ...]) -> list[Contender]:
    store = Store.open(sqlite_url(data / "facedex.db"))
    stack.callback(store.close)
    galleries = assemble_galleries(
        store,
        data=data,
        detector=models.detector,
        embedder=models.embedder,
        limits=ImageLimits(),
        workers=available_cores(),
        smallest_face_px=models.smallest_face_px,
    )
    tasks = [_identifier(galleries, photographs, number) for number in range(max(IN_FLIGHT))]
    return [Contender("facedex, in process", each, partial(_run_threads, tasks[:each])) for each in IN_FLIGHT]


def _run_threads(tasks: list[Task], seconds: float) -> Round:
    return run_in_threads(tasks, seconds=seconds)


def _identifier(galleries: Galleries, photographs: tuple[bytes, ...], number: int) -> Task:
    """What the server does for one call, without the server."""
    gallery, probes = galleries.get(GALLERY), _from(photographs, number)
    pipeline = galleries.pipeline_of(gallery)

    def identify() -> object:
        faces = pipeline.detect(next(probes)).faces
        return gallery.identify(pipeline.embed([face.crop for face in faces]), Query())

    return identify


def _peer(stack: ExitStack, photographs: tuple[bytes, ...], people: int) -> list[Contender]:
    if find_spec(PEER) is None:
        print(f"{PEER} is not installed, so it is left out: `make bench` installs it")
        return []
    contenders: list[Contender] = []
    for enlargements, name in ENLARGEMENTS.items():
        job = FaceRecognition(photographs, people, enlargements)
        workers = stack.enter_context(Workers(job, max(PEER_PROCESSES)))
        contenders += [Contender(name, each, _run_of(workers, each)) for each in PEER_PROCESSES]
    return contenders


def _measure(contenders: list[Contender], *, rounds: int, seconds: float) -> list[Measured]:
    """In turns, so that what else the machine does hits all of them."""
    for contender in contenders:
        contender.run(seconds / 4)
    turns = [[contender.run(seconds) for contender in contenders] for _ in range(rounds)]
    return [_summary(contender, [turn[place] for turn in turns]) for place, contender in enumerate(contenders)]


def _summary(contender: Contender, turns: list[Round]) -> Measured:
    rates = [turn.per_second for turn in turns]
    return Measured(
        name=contender.name,
        in_flight=contender.in_flight,
        images_per_second=float(np.median(rates)),
        median_ms=float(np.median([turn.percentile_ms(50) for turn in turns])),
        p99_ms=float(np.median([turn.percentile_ms(99) for turn in turns])),
        rounds=rates,
    )


def _bars(measured: list[Measured]) -> list[Bar]:
    rows = {(row.name, row.in_flight): row for row in measured}
    in_process = [
        Bar(
            f"throughput of in process, {each} in flight",
            Side.AT_LEAST,
            0.85,
            _ratio(rows, "facedex, in process", each),
        )
        for each in IN_FLIGHT
    ]
    peers = [
        Bar(f"× {name}, {each} in flight", Side.AT_LEAST, 10, _ratio(rows, name, each))
        for name in ENLARGEMENTS.values()
        for each in PEER_PROCESSES
        if (name, each) in rows
    ]
    return in_process + peers


def _ratio(rows: dict[tuple[str, int], Measured], other: str, in_flight: int) -> float:
    """Median over rounds of the ratio within a round."""
    ours, theirs = rows["facedex, gRPC", in_flight].rounds, rows[other, in_flight].rounds
    return float(np.median(np.divide(ours, theirs)))


def _print(measured: list[Measured], bars: list[Bar], models: Models) -> None:
    slowest = min(row.images_per_second for row in measured)
    rows = [
        (
            row.name,
            str(row.in_flight),
            f"{row.images_per_second:.1f}",
            f"{row.images_per_second / slowest:.1f}",
            f"{row.median_ms:.1f}",
            f"{row.p99_ms:.1f}",
        )
        for row in measured
    ]
    title = f"Identify, {models.detector} and {models.embedder}, faces from {models.smallest_face_px:g} px"
    print_table(title, ("", "in flight", "images/s", "×", "median ms", "p99 ms"), rows)
    print_bars(bars)


def _peer_versions() -> dict[str, str]:
    return {name: version(name) for name in ("face_recognition", "dlib-bin") if find_spec(PEER) is not None}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    typer.run(main)
