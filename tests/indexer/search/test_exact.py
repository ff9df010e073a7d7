"""The exact index against NumPy brute force."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from facedex.indexer.search.exact import ExactIndex
from facedex.indexer.search.template_index import EVERYBODY, Hit, Scope

DIMENSION = 16


def unit_vectors(count: int, *, seed: int, dimension: int = DIMENSION) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Oracle:
    """What a search must return, by comparing everything with everything in plain Python."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[int, NDArray[np.float32]]] = {}

    def add(self, template_ids: list[int], identity_ids: list[int], vectors: NDArray[np.float32]) -> None:
        for template_id, identity_id, vector in zip(template_ids, identity_ids, vectors, strict=True):
            self.rows.setdefault(template_id, (identity_id, vector))

    def erase(self, template_ids: list[int]) -> None:
        for template_id in template_ids:
            self.rows.pop(template_id, None)

    def search(self, probe: NDArray[np.float32], *, limit: int, min_score: float, scope: Scope) -> tuple[Hit, ...]:
        hits: list[Hit] = []
        for template_id, (identity_id, vector) in self.rows.items():
            allowed = scope.allowed is None or identity_id in scope.allowed
            score = float(np.round(np.dot(vector.astype(np.float64), probe.astype(np.float64)), 7))
            if allowed and identity_id not in scope.excluded and score >= min_score:
                hits.append(Hit(template_id, identity_id, min(1.0, max(-1.0, score))))
        hits.sort(key=lambda hit: (-hit.score, hit.template_id))
        best: dict[int, Hit] = {}
        for hit in hits:
            best.setdefault(hit.identity_id, hit)
        return tuple(best.values())[:limit]


def filled(count: int, *, identities: int, seed: int = 1) -> tuple[ExactIndex, Oracle]:
    index, oracle = ExactIndex(DIMENSION), Oracle()
    rng = np.random.default_rng(seed)
    numbers = list(range(1, count + 1))
    owners: list[int] = rng.integers(1, identities + 1, count).tolist()
    vectors = unit_vectors(count, seed=seed)
    for each in (index, oracle):
        each.add(numbers, owners, vectors)
    return index, oracle


@pytest.mark.parametrize("count", [0, 1, 3, 255, 256, 257, 2_000])
@pytest.mark.parametrize("limit", [1, 5, 50])
def test_results_equal_brute_force(count: int, limit: int) -> None:
    index, oracle = filled(count, identities=max(1, count // 3))
    probes = unit_vectors(4, seed=9)
    for probe, hits in zip(probes, index.search(probes, limit=limit), strict=True):
        assert hits == oracle.search(probe, limit=limit, min_score=-1.0, scope=EVERYBODY)


def test_the_list_is_complete_when_one_identity_has_very_many_templates() -> None:
    index, oracle = ExactIndex(DIMENSION), Oracle()
    centre = unit_vectors(1, seed=3)[0]
    crowd = centre + 0.01 * unit_vectors(1_000, seed=4)
    crowd /= np.linalg.norm(crowd, axis=1, keepdims=True)
    others = unit_vectors(20, seed=5)
    for each in (index, oracle):
        each.add(list(range(1, 1_001)), [1] * 1_000, crowd.astype(np.float32))
        each.add(list(range(1_001, 1_021)), list(range(2, 22)), others)
    (hits,) = index.search(centre[None], limit=10)
    assert hits == oracle.search(centre, limit=10, min_score=-1.0, scope=EVERYBODY)
    assert len({hit.identity_id for hit in hits}) == 10


def test_equal_scores_come_in_order_of_enrolment_wherever_they_stand() -> None:
    index = ExactIndex(DIMENSION)
    vector = unit_vectors(1, seed=1)
    fillers = unit_vectors(700, seed=2)
    index.add([900], [9], vector)
    index.add(list(range(1, 701)), list(range(1_001, 1_701)), fillers)
    index.add([800, 850], [8, 7], np.repeat(vector, 2, axis=0))
    (hits,) = index.search(vector, limit=3)
    assert [hit.template_id for hit in hits] == [800, 850, 900]
    assert len({hit.score for hit in hits}) == 1


def test_a_threshold_lets_only_scores_at_or_above_it_through() -> None:
    index, oracle = filled(500, identities=200)
    probe = unit_vectors(1, seed=7)
    exactly = oracle.search(probe[0], limit=3, min_score=-1.0, scope=EVERYBODY)[2].score
    (hits,) = index.search(probe, limit=50, min_score=exactly)
    assert [hit.score for hit in hits][-1] == exactly
    assert hits == oracle.search(probe[0], limit=50, min_score=exactly, scope=EVERYBODY)


def test_filters_and_exclusions_lose_no_candidate() -> None:
    index, oracle = filled(800, identities=100)
    probe = unit_vectors(1, seed=8)
    for scope in (
        Scope(allowed=frozenset(range(1, 100, 7))),
        Scope(excluded=frozenset(range(1, 90))),
        Scope(allowed=frozenset({1, 2, 3}), excluded=frozenset({2})),
        Scope(allowed=frozenset()),
    ):
        (hits,) = index.search(probe, limit=20, scope=scope)
        assert hits == oracle.search(probe[0], limit=20, min_score=-1.0, scope=scope)


def test_an_erased_template_is_never_returned_again() -> None:
    index, oracle = filled(300, identities=300)
    probe = unit_vectors(1, seed=8)
    for _ in range(50):
        (hits,) = index.search(probe, limit=3)
        assert hits == oracle.search(probe[0], limit=3, min_score=-1.0, scope=EVERYBODY)
        for each in (index, oracle):
            each.erase([hits[0].template_id])
    assert len(index) == 250


def test_a_template_added_twice_counts_once() -> None:
    index = ExactIndex(DIMENSION)
    vectors = unit_vectors(2, seed=1)
    index.add([1, 2], [1, 2], vectors)
    index.add([1, 2], [1, 2], vectors)
    assert len(index) == 2
    assert len(index.search(vectors[:1], limit=10)[0]) == 2


def test_the_vector_of_an_erased_template_does_not_stay_in_memory() -> None:
    index = ExactIndex(DIMENSION)
    index.add([1], [1], unit_vectors(1, seed=1))
    index.erase([1])
    assert not any(block.rows.any() for block in index._blocks)


def test_searches_while_another_thread_adds_and_erases_see_whole_templates_only() -> None:
    index = ExactIndex(DIMENSION)
    vectors = unit_vectors(3_000, seed=1)
    stay = vectors[:100]
    index.add(list(range(1, 101)), list(range(1, 101)), stay)
    stop = threading.Event()
    wrong: list[str] = []

    def search() -> None:
        while not stop.is_set():
            for number, hits in enumerate(index.search(stay[:10], limit=1), start=1):
                if hits[0].template_id != number or hits[0].score < 0.999:
                    wrong.append(str(hits[0]))

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for start in range(100, 3_000, 50):
        numbers = list(range(start + 1, start + 51))
        index.add(numbers, numbers, vectors[start : start + 50])
        index.erase(numbers[::2])
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


step = st.one_of(
    st.tuples(st.just("add"), st.lists(st.integers(1, 40), min_size=1, max_size=8, unique=True)),
    st.tuples(st.just("erase"), st.lists(st.integers(1, 40), min_size=1, max_size=8)),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(step, max_size=30), limit=st.integers(1, 6), floor=st.sampled_from([-1.0, 0.0, 0.3]))
def test_any_order_of_adding_and_erasing_gives_what_brute_force_gives(
    steps: list[tuple[str, list[int]]], limit: int, floor: float
) -> None:
    index, oracle = ExactIndex(DIMENSION), Oracle()
    vectors = unit_vectors(41, seed=11)
    vectors[20:30] = vectors[0]  # ties
    for name, numbers in steps:
        for each in (index, oracle):
            if name == "add":
                each.add(numbers, [number % 7 for number in numbers], vectors[numbers])
            else:
                each.erase(numbers)
    probes = unit_vectors(2, seed=12)
    for probe, hits in zip(probes, index.search(probes, limit=limit, min_score=floor), strict=True):
        assert hits == oracle.search(probe, limit=limit, min_score=floor, scope=EVERYBODY)
    assert len(index) == len(oracle.rows)
