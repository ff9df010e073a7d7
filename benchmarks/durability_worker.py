"""One version of facedex at work for `benchmarks.durability`, which puts its sources on the path. Not to be started alone."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from benchmarks.filled_store import fill_store, fitted_model
from benchmarks.vectors import make_faces
from numpy.typing import NDArray

from facedex.indexer.gallery import Gallery
from facedex.indexer.identification import Query
from facedex.indexer.indexes import Indexes
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.records import GalleryRecord, IdentityDetails, NewEnrolment, NewTemplate
from facedex.indexer.store.store import Store

DIMENSION = 512
MOST_CALLS = 5_000


class Worker:
    """A filled gallery, and one call after the other."""

    def __init__(self, data: Path, templates: int) -> None:
        record = self._filled(data, templates)
        self._faces = make_faces(MOST_CALLS, 1, dimension=DIMENSION, seed=2).rows(0, MOST_CALLS)
        self._store = Store.open(sqlite_url(data / "facedex.db"))
        started = time.perf_counter()
        self._gallery = Gallery(record, store=self._store, indexes=Indexes(self._store))
        self._gallery.catch_up()
        self.load_seconds = time.perf_counter() - started
        self._last = 0

    def _filled(self, data: Path, templates: int) -> GalleryRecord:
        return fill_store(data, make_faces(templates, 1, dimension=DIMENSION).templates, fitted_model(DIMENSION))

    def face(self, number: int) -> NDArray[np.float32]:
        face = self._faces[number % MOST_CALLS]
        return np.asarray(face / np.linalg.norm(face), np.float32)

    def enrol(self, number: int) -> None:
        template = NewTemplate(self.face(number), source_digest=f"{10**9 + number:064x}")
        enrolment = NewEnrolment(IdentityDetails(f"new-{number}"), self._gallery.record.model.digest, (template,))
        self._last = self._gallery.enrol(enrolment, answer_for=lambda _enrolled: None).templates[0].template_id

    def identify(self, number: int) -> None:
        self._gallery.identify(self.face(number)[None], Query(limit=5))

    def erase(self, _number: int) -> None:
        self._gallery.delete_template(self._last)


def main() -> None:
    worker = Worker(Path(sys.argv[1]), int(sys.argv[2]))
    print(worker.load_seconds, flush=True)
    for line in sys.stdin:
        call, number = line.split()
        started = time.perf_counter()
        getattr(worker, call)(int(number))
        print(1000 * (time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    main()
