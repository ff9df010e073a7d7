"""A data folder as `facedex-index` leaves it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from facedex.indexer.assembly import assemble_galleries
from facedex.indexer.galleries import Galleries
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.store import Store
from facedex.indexer.vision.decode import ImageLimits
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER


@contextmanager
def galleries_of(data: Path) -> Generator[Galleries]:
    data.mkdir(exist_ok=True)
    with closing(Store.open(sqlite_url(data / "facedex.db"))) as store:
        yield assemble_galleries(
            store, data=data, detector=BUILTIN_DETECTOR, embedder=BUILTIN_EMBEDDER, limits=ImageLimits(), workers=1
        )
