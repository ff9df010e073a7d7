"""What enrolling and erasing one template costs in a small gallery and in a large one, and when it is searchable.

    python -m benchmarks.changes --sizes 10000,1000000 --json changes.json

The galleries are changed in turns: one template each, then the next. After each enrolment the gallery is searched for it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from benchmarks.filled_store import fill_store, fitted_model
from benchmarks.machine import describe_machine
from benchmarks.report import Bar, Side, bars_as_json, grouped, print_bars, print_table, write_json
from benchmarks.vectors import Faces, make_faces
from numpy.typing import NDArray

from facedex.indexer.gallery import Gallery
from facedex.indexer.identification import Query
from facedex.indexer.indexes import Indexes
from facedex.indexer.search.fast import FastIndex
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.records import IdentityDetails, NewEnrolment, NewTemplate
from facedex.indexer.store.store import Store

DIMENSION = 512
CHUNK_ROWS = 50_000
GROWTH_ALLOWED = 2.0

Vector = NDArray[np.float32]


class IndexAlone:
    """Changes in memory only."""

    name = "index"

    def __init__(self, faces: Faces) -> None:
        self._index = FastIndex(DIMENSION)
        for start in range(0, len(faces.templates), CHUNK_ROWS):
            rows = faces.rows(start, start + CHUNK_ROWS)
            numbers = list(range(start + 1, start + len(rows) + 1))
            self._index.add(numbers, numbers, rows)
        self._index.seal()

    def enrol(self, number: int, vector: Vector) -> int:
        self._index.add([number], [number], vector[None])
        return number

    def erase(self, template_id: int) -> None:
        self._index.erase([template_id])

    def finds(self, template_id: int, vector: Vector) -> bool:
        (hits,) = self._index.search(vector[None], limit=1, min_score=0.9)
        return bool(hits) and hits[0].template_id == template_id


class WholeGallery:
    """Changes that are committed to SQLite and then applied to the index, as a server makes them."""

    name = "gallery with SQLite"

    def __init__(self, data: Path, faces: Faces) -> None:
        record = fill_store(data, faces.templates, fitted_model(DIMENSION))
        self._store = Store.open(sqlite_url(data / "facedex.db"))
        self._gallery = Gallery(record, store=self._store, indexes=Indexes(self._store))
        self._gallery.catch_up()

    def enrol(self, number: int, vector: Vector) -> int:
        template = NewTemplate(vector, source_digest=f"{number:064x}")
        details = IdentityDetails(f"person-{number}")
        enrolment = NewEnrolment(details, self._gallery.record.model.digest, (template,))
        enrolled = self._gallery.enrol(enrolment, answer_for=lambda _enrolled: None)
        return enrolled.templates[0].template_id

    def erase(self, template_id: int) -> None:
        self._gallery.delete_template(template_id)

    def finds(self, template_id: int, vector: Vector) -> bool:
        (face,) = self._gallery.identify(vector[None], Query(limit=1)).faces
        return bool(face.candidates) and face.candidates[0].template_id == template_id

    def close(self) -> None:
        self._store.close()


@dataclass(frozen=True, slots=True)
class Place:
    """Something of a size that is changed, and how long each change of it took."""

    subject: IndexAlone | WholeGallery
    size: int
    enrol_ms: list[float] = field(default_factory=list[float])
    erase_ms: list[float] = field(default_factory=list[float])
    not_found: list[int] = field(default_factory=list[int])
    still_found: list[int] = field(default_factory=list[int])


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians over calls; `not_found` are enrolments, and `still_found` erasures, that a search did not see at once."""

    name: str
    templates: int
    enrol_ms: float
    enrol_p99_ms: float
    erase_ms: float
    erase_p99_ms: float
    not_found: int
    still_found: int


def main(
    *,
    sizes: Annotated[str, typer.Option(help="Templates, smallest first, with commas.")] = "10000,100000",
    changes: Annotated[int, typer.Option(help="Enrolments, and erasures, of each.")] = 300,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measures changes."""
    machine = describe_machine()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places = [place for size in (int(each) for each in sizes.split(",")) for place in _places(stack, folder, size)]
        _change(places, make_faces(changes, 1, dimension=DIMENSION, seed=2))
    measured = [_summary(place) for place in places]
    bars = _bars(measured)
    _print(measured, bars)
    document: dict[str, object] = {
        "machine": machine,
        "changes": changes,
        "rows": [asdict(row) for row in measured],
        "bars": bars_as_json(bars),
    }
    write_json(json_path, document)


def _places(stack: ExitStack, folder: Path, size: int) -> list[Place]:
    faces = make_faces(size, 1, dimension=DIMENSION)
    gallery = WholeGallery(folder / str(size), faces)
    stack.callback(gallery.close)
    return [Place(IndexAlone(faces), size), Place(gallery, size)]


def _change(places: list[Place], faces: Faces) -> None:
    """In turns, so that what else the machine does hits all of them."""
    for number, vector in enumerate(faces.rows(0, len(faces.templates))):
        for place in places:
            _change_once(place, place.size + number + 1, vector / np.linalg.norm(vector))


def _change_once(place: Place, number: int, vector: Vector) -> None:
    started = time.perf_counter()
    template_id = place.subject.enrol(number, vector)
    place.enrol_ms.append(_milliseconds_since(started))
    if not place.subject.finds(template_id, vector):
        place.not_found.append(template_id)
    started = time.perf_counter()
    place.subject.erase(template_id)
    place.erase_ms.append(_milliseconds_since(started))
    if place.subject.finds(template_id, vector):
        place.still_found.append(template_id)


def _milliseconds_since(started: float) -> float:
    return 1000 * (time.perf_counter() - started)


def _summary(place: Place) -> Measured:
    return Measured(
        name=place.subject.name,
        templates=place.size,
        enrol_ms=float(np.median(place.enrol_ms)),
        enrol_p99_ms=float(np.percentile(place.enrol_ms, 99)),
        erase_ms=float(np.median(place.erase_ms)),
        erase_p99_ms=float(np.percentile(place.erase_ms, 99)),
        not_found=len(place.not_found),
        still_found=len(place.still_found),
    )


def _bars(measured: list[Measured]) -> list[Bar]:
    kinds: dict[str, Callable[[Measured], float]] = {
        "enrol": lambda row: row.enrol_ms,
        "erase": lambda row: row.erase_ms,
    }
    growths = [
        Bar(f"{what}, {name}, largest by smallest", Side.AT_MOST, GROWTH_ALLOWED, cost(rows[-1]) / cost(rows[0]))
        for name, rows in _by_name(measured).items()
        for what, cost in kinds.items()
    ]
    missed = sum(row.not_found + row.still_found for row in measured)
    return [*growths, Bar("changes that the next search did not see", Side.AT_MOST, 0, missed)]


def _by_name(measured: list[Measured]) -> dict[str, list[Measured]]:
    """Rows of each name, smallest first."""
    names = dict.fromkeys(row.name for row in measured)
    return {
        name: sorted((row for row in measured if row.name == name), key=lambda row: row.templates) for name in names
    }


def _print(measured: list[Measured], bars: list[Bar]) -> None:
    smallest = {name: rows[0] for name, rows in _by_name(measured).items()}
    rows = [
        (
            row.name,
            grouped(row.templates),
            f"{row.enrol_ms:.3f}",
            f"{row.enrol_ms / smallest[row.name].enrol_ms:.2f}",
            f"{row.enrol_p99_ms:.2f}",
            f"{row.erase_ms:.3f}",
            f"{row.erase_ms / smallest[row.name].erase_ms:.2f}",
            f"{row.erase_p99_ms:.2f}",
        )
        for row in measured
    ]
    headings = ("", "templates", "enrol ms", "×", "p99 ms", "erase ms", "×", "p99 ms")
    print_table("Changes, one template a call", headings, rows)
    print_bars(bars)


if __name__ == "__main__":
    typer.run(main)
