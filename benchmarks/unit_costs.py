"""What one template, one probe and one photograph cost on this machine; all figures of docs/scale.md begin here.

Processor time, not the clock: it is nearly the same on a machine that does other work besides.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from benchmarks.bulk import GALLERY, SAMPLE_PEOPLE
from benchmarks.filled_store import GALLERY as FILLED_GALLERY
from benchmarks.filled_store import fill_store, fitted_model
from benchmarks.searchers import Facedex
from benchmarks.vectors import Faces, make_faces

from facedex.indexer.assembly import assemble_galleries
from facedex.indexer.galleries import Galleries
from facedex.indexer.jobs.bulk import BulkEnrolment
from facedex.indexer.jobs.sources import bulk_source
from facedex.indexer.policy import GalleryPolicy
from facedex.indexer.search.codebook import FULL_RATE, HALF_RATE
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.store import Store
from facedex.indexer.vision.decode import ImageLimits
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER, ModelFolder
from facedex.indexer.vision.workbench import available_cores

STORED = Path(__file__).with_name("unit_costs.json")
DIMENSION = 512
THRESHOLD = 0.5
TOGETHER = 64
PROBES = 2 * TOGETHER
ROUNDS = 5
STORED_ROWS = 20_000
ENROLLED_ROWS = 4_000


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """Times in seconds, sizes in bytes; a template is one vector of 512 components, a person each."""

    machine: str
    cores: int
    """On which searches were measured."""
    templates: tuple[int, int]
    """Sizes at which searches were measured; the costs are those at the larger one."""
    linearity: float
    """Seconds a template of a single search, at the larger size by that at the smaller: 1 where the formulas are right."""
    memory_per_template: float
    """Of the index, in memory."""
    sql_per_template: float
    """Of the database: person, template, change log."""
    snapshot_per_template: float
    single_search: float
    """A template, of a search for one probe: processor time, of all cores together."""
    search_together: float
    """A template and a probe, of a search for 64: processor time, of all cores together."""
    row_into_index: float
    """A template: processor time."""
    row_into_sql: float
    """A template of a bulk enrolment of vectors: processor time. What a disk takes comes on top."""
    photograph: float
    """Processor time of one: decoding, detection, alignment, embedding, with the built-in models."""
    ray_share: float
    """Items of Ray's workers by those of threads, for the same processor time (`python -m benchmarks.ray_engine`)."""

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def stored_costs(path: Path = STORED) -> UnitCosts:
    """Those that were measured before."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return UnitCosts(**(document | {"templates": tuple(document["templates"])}))


def measured_costs(machine: str, *, templates: int, ray_share: float) -> UnitCosts:
    """What it costs here; half as many templates show whether the cost is linear. Takes some minutes."""
    # The larger one first: memory that it gives back would hide what the other one takes.
    whole, half = (_search(make_faces(count, PROBES, dimension=DIMENSION)) for count in (templates, templates // 2))
    with tempfile.TemporaryDirectory() as folder:
        sql, snapshot = _disk(Path(folder) / "filled")
        row = _row_into_sql(Path(folder) / "enrolled")
        photograph = _photograph(Path(folder) / "looked")
    return UnitCosts(
        machine=machine,
        cores=available_cores(),
        templates=(templates // 2, templates),
        linearity=round(whole.single / half.single, 3),
        memory_per_template=round(whole.memory, 1),
        sql_per_template=round(sql, 1),
        snapshot_per_template=round(snapshot, 1),
        single_search=whole.single,
        search_together=whole.together,
        row_into_index=whole.build,
        row_into_sql=row,
        photograph=photograph,
        ray_share=ray_share,
    )


@dataclass(frozen=True, slots=True)
class _Search:
    """A template each."""

    memory: float
    build: float
    single: float
    together: float


def _search(faces: Faces) -> _Search:
    count = len(faces.templates)
    index = Facedex(THRESHOLD, threads=available_cores(), code_rates=(FULL_RATE, HALF_RATE))
    before, started = _resident_bytes(), time.process_time()
    index.build(faces)
    built, resident = time.process_time() - started, _resident_bytes() - before
    single = _median_seconds(lambda number: index.search_one(faces.probes[number]), rounds=40)
    together = _median_seconds(lambda _: index.search_batch(faces.probes[:TOGETHER]), rounds=ROUNDS) / TOGETHER
    index.close()
    return _Search(resident / count, built / count, single / count, together / count)


def _median_seconds(work: Callable[[int], object], *, rounds: int) -> float:
    work(0)
    times: list[float] = []
    for number in range(rounds):
        started = time.process_time()
        work(number)
        times.append(time.process_time() - started)
    return median(times)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _galleries(folder: Path, store: Store) -> Galleries:
    return assemble_galleries(
        store,
        data=folder,
        detector=BUILTIN_DETECTOR,
        embedder=BUILTIN_EMBEDDER,
        limits=ImageLimits(),
        workers=available_cores(),
    )


def _disk(folder: Path) -> tuple[float, float]:
    """Bytes a template in the database, and in a snapshot."""
    fill_store(folder, make_faces(STORED_ROWS, 1, dimension=DIMENSION).templates, fitted_model(DIMENSION))
    with closing(Store.open(sqlite_url(folder / "facedex.db"))) as store:
        galleries = _galleries(folder, store)
        galleries.get(FILLED_GALLERY)
        galleries.save_snapshots(least_changes=0)
    snapshot = sum(each.stat().st_size for each in (folder / "index").iterdir())
    return (folder / "facedex.db").stat().st_size / STORED_ROWS, snapshot / STORED_ROWS


def _row_into_sql(folder: Path) -> float:
    folder.mkdir()
    manifest = ModelFolder(folder / "models").manifest(BUILTIN_EMBEDDER)
    rows = make_faces(ENROLLED_ROWS, 1, dimension=manifest.dimension).rows(0, ENROLLED_ROWS)
    names = np.array([str(number) for number in range(ENROLLED_ROWS)])
    np.savez(folder / "rows.npz", vectors=rows, identities=names)
    with closing(Store.open(sqlite_url(folder / "facedex.db"))) as store:
        galleries = _galleries(folder, store)
        galleries.create(GALLERY, GalleryPolicy())
        source = bulk_source(folder / "rows.npz", model_digest=manifest.sha256, max_image_bytes=1)
        bulk = BulkEnrolment(store, galleries.enroller(galleries.get(GALLERY)), workers=available_cores())
        job = bulk.begin(GALLERY, source.survey())
        started = time.process_time()
        count = sum(len(group) for group in bulk.run(job, source))
        return (time.process_time() - started) / count


def _photograph(folder: Path) -> float:
    folder.mkdir()
    photographs = [each.read_bytes() for each in sorted(SAMPLE_PEOPLE.glob("person_*/*.jpg"))]
    with closing(Store.open(sqlite_url(folder / "facedex.db"))) as store:
        pipeline = _galleries(folder, store).pipeline
        started = time.process_time()
        for each in photographs:
            pipeline.embed([face.crop for face in pipeline.detect(each).faces[:1]])
        return (time.process_time() - started) / len(photographs)
