"""Bulk enrolment by the workers of a Ray beside threads of one process.

    python -m benchmarks.ray_engine --people FOLDER --json build/ray.json

Both take turns with as many workers as there are cores. What counts is the time from the first group that is written to the
last one, so neither the start of a Ray nor that of a program. On a machine that does other work, the processor's time for an
item (of the program, its workers and Ray's own processes) says more than the clock. In the last turn a worker is killed
half-way: nobody may be missing, and each vector has to be the one that threads make.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer
from benchmarks.bulk import GALLERY, SAMPLE_PEOPLE
from benchmarks.machine import describe_machine
from benchmarks.report import Bar, Side, bars_as_json, print_bars, print_table, write_json
from numpy.typing import NDArray
from sqlalchemy import create_engine, select

from facedex.indexer.assembly import assemble_galleries
from facedex.indexer.enroller import Enroller
from facedex.indexer.galleries import Galleries
from facedex.indexer.jobs.bulk import GROUP_ITEMS, BulkEnrolment
from facedex.indexer.jobs.engines import Engine, EngineKind, Sight, sight
from facedex.indexer.jobs.photograph_sources import FolderSource
from facedex.indexer.jobs.ray_crew import RayEyes
from facedex.indexer.policy import GalleryPolicy
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.schema import template
from facedex.indexer.store.store import Store
from facedex.indexer.vision.decode import ImageLimits
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER
from facedex.indexer.vision.workbench import available_cores

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Turn:
    """One enrolment of all photographs."""

    way: str
    items: int
    per_second: float
    cpu_ms_per_item: float
    """Processor time of all processes, from the first group that is written to the last."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """What an enrolment left: numbers of templates, digests of their photographs, and vectors (n, dimension)."""

    numbers: list[int]
    sources: list[str]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Enrolled:
    turn: Turn
    gallery: Gallery


def main(
    *,
    people: Annotated[Path, typer.Option(help="A folder of photographs a person.")] = SAMPLE_PEOPLE,
    rounds: Annotated[int, typer.Option(help="Turns of each way, besides that with a killed worker.")] = 3,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measures what a Ray costs, and what it loses."""
    with tempfile.TemporaryDirectory() as folder:
        ways = [
            _enrolled(Path(folder) / f"{number}-{kind}", people, kind, kills=0)
            for number in range(rounds)
            for kind in (EngineKind.LOCAL, EngineKind.RAY)
        ]
        killed = _enrolled(Path(folder) / "killed", people, EngineKind.RAY, kills=1)
    threads, ray = ways[0::2], ways[1::2]
    bars = [
        Bar("throughput, by that of threads", Side.AT_LEAST, 0.85, _median_ratio(threads, ray)),
        Bar("items for a second of processor, by those of threads", Side.AT_LEAST, 0.85, _median_cpu(threads, ray)),
        Bar("least cosine to the vectors that threads make", Side.AT_LEAST, 0.9999, _least_cosine(threads, ray)),
        Bar("templates lost with a killed worker", Side.AT_MOST, 0, _lost(threads[0].gallery, killed.gallery)),
        Bar("its least cosine", Side.AT_LEAST, 0.9999, _least_cosine(threads, [killed])),
    ]
    turns = [each.turn for each in (*ways, killed)]
    print_table(
        f"{turns[0].items} photographs, {available_cores()} workers",
        ("", "items/s", "processor, ms an item"),
        [(each.way, f"{each.per_second:.1f}", f"{each.cpu_ms_per_item:.1f}") for each in turns],
    )
    print_bars(bars)
    write_json(
        json_file,
        {"machine": describe_machine(), "turns": [asdict(each) for each in turns], "bars": bars_as_json(bars)},
    )


def _enrolled(folder: Path, people: Path, kind: EngineKind, *, kills: int) -> Enrolled:
    folder.mkdir()
    url = sqlite_url(folder / "facedex.db")
    with closing(Store.open(url)) as store:
        galleries = assemble_galleries(
            store,
            data=folder,
            detector=BUILTIN_DETECTOR,
            embedder=BUILTIN_EMBEDDER,
            limits=ImageLimits(),
            workers=available_cores(),
        )
        galleries.create(GALLERY, GalleryPolicy())
        eyes = galleries.eyes(galleries.get(GALLERY))
        with sight(Engine(kind), galleries, eyes) as seen:
            turn = _turn(galleries, seen, FolderSource(people), f"{kind}{', a worker killed' * kills}", kills)
    return Enrolled(turn, _gallery(url))


def _turn(galleries: Galleries, seen: Sight, source: FolderSource, way: str, kills: int) -> Turn:
    bulk = BulkEnrolment(galleries.store, Enroller(galleries.get(GALLERY), seen.eyes), workers=seen.callers)
    survey = source.survey()
    job = bulk.begin(GALLERY, survey)
    total = survey.count
    done, started, spent = 0, 0.0, 0.0
    for group in bulk.run(job, source):
        if not done:
            started, spent = time.perf_counter(), _family_seconds()
        if kills and done < total // 2 <= done + len(group):
            _kill_one(seen)
        done += len(group)
    counted = total - GROUP_ITEMS
    took = time.perf_counter() - started
    return Turn(way, done, counted / took, (_family_seconds() - spent) / counted * 1000)


def _kill_one(seen: Sight) -> None:
    assert isinstance(seen.eyes, RayEyes)  # noqa: S101
    os.kill(seen.eyes.crew.processes[0], signal.SIGKILL)


def _gallery(url: str) -> Gallery:
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(
            select(template.c.id, template.c.source_digest, template.c.vector).order_by(template.c.id)
        ).all()
    engine.dispose()
    vectors = np.stack([np.frombuffer(row.vector, np.float16) for row in rows]).astype(np.float32)
    return Gallery([row.id for row in rows], [row.source_digest for row in rows], vectors)


# Figures


def _median_ratio(threads: list[Enrolled], ray: list[Enrolled]) -> float:
    return median(b.turn.per_second / a.turn.per_second for a, b in zip(threads, ray, strict=True))


def _median_cpu(threads: list[Enrolled], ray: list[Enrolled]) -> float:
    return median(a.turn.cpu_ms_per_item / b.turn.cpu_ms_per_item for a, b in zip(threads, ray, strict=True))


def _least_cosine(threads: list[Enrolled], ray: list[Enrolled]) -> float:
    """-1 where the galleries have other templates, or the same under other numbers."""
    expected = threads[0].gallery
    return min(_cosine(expected, each.gallery) for each in ray)


def _cosine(expected: Gallery, found: Gallery) -> float:
    if (expected.numbers, expected.sources) != (found.numbers, found.sources):
        return -1.0
    lengths = np.linalg.norm(expected.vectors, axis=1) * np.linalg.norm(found.vectors, axis=1)
    return float(((expected.vectors * found.vectors).sum(axis=1) / lengths).min())


def _lost(expected: Gallery, found: Gallery) -> float:
    return float(len(set(expected.sources) - set(found.sources)))


def _family_seconds() -> float:
    """Processor time of this process, of those that it started, and of those that they started."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            parents[int(entry.name)] = int(fields[1])
            seconds[int(entry.name)] = (
                sum(int(each) for each in fields[11:15]) / TICKS
            )  # its own, and of ended children
    return sum(spent for process, spent in seconds.items() if _is_of_family(process, parents))


def _is_of_family(process: int, parents: dict[int, int]) -> bool:
    while process and process != os.getpid():
        process = parents.get(process, 0)
    return process == os.getpid()


if __name__ == "__main__":
    typer.run(main)
