"""Every index against brute force.

The exact one, the fast one with parts so small that it seals and merges all the time, and Milvus, here in its small edition.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.indexer.search.oracle import DIMENSION, Oracle, unit_vectors
from tests.indexer.search.remote_engines import Kept

from facedex.indexer.search.codebook import HALF_RATE, Codebook, codebook
from facedex.indexer.search.crew import Crew
from facedex.indexer.search.exact import ExactIndex
from facedex.indexer.search.fast import FastIndex, FastSettings
from facedex.indexer.search.milvus import MilvusEngines
from facedex.indexer.search.segment import Rows, Segment
from facedex.indexer.search.template_index import EVERYBODY, Scope, TemplateIndex
from facedex.indexer.search.torch_memory import TorchMemory
from facedex.indexer.search.two_looks import LookSettings

MakeIndex = Callable[[], TemplateIndex]
SMALL_PARTS = FastSettings(
    exact_rows=64,
    first_block_rows=8,
    block_rows=16,
    seal_rows=32,
    bulk_rows=100,
    coded_rows=24,
    segment_rows=512,
    look=LookSettings(gather_rows=16, first_look=16, first_look_per_candidate=2, many_rows=40, shared_rows=200),
)


def exact_index() -> TemplateIndex:
    return ExactIndex(DIMENSION)


def fast_index() -> TemplateIndex:
    return FastIndex(DIMENSION, SMALL_PARTS, crew=Crew(2))


def short_code_index() -> TemplateIndex:
    return FastIndex(DIMENSION, replace(SMALL_PARTS, code_rates=(HALF_RATE,)), operating_score=0.9)


def device_index() -> TemplateIndex:
    """The processor stands in for a device."""
    return FastIndex(DIMENSION, SMALL_PARTS, memory=TorchMemory("cpu"))


LOCAL = {"exact": exact_index, "fast": fast_index, "short codes": short_code_index, "device": device_index}


@pytest.fixture(params=[*LOCAL.values()], ids=[*LOCAL])
def make_local_index(request: pytest.FixtureRequest) -> MakeIndex:
    made: MakeIndex = request.param
    return made


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusEngines]:
    """The Milvus that MILVUS_URI names, else Milvus Lite, which lies in a file."""
    engines = MilvusEngines(os.environ.get("MILVUS_URI") or str(tmp_path_factory.mktemp("milvus") / "lite.db"))
    yield engines
    engines.close()


@pytest.fixture(
    params=[exact_index, fast_index, short_code_index, None], ids=["exact", "fast", "short codes", "milvus"]
)
def make_index(request: pytest.FixtureRequest) -> Iterator[MakeIndex]:
    if request.param is not None:
        yield request.param
        return
    milvus: MilvusEngines = request.getfixturevalue("milvus")
    name = f"facedex_test_{uuid.uuid4().hex}"
    engine = milvus.opened(name, DIMENSION)
    yield lambda: Kept(DIMENSION, engine)
    milvus.drop(name)


def filled(make_index: MakeIndex, count: int, *, identities: int, seed: int = 1) -> tuple[TemplateIndex, Oracle]:
    index, oracle = make_index(), Oracle()
    rng = np.random.default_rng(seed)
    numbers = list(range(1, count + 1))
    owners: list[int] = rng.integers(1, identities + 1, count).tolist()
    vectors = unit_vectors(count, seed=seed)
    for each in (index, oracle):
        each.add(numbers, owners, vectors)
    return index, oracle


@pytest.mark.parametrize("count", [0, 1, 3, 255, 256, 257, 2_000])
@pytest.mark.parametrize("limit", [1, 5, 50])
def test_results_equal_brute_force(make_index: MakeIndex, count: int, limit: int) -> None:
    index, oracle = filled(make_index, count, identities=max(1, count // 3))
    probes = unit_vectors(4, seed=9)
    for probe, hits in zip(probes, index.search(probes, limit=limit), strict=True):
        assert hits == oracle.search(probe, limit=limit, min_score=-1.0, scope=EVERYBODY)


def test_the_list_is_complete_when_one_identity_has_very_many_templates(make_index: MakeIndex) -> None:
    index, oracle = make_index(), Oracle()
    centre = unit_vectors(1, seed=3)[0]
    crowd = centre + 0.01 * unit_vectors(1_000, seed=4)
    crowd /= np.linalg.norm(crowd, axis=1, keepdims=True)
    others = unit_vectors(20, seed=5)
    for each in (index, oracle):
        each.add(list(range(1, 1_001)), [1] * 1_000, crowd.astype(np.float16).astype(np.float32))
        each.add(list(range(1_001, 1_021)), list(range(2, 22)), others)
    (hits,) = index.search(centre[None], limit=10)
    assert hits == oracle.search(centre, limit=10, min_score=-1.0, scope=EVERYBODY)
    assert len({hit.identity_id for hit in hits}) == 10


def test_equal_scores_come_in_order_of_enrolment_wherever_they_stand(make_index: MakeIndex) -> None:
    index = make_index()
    vector = unit_vectors(1, seed=1)
    fillers = unit_vectors(700, seed=2)
    index.add([900], [9], vector)
    index.add(list(range(1, 701)), list(range(1_001, 1_701)), fillers)
    index.add([800, 850], [8, 7], np.repeat(vector, 2, axis=0))
    (hits,) = index.search(vector, limit=3)
    assert [hit.template_id for hit in hits] == [800, 850, 900]
    assert len({hit.score for hit in hits}) == 1


def test_a_threshold_lets_only_scores_at_or_above_it_through(make_index: MakeIndex) -> None:
    index, oracle = filled(make_index, 500, identities=200)
    probe = unit_vectors(1, seed=7)
    exactly = oracle.search(probe[0], limit=3, min_score=-1.0, scope=EVERYBODY)[2].score
    (hits,) = index.search(probe, limit=50, min_score=exactly)
    assert [hit.score for hit in hits][-1] == exactly
    assert hits == oracle.search(probe[0], limit=50, min_score=exactly, scope=EVERYBODY)


def test_filters_and_exclusions_lose_no_candidate(make_index: MakeIndex) -> None:
    index, oracle = filled(make_index, 800, identities=100)
    probe = unit_vectors(1, seed=8)
    for scope in (
        Scope(allowed=frozenset(range(1, 100, 7))),
        Scope(excluded=frozenset(range(1, 90))),
        Scope(allowed=frozenset({1, 2, 3}), excluded=frozenset({2})),
        Scope(allowed=frozenset()),
    ):
        (hits,) = index.search(probe, limit=20, scope=scope)
        assert hits == oracle.search(probe[0], limit=20, min_score=-1.0, scope=scope)


def test_an_erased_template_is_never_returned_again(make_index: MakeIndex) -> None:
    index, oracle = filled(make_index, 300, identities=300)
    probe = unit_vectors(1, seed=8)
    for _ in range(50):
        (hits,) = index.search(probe, limit=3)
        assert hits == oracle.search(probe[0], limit=3, min_score=-1.0, scope=EVERYBODY)
        for each in (index, oracle):
            each.erase([hits[0].template_id])
    assert len(index) == 250


def test_a_template_added_twice_counts_once(make_index: MakeIndex) -> None:
    index = make_index()
    vectors = unit_vectors(2, seed=1)
    index.add([1, 2], [1, 2], vectors)
    index.add([1, 2], [1, 2], vectors)
    assert len(index) == 2
    index.add([3, 3, 1], [3, 3, 1], vectors[[0, 0, 0]])
    index.erase([3])
    assert len(index) == 2
    assert len(index.search(vectors[:1], limit=10)[0]) == 2


def vectors_in_memory(index: TemplateIndex) -> list[np.ndarray]:
    assert isinstance(index, ExactIndex | FastIndex)
    segments = index.segments if isinstance(index, FastIndex) else ()
    return [*(block.rows for block in index._blocks), *(segment.rows.vectors for segment in segments)]


@pytest.mark.parametrize("count", [1, 300])
def test_the_vector_of_an_erased_template_does_not_stay_in_memory(make_local_index: MakeIndex, count: int) -> None:
    index, _ = filled(make_local_index, count, identities=count)
    index.erase(list(range(1, count + 1)))
    assert not any(vector.any() for vector in vectors_in_memory(index))


def test_searches_while_another_thread_adds_and_erases_see_whole_templates_only(make_index: MakeIndex) -> None:
    index = make_index()
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


def test_who_is_alive_is_asked_while_another_thread_erases_and_nobody_is_invented() -> None:
    count = 400_000
    segment = Segment(Rows(np.arange(count), np.arange(count), np.zeros((count, 1), np.float16)), None)
    eraser = threading.Thread(target=segment.keep_only, args=(np.zeros(count, np.bool_),))
    eraser.start()
    while eraser.is_alive():
        seen = segment.seen(None)
        assert len(seen) == 0 or (seen[0] >= 0 and seen[-1] < count and bool(np.all(np.diff(seen) > 0)))
    eraser.join()
    assert len(segment.seen(None)) == 0


step = st.one_of(
    st.tuples(st.just("add"), st.lists(st.integers(1, 400), min_size=1, max_size=150, unique=True)),
    st.tuples(st.just("erase"), st.lists(st.integers(1, 400), min_size=1, max_size=100)),
    st.tuples(st.just("seal"), st.just([0])),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(step, max_size=20), limit=st.integers(1, 6), floor=st.sampled_from([-1.0, 0.0, 0.3]))
def test_any_order_of_adding_erasing_and_sealing_gives_what_brute_force_gives(
    steps: list[tuple[str, list[int]]], limit: int, floor: float
) -> None:
    exact, fast, oracle = exact_index(), FastIndex(DIMENSION, SMALL_PARTS), Oracle()
    vectors = unit_vectors(401, seed=11)
    vectors[20:30] = vectors[0]  # ties
    for name, numbers in steps:
        if name == "seal":
            fast.seal()
        for each in (exact, fast, oracle) if name != "seal" else ():
            if name == "add":
                each.add(numbers, [number % 97 for number in numbers], vectors[numbers])
            else:
                each.erase(numbers)
    probes = unit_vectors(2, seed=12)
    scope = Scope(excluded=frozenset({5}))
    for index in (exact, fast):
        for probe, hits in zip(probes, index.search(probes, limit=limit, min_score=floor, scope=scope), strict=True):
            assert hits == oracle.search(probe, limit=limit, min_score=floor, scope=scope)
        assert len(index) == len(oracle.rows)


def test_erasing_while_a_segment_is_made_is_not_forgotten() -> None:
    index, oracle = FastIndex(DIMENSION, SMALL_PARTS), Oracle()
    vectors = unit_vectors(2_000, seed=5)
    for start in range(0, 2_000, 10):
        numbers = list(range(start + 1, start + 11))
        for each in (index, oracle):
            each.add(numbers, numbers, vectors[start : start + 10])
            each.erase(numbers[::3])
    index.seal()
    probe = unit_vectors(1, seed=6)
    (hits,) = index.search(probe, limit=2_000)
    assert hits == oracle.search(probe[0], limit=2_000, min_score=-1.0, scope=EVERYBODY)
    assert len(index.segments) > 1


def test_a_segment_with_many_erased_rows_is_written_anew() -> None:
    index = FastIndex(DIMENSION, SMALL_PARTS)
    vectors = unit_vectors(500, seed=5)
    index.add(list(range(1, 501)), list(range(1, 501)), vectors)
    index.erase(list(range(1, 301)))
    index.seal()
    assert sum(len(segment) for segment in index.segments) == 200
    assert len(index) == 200


def test_the_codebook_is_the_same_on_every_machine() -> None:
    assert Codebook(256, 32).digest == codebook(256, 32).digest
