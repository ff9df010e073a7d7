"""What calibrating a gallery from itself costs, beside single searches of the same gallery in the same process.

    python -m benchmarks.calibration --people 10000 --searches 20000 --json calibration.json

Half of the searches are timed before the calibration and half after it. The peak of what is allocated meanwhile is taken in
a further, untimed calibration, and is compared with a matrix of all cosines, which must not be held.
"""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from benchmarks.filled_store import GALLERY, fill_store, fitted_model
from benchmarks.machine import describe_machine
from benchmarks.report import Bar, Side, bars_as_json, grouped, print_bars, print_table, write_json
from benchmarks.vectors import make_faces
from numpy.typing import NDArray

from facedex.indexer.gallery import Gallery
from facedex.indexer.identification import Query
from facedex.indexer.indexes import Indexes
from facedex.indexer.jobs.calibration import certificate_of_gallery
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.store import Store
from facedex.indexer.vision.models import BUILTIN_DETECTOR, ModelFolder

DIMENSION = 512
MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: a calibration and single searches, and the most that was allocated beside the vectors."""

    calibration_seconds: float
    searches_seconds: float
    peak_mib: float
    all_cosines_mib: float


def main(
    people: Annotated[int, typer.Option(min=100, help="Identities, with one template each.")] = 10_000,
    searches: Annotated[int, typer.Option(min=2, help="Single searches to compare with.")] = 20_000,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures into this file.")] = None,
) -> None:
    """Measures what calibrating a gallery from itself costs."""
    machine = describe_machine()
    faces = make_faces(people, searches, dimension=DIMENSION)
    with tempfile.TemporaryDirectory() as folder:
        fill_store(Path(folder), faces.templates, fitted_model(DIMENSION))
        with closing(Store.open(sqlite_url(Path(folder) / "facedex.db"))) as store:
            gallery = Gallery(store.gallery(GALLERY), store=store, indexes=Indexes(store))
            gallery.catch_up()
            measured = _measured(gallery, faces.probes, lambda: _calibrate(gallery, Path(folder) / "models"))
    bars = _bars(measured)
    _print(measured, bars, people=people, searches=searches)
    rows = [asdict(measured)]
    write_json(
        json_path,
        {"machine": machine, "people": people, "searches": searches, "rows": rows, "bars": bars_as_json(bars)},
    )


def _measured(gallery: Gallery, probes: NDArray[np.float32], calibrate: Callable[[], None]) -> Measured:
    half = len(probes) // 2
    before = _seconds(lambda: _search(gallery, probes[:half]))
    calibration = _seconds(calibrate)
    after = _seconds(lambda: _search(gallery, probes[half:]))
    tracemalloc.start()
    calibrate()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    matrix = 4 * gallery.template_count**2
    return Measured(calibration, before + after, peak / MEBIBYTE, matrix / MEBIBYTE)


def _calibrate(gallery: Gallery, models: Path) -> None:
    certificate_of_gallery(gallery, detector=ModelFolder(models).manifest(BUILTIN_DETECTOR))


def _search(gallery: Gallery, probes: NDArray[np.float32]) -> None:
    for probe in probes:
        gallery.identify(probe[None], Query())


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _bars(measured: Measured) -> list[Bar]:
    return [
        Bar(
            "calibration, by the single searches",
            Side.AT_MOST,
            1,
            measured.calibration_seconds / measured.searches_seconds,
        ),
        Bar(
            "most that is allocated, by a matrix of all cosines",
            Side.AT_MOST,
            0.5,
            measured.peak_mib / measured.all_cosines_mib,
        ),
    ]


def _print(measured: Measured, bars: list[Bar], *, people: int, searches: int) -> None:
    rows = [
        ("calibration from the gallery itself", f"{measured.calibration_seconds:.2f} s"),
        (f"{grouped(searches)} single searches", f"{measured.searches_seconds:.2f} s"),
        ("most that the calibration allocates", f"{measured.peak_mib:.0f} MiB"),
        ("a matrix of all cosines", f"{measured.all_cosines_mib:.0f} MiB"),
    ]
    print_table(f"A gallery of {grouped(people)} people", ("", "measured"), rows)
    print_bars(bars)


if __name__ == "__main__":
    typer.run(main)
