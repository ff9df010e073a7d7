"""Bulk enrolment: photographs beside the bare pipeline, vectors over a stream beside single calls, memory, and the limit.

    python -m benchmarks.bulk --people FOLDER --json build/bulk.json

FOLDER holds a folder a person; default: the sample people. The bare pipeline decodes, detects and embeds the same files with
as many threads, and keeps nothing. Both take turns, so that what else the machine does hits both.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer
from benchmarks.machine import describe_machine
from benchmarks.photographs import NOT_PEOPLE
from benchmarks.report import Bar, Side, bars_as_json, print_bars, print_table, write_json
from benchmarks.server_process import ServerProcess
from benchmarks.vectors import make_faces
from numpy.typing import NDArray

from facedex.client import Client, EnrolRequest, Vector
from facedex.indexer.assembly import assemble_galleries
from facedex.indexer.galleries import Galleries
from facedex.indexer.jobs.bulk import BulkEnrolment
from facedex.indexer.jobs.photograph_sources import FolderSource
from facedex.indexer.policy import GalleryPolicy
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.store import Store
from facedex.indexer.vision.decode import ImageLimits, read_photograph
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER, ModelFolder
from facedex.indexer.vision.pipeline import FacePipeline
from facedex.indexer.vision.workbench import available_cores

SAMPLE_PEOPLE = Path(__file__).parent.parent / "tests" / "data" / "people"
GALLERY = "people"
WINDOW = 64
MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Throughput:
    """One way of doing it: items a second, the median of `rounds`."""

    way: str
    per_second: float
    rounds: list[float]


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a process that enrolled so many vectors: its peak, and what the rows of its index take of that."""

    vectors: int
    peak_bytes: int
    row_bytes: int

    @property
    def rest_bytes(self) -> int:
        return self.peak_bytes - self.row_bytes


@dataclass(frozen=True, slots=True)
class Parts:
    """Seconds of processor of one photograph, by what it is spent on."""

    seconds: dict[str, float]

    @property
    def limit(self) -> str:
        """What most of the time is spent on: what a faster machine has to do faster."""
        return max(self.seconds, key=lambda name: self.seconds[name])


def main(
    *,
    people: Annotated[Path, typer.Option(help="A folder of photographs a person.")] = SAMPLE_PEOPLE,
    rounds: Annotated[int, typer.Option(help="Turns of each way.")] = 3,
    vectors: Annotated[int, typer.Option(help="Vectors of a turn.")] = 1_000,
    small: Annotated[int, typer.Option(help="Vectors of the smaller source, for memory.")] = 10_000,
    large: Annotated[int, typer.Option(help="Vectors of the larger source.")] = 100_000,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measures bulk enrolment."""
    photographs = [path for person in _folders(people) for path in sorted(person.glob("*.jpg"))]
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        enrolments = _photograph_rates(people, photographs, site, rounds)
        streams = _vector_rates(site, vectors, rounds)
        memory = [_memory(site, count) for count in (small, large)]
        parts = _parts(people, photographs, site / "parts")
    bars = [
        Bar("enrolment, by the bare pipeline", Side.AT_LEAST, 0.9, _ratio(enrolments)),
        Bar("vectors over a stream, by one call each", Side.AT_LEAST, 4, _ratio(streams)),
        Bar(
            f"memory at {large} vectors without rows, by that at {small}",
            Side.AT_MOST,
            1.2,
            memory[1].rest_bytes / memory[0].rest_bytes,
        ),
    ]
    print_table(
        f"{len(photographs)} photographs, {vectors} vectors",
        ("", "items/s"),
        [(each.way, f"{each.per_second:.1f}") for each in (*enrolments, *streams)],
    )
    print_table(
        "Memory of bulk enrolment, MiB",
        ("vectors", "peak", "of that rows"),
        [(str(m.vectors), f"{m.peak_bytes / MEBIBYTE:.0f}", f"{m.row_bytes / MEBIBYTE:.0f}") for m in memory],
    )
    print_table(
        f"Processor time of a photograph: {parts.limit} is the limit",
        ("", "ms"),
        [(name, f"{1000 * seconds:.2f}") for name, seconds in parts.seconds.items()],
    )
    print_bars(bars)
    figures = {"throughput": [asdict(each) for each in (*enrolments, *streams)], "memory": [asdict(m) for m in memory]}
    figures |= {"parts": [asdict(parts)]}
    write_json(json_file, {"machine": describe_machine(), **figures, "bars": bars_as_json(bars)})


def _folders(people: Path) -> list[Path]:
    return [each for each in sorted(people.iterdir()) if each.is_dir() and each.name not in NOT_PEOPLE]


def _ratio(ways: list[Throughput]) -> float:
    """Of the second way to the first, the median over turns."""
    first, second = ways
    return median(b / a for a, b in zip(first.rounds, second.rounds, strict=True))


def _throughput(way: str, rounds: list[float]) -> Throughput:
    return Throughput(way, median(rounds), rounds)


# Photographs


@contextmanager
def _assembled(data: Path) -> Generator[Galleries]:
    """The galleries of a folder, with the built-in models."""
    with closing(Store.open(sqlite_url(data / "facedex.db"))) as store:
        yield assemble_galleries(
            store,
            data=data,
            detector=BUILTIN_DETECTOR,
            embedder=BUILTIN_EMBEDDER,
            limits=ImageLimits(),
            workers=available_cores(),
        )


def _photograph_rates(people: Path, photographs: list[Path], site: Path, rounds: int) -> list[Throughput]:
    bare, enrolled = [], []
    for turn in range(rounds):
        data = site / f"turn-{turn}"
        data.mkdir()
        with _assembled(data) as galleries:
            bare.append(_bare(galleries, photographs))
            enrolled.append(_enrolled(galleries, people, len(photographs)))
    return [_throughput("photographs, bare pipeline", bare), _throughput("photographs, enrolled", enrolled)]


def _bare(galleries: Galleries, photographs: list[Path]) -> float:
    pipeline = galleries.pipeline

    def look(path: Path) -> None:
        faces = pipeline.detect(path.read_bytes()).faces
        if faces:
            pipeline.embed([faces[0].crop])

    started = time.perf_counter()
    with ThreadPoolExecutor(available_cores()) as pool:
        for _ in pool.map(look, photographs):
            pass
    return len(photographs) / (time.perf_counter() - started)


def _enrolled(galleries: Galleries, people: Path, count: int) -> float:
    galleries.create(GALLERY, GalleryPolicy())
    gallery = galleries.get(GALLERY)
    bulk = BulkEnrolment(galleries.store, galleries.enroller(gallery), workers=available_cores())
    source = FolderSource(people)
    started = time.perf_counter()
    job = bulk.begin(GALLERY, source.survey())
    dealt_with = sum(len(group) for group in bulk.run(job, source))
    assert dealt_with >= count  # noqa: S101  (the source has the same files and more)
    return dealt_with / (time.perf_counter() - started)


def _parts(people: Path, photographs: list[Path], data: Path) -> Parts:
    """Each part by itself, photograph after photograph; what enrolment takes beyond them all are rows."""
    data.mkdir()
    with _assembled(data) as galleries:
        pipeline = galleries.pipeline
        decoding = _processor_seconds(lambda: [_decoded(each, pipeline) for each in photographs])
        crops: list[NDArray[np.uint8]] = []
        looking = _processor_seconds(lambda: crops.extend(_crops(photographs, pipeline)))
        embedding = _processor_seconds(lambda: [pipeline.embed([each]) for each in crops])
        enrolling = _processor_seconds(lambda: _enrolled(galleries, people, len(photographs)))
    share = 1 / len(photographs)
    return Parts(
        {
            "decoding": decoding * share,
            "detection, alignment, quality": (looking - decoding) * share,
            "embedding": embedding * share,
            "rows, guards, log": max(0.0, enrolling - looking - embedding) * share,
        }
    )


def _decoded(path: Path, pipeline: FacePipeline) -> object:
    opened = read_photograph(path.read_bytes(), pipeline.limits)
    return opened.decode(opened.strongest_reduction(pipeline.finest_side(max(opened.width, opened.height))))


def _crops(photographs: list[Path], pipeline: FacePipeline) -> Iterator[NDArray[np.uint8]]:
    for each in photographs:
        yield from (found.crop for found in pipeline.detect(each.read_bytes()).faces[:1])


def _processor_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


# Vectors


def _vector_rates(site: Path, count: int, rounds: int) -> list[Throughput]:
    manifest = ModelFolder(site / "models").manifest(BUILTIN_EMBEDDER)
    unary, streamed = [], []
    with ServerProcess(site / "server") as server, Client.connect(server.address, timeout_seconds=60) as client:
        client.create_gallery(GALLERY)
        for turn in range(rounds):
            faces = make_faces(2 * count, 1, dimension=manifest.dimension, seed=turn).rows(0, 2 * count)
            requests = [
                EnrolRequest(
                    GALLERY, f"{turn}-{number}", vectors=(Vector(row.astype("<f4").tobytes(), manifest.sha256),)
                )
                for number, row in enumerate(faces)
            ]
            unary.append(_rate(_one_by_one(client, requests[:count]), count))
            streamed.append(_rate(client.enrol_stream(requests[count:], window=WINDOW), count))
    return [_throughput("vectors, one call each", unary), _throughput("vectors, streamed", streamed)]


def _one_by_one(client: Client, requests: list[EnrolRequest]) -> Iterator[object]:
    for each in requests:
        yield client.enrol(each.gallery, each.identity, vectors=each.vectors)


def _rate(answers: Iterator[object], count: int) -> float:
    started = time.perf_counter()
    answered = sum(1 for _ in answers)
    assert answered == count  # noqa: S101
    return count / (time.perf_counter() - started)


# Memory


def _memory(site: Path, count: int) -> Memory:
    manifest = ModelFolder(site / "models").manifest(BUILTIN_EMBEDDER)
    source, data = site / f"{count}.npz", site / f"memory-{count}"
    rows = make_faces(count, 1, dimension=manifest.dimension).rows(0, count)
    np.savez(source, vectors=rows, identities=np.array([f"{number}" for number in range(count)]))
    program = str(Path(sys.executable).with_name("facedex-index"))
    arguments = ["enrol", str(source), "--gallery", GALLERY, "--model", manifest.sha256, "--json"]
    process = subprocess.Popen([program, "--data", str(data), *arguments], stdout=subprocess.DEVNULL)  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0  # noqa: S101
    # Half-precision rows, and their four-bit codes at a quarter of that.
    return Memory(count, usage.ru_maxrss * 1024, count * manifest.dimension * 5 // 2)


if __name__ == "__main__":
    typer.run(main)
