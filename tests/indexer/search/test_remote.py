"""A vector engine on other machines: whatever it shows when, answers are those of an exact search over the store."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.indexer.search.oracle import DIMENSION, Oracle, unit_vectors
from tests.indexer.search.remote_engines import Kept, LateEngine

from facedex.indexer.search.remote import Judgement, RemoteIndex, Standing
from facedex.indexer.search.segment import Rows
from facedex.indexer.search.template_index import EVERYBODY, Scope

VECTORS = unit_vectors(300, seed=11)
VECTORS[20:60] = VECTORS[0]  # ties, and one person with more templates than the engine gives at once

change = st.tuples(st.sampled_from(["add", "add", "erase"]), st.integers(1, 40))


def believed(rows: Rows) -> Judgement:
    """Says of everything that it is so."""
    return Judgement(np.ones(len(rows), np.bool_), np.ones(len(rows), np.bool_))


def engine_with(seed: int) -> LateEngine:
    return LateEngine(random.Random(seed))


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    changes=st.lists(change, max_size=15),
    limit=st.integers(1, 6),
    floor=st.sampled_from([-1.0, 0.0, 0.3]),
    excluded=st.frozensets(st.integers(0, 6), max_size=3),
)
def test_late_and_reordered_deliveries_change_no_answer(
    seed: int, changes: list[tuple[str, int]], limit: int, floor: float, excluded: frozenset[int]
) -> None:
    chance = random.Random(seed)
    index, oracle = Kept(DIMENSION, engine_with(seed)), Oracle()
    added = 0
    for name, count in changes:
        if name == "add":  # the store never gives a number twice
            numbers = list(range(added, min(300, added + count)))
            added += len(numbers)
            for each in (index, oracle):
                each.add(numbers, [number % 7 for number in numbers], VECTORS[numbers])
        else:
            numbers = chance.sample(range(added), min(count, added))
            for each in (index, oracle):
                each.erase(numbers)
        for scope in (EVERYBODY, Scope(excluded=excluded), Scope(frozenset({1, 2, 3}), excluded)):
            probe = VECTORS[chance.randrange(300)]
            (hits,) = index.search(probe[None], limit=limit, min_score=floor, scope=scope)
            assert hits == oracle.search(probe, limit=limit, min_score=floor, scope=scope)


def test_an_index_that_trusts_its_engine_would_return_the_erased() -> None:
    """The same double, without the store's word: the test above can fail."""
    wrong = 0
    for seed in range(20):
        engine = engine_with(seed)
        index = RemoteIndex(DIMENSION, engine, believed)
        index.add([1, 2], [1, 2], VECTORS[:2])
        index.deliver()
        index.erase([1])
        for _ in range(20):
            index.deliver()
        (hits,) = index.search(VECTORS[:1], limit=5)
        wrong += any(hit.template_id == 1 for hit in hits)
    assert wrong > 0


def test_what_is_delivered_is_no_longer_kept_in_memory() -> None:
    engine = engine_with(1)
    index = Kept(DIMENSION, engine)
    index.add(list(range(100)), list(range(100)), VECTORS[:100])
    index.erase(list(range(50)))
    for _ in range(50):
        if index.index.deliver() == Standing(0, 0):
            break
    assert index.index.standing == Standing(0, 0)
    engine.happen()
    index.search(VECTORS[:100], limit=50)  # finds and deletes whoever haunts the engine
    index.index.deliver()
    engine.happen()
    assert engine.held(list(range(100))) == set(range(50, 100))


def test_a_restored_index_goes_on_with_what_the_engine_holds() -> None:
    """After a restart the log is replayed over what is there already."""
    engine = engine_with(2)
    before = Kept(DIMENSION, engine)
    before.add(list(range(20)), list(range(20)), VECTORS[:20])
    engine.happen()
    after, oracle = Kept(DIMENSION, engine), Oracle()
    for each in (after, oracle):
        each.add(list(range(20)), list(range(20)), VECTORS[:20])
        each.erase([3])
    assert len(after) == 19
    hits = after.search(VECTORS[:20], limit=3)
    assert hits == [oracle.search(probe, limit=3, min_score=-1.0, scope=EVERYBODY) for probe in VECTORS[:20]]


def test_very_many_allowed_people_are_asked_for_in_parts() -> None:
    index, oracle = Kept(DIMENSION, engine_with(3)), Oracle()
    for each in (index, oracle):
        each.add(list(range(300)), list(range(0, 30_000, 100)), VECTORS)
    allowed = Scope(frozenset(range(0, 30_000, 2)), frozenset({200}))
    (hits,) = index.search(VECTORS[:1], limit=20, scope=allowed)
    assert hits == oracle.search(VECTORS[0], limit=20, min_score=-1.0, scope=allowed)
    assert np.all([hit.identity_id % 2 == 0 for hit in hits])


def test_more_erased_people_than_the_engine_gives_at_once_hide_nobody() -> None:
    """They are nearest to the probe, and nobody has told the engine yet."""
    engine = engine_with(4)
    index, living = Kept(DIMENSION, engine), set(range(200, 220))
    index.add([*range(20, 60), *living], [*range(20, 60), *living], VECTORS[[*range(20, 60), *living]])
    for _ in range(50):
        index.index.deliver()
    engine.happen()
    index.living = living
    index.index.erase(list(range(20, 60)))
    (hits,) = index.search(VECTORS[:1], limit=3)
    assert {hit.identity_id for hit in hits} <= living
    assert len(hits) == 3


def test_rows_that_somebody_else_put_into_the_engine_hide_nobody_and_end_every_search() -> None:
    """They are nearest to the probe, more than it gives at once, and the store knows their numbers."""
    engine = engine_with(5)
    forged = set(range(20, 120))

    def judged(rows: Rows) -> Judgement:
        genuine = np.array([number not in forged for number in rows.template_ids.tolist()], np.bool_)
        return Judgement(np.ones(len(rows), np.bool_), genuine)

    index = RemoteIndex(DIMENSION, engine, judged)
    numbers = [*range(20, 120), *range(200, 205)]
    index.add(numbers, numbers, VECTORS[numbers])
    for _ in range(50):
        index.deliver()
    engine.happen()
    (hits,) = index.search(VECTORS[:1], limit=3)
    assert {hit.identity_id for hit in hits} <= set(range(200, 205))
    assert len(hits) == 3


def test_who_has_erased_faces_and_a_living_one_behind_them_is_found() -> None:
    """The erased ones are more than the engine gives at once, and it forgets them late."""
    engine = engine_with(57)
    index, erased, living = Kept(DIMENSION, engine), list(range(20, 180)), list(range(200, 205))
    index.add([*erased, *living], [*(number % 5 for number in erased), *range(5)], VECTORS[[*erased, *living]])
    for _ in range(50):
        index.index.deliver()
    engine.happen()
    index.living = set(living)
    index.index.erase(erased)
    (hits,) = index.search(VECTORS[:1], limit=5)
    assert sorted(hit.template_id for hit in hits) == living
