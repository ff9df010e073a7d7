"""100 000 fitted vectors under any order of enrolling, erasing, filtering, sealing, compacting, saving and restarting."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from benchmarks.vectors import Faces, make_faces
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from numpy.typing import NDArray

from facedex.indexer.search.crew import Crew
from facedex.indexer.search.fast import FastIndex
from facedex.indexer.search.snapshot import Snapshot, SnapshotKey, read_snapshot, write_snapshot
from facedex.indexer.search.template_index import EVERYBODY, Hit, Scope

DIMENSION, TEMPLATES, SPARE = 128, 100_000, 20_000
SECRET = bytes(32)
# Two templates an identity.
PER_IDENTITY = 2
limits = st.sampled_from([1, 5, 60])
floors = st.sampled_from([-1.0, 0.3, 0.45])
seeds = st.integers(0, 2**32)


@lru_cache(maxsize=1)
def people() -> Faces:
    """Rows 0 to 99 999 are enrolled from the beginning, the others are for later."""
    return make_faces(TEMPLATES + SPARE, 4_000, dimension=DIMENSION, seed=5)


@lru_cache(maxsize=1)
def first_snapshot() -> Path:
    index = FastIndex(DIMENSION, operating_score=0.4)
    for start in range(0, TEMPLATES, 20_000):
        numbers = list(range(start, start + 20_000))
        index.add(numbers, [number // PER_IDENTITY for number in numbers], people().rows(start, start + 20_000))
    index.seal()
    path = Path(tempfile.mkdtemp()) / "first.snapshot"
    save(index, path, revision=0)
    return path


def save(index: FastIndex, path: Path, *, revision: int) -> None:
    key = SnapshotKey(1, "ab" * 32, DIMENSION, index.codebook_digest)
    write_snapshot(path, Snapshot(key, revision, "now", index.digest, index.state()), secret=SECRET)


def load(path: Path) -> tuple[FastIndex, int]:
    index = FastIndex(DIMENSION, operating_score=0.4, crew=Crew(2))
    key = SnapshotKey(1, "ab" * 32, DIMENSION, index.codebook_digest)
    snapshot = read_snapshot(path, key, secret=SECRET)
    index.restore(snapshot)
    return index, snapshot.revision


class GalleryLife(RuleBasedStateMachine):
    """An index beside brute force over one array."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = people().rows(0, TEMPLATES + SPARE)
        self.alive = np.arange(TEMPLATES + SPARE) < TEMPLATES
        self.next = TEMPLATES
        self.log: list[tuple[str, list[int]]] = []
        self.folder = Path(tempfile.mkdtemp())
        self.snapshot = first_snapshot()
        self.index, _ = load(self.snapshot)

    # Changes

    @rule(count=st.sampled_from([1, 40, 3_000]))
    def enrol(self, count: int) -> None:
        numbers = list(range(self.next, min(self.next + count, TEMPLATES + SPARE)))
        self.next += len(numbers)
        self.change("add", numbers)

    @rule(seed=seeds, count=st.sampled_from([1, 100, 2_000]))
    def erase(self, seed: int, count: int) -> None:
        self.change("erase", np.random.default_rng(seed).integers(0, self.next, count).tolist())

    @rule(seed=seeds)
    def erase_whom_a_search_finds(self, seed: int) -> None:
        (hits,) = self.index.search(self.probe(seed)[None], limit=5)
        self.change("erase", [hit.template_id for hit in hits])

    @rule(first=st.integers(0, TEMPLATES - 30_000))
    def erase_so_many_that_a_segment_is_compacted(self, first: int) -> None:
        self.change("erase", list(range(first, first + 30_000)))
        self.index.seal()
        assert not any(each.live_count < 0.85 * len(each) for each in self.index.segments)

    def change(self, name: str, numbers: list[int]) -> None:
        self.log.append((name, numbers))
        self.apply(name, numbers)
        self.alive[numbers] = name == "add"

    def apply(self, name: str, numbers: list[int]) -> None:
        if name == "add":
            self.index.add(numbers, [number // PER_IDENTITY for number in numbers], self.vectors[numbers])
        else:
            self.index.erase(numbers)

    # Upkeep

    @rule()
    def seal(self) -> None:
        self.index.seal()

    @rule()
    def save(self) -> None:
        self.snapshot = self.folder / "later.snapshot"
        save(self.index, self.snapshot, revision=len(self.log))

    @rule()
    def restart(self) -> None:
        self.index, revision = load(self.snapshot)
        for name, numbers in self.log[revision:]:
            self.apply(name, numbers)

    # Searches

    @rule(seed=seeds, limit=limits, floor=floors)
    def search(self, seed: int, limit: int, floor: float) -> None:
        self.compare(seed, limit, floor, EVERYBODY)

    @rule(seed=seeds, limit=limits, floor=floors, share=st.sampled_from([0.001, 0.3, 0.9]))
    def search_a_filtered_part(self, seed: int, limit: int, floor: float, share: float) -> None:
        identities = np.flatnonzero(np.random.default_rng(seed).random(TEMPLATES // PER_IDENTITY) < share)
        self.compare(seed, limit, floor, Scope(allowed=frozenset(identities.tolist())))

    @rule(seed=seeds, limit=limits)
    def search_without_whom_a_search_finds(self, seed: int, limit: int) -> None:
        (hits,) = self.index.search(self.probe(seed)[None], limit=3)
        self.compare(seed, limit, -1.0, Scope(excluded=frozenset(hit.identity_id for hit in hits)))

    def compare(self, seed: int, limit: int, floor: float, scope: Scope) -> None:
        probe = self.probe(seed)
        (hits,) = self.index.search(probe[None], limit=limit, min_score=floor, scope=scope)
        assert all(self.alive[hit.template_id] for hit in hits)
        assert hits == self.brute_force(probe, limit, floor, scope)

    def probe(self, seed: int) -> NDArray[np.float32]:
        probes = people().probes
        return np.asarray(probes[seed % len(probes)], np.float32)

    def brute_force(self, probe: NDArray[np.float32], limit: int, floor: float, scope: Scope) -> tuple[Hit, ...]:
        scores = np.round(self.vectors.astype(np.float64) @ probe.astype(np.float64), 7)
        identities = np.arange(len(scores)) // PER_IDENTITY
        seen = self.alive & (scores >= floor)
        if scope.allowed is not None:
            seen &= np.isin(identities, list(scope.allowed))
        seen &= ~np.isin(identities, list(scope.excluded))
        best_first = np.flatnonzero(seen)[np.argsort(-scores[seen], kind="stable")]
        _, first = np.unique(identities[best_first], return_index=True)
        chosen = best_first[np.sort(first)[:limit]]
        return tuple(Hit(int(row), int(identities[row]), float(scores[row])) for row in chosen)

    @invariant()
    def as_many_as_there_are(self) -> None:
        assert len(self.index) == int(self.alive.sum())


TestGalleryLife = GalleryLife.TestCase
TestGalleryLife.settings = settings(
    max_examples=10,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
