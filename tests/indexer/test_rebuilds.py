"""Rebuilds: in the background, one after the other, with the codes measured anew; searches and changes go on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.indexer.search.oracle import unit_vectors
from tests.waiting import wait_until

from facedex.indexer import rebuilds
from facedex.indexer.errors import StoreUnavailable
from facedex.indexer.gallery import Gallery
from facedex.indexer.identification import Query
from facedex.indexer.indexes import Indexes
from facedex.indexer.policy import DecisionPolicy, GalleryPolicy, policy_to_json
from facedex.indexer.rebuilds import Rebuilds
from facedex.indexer.search.fast import FastIndex, FastSettings
from facedex.indexer.search.gallery_index import GalleryIndex
from facedex.indexer.search.template_index import Hit
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.enrolling import EnrolmentEntry
from facedex.indexer.store.records import GalleryRecord, IdentityDetails, ModelRecord, NewEnrolment, NewTemplate
from facedex.indexer.store.store import Store

DIMENSION = 512
WAIT_SECONDS = 60
MODEL = ModelRecord("ab" * 32, "double", DIMENSION, "Apache-2.0", 0.6, "made for tests")
# Codes from a few hundred rows on; nothing is measured a second time unless a rule says so.
SETTINGS = FastSettings(
    exact_rows=64, first_block_rows=64, block_rows=64, seal_rows=128, bulk_rows=200, coded_rows=100, measured_rows=10**9
)


def alike_vectors(count: int, *, seed: int) -> NDArray[np.float32]:
    """People whom the model hardly tells apart: all of them are near one direction."""
    rows = unit_vectors(count, seed=seed, dimension=DIMENSION)
    mixed = rows + 1.5 * unit_vectors(1, seed=999, dimension=DIMENSION)
    unit = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    return np.asarray(unit.astype(np.float16), np.float32)


class SmallIndexes(Indexes):
    """Indexes that have segments from a few hundred rows on."""

    settings = SETTINGS

    def in_memory(self, gallery: GalleryRecord) -> FastIndex:
        return FastIndex(
            gallery.model.dimension,
            self.settings,
            operating_score=super().in_memory(gallery).operating_score,
            digester=self._store.digester(gallery.model.digest),
            reached=self._store.reached,
        )


class Hall:
    """A gallery of many people, whose vectors are put into the store as they are."""

    def __init__(self, folder: Path) -> None:
        self.store = Store.open(sqlite_url(folder / "facedex.db"))
        self.store.create_gallery("hall", model=MODEL, policy=policy_to_json(GalleryPolicy()))
        self.gallery = self.opened()
        self.people = 0

    def opened(self) -> Gallery:
        indexes = SmallIndexes(self.store)
        gallery = Gallery(self.store.gallery("hall"), store=self.store, indexes=indexes)
        gallery.catch_up()
        return gallery

    def fill(self, vectors: NDArray[np.float32]) -> None:
        entries = [
            EnrolmentEntry(
                NewEnrolment(IdentityDetails(f"p{number}"), MODEL.digest, (NewTemplate(vector, f"{number:064x}"),))
            )
            for number, vector in enumerate(vectors, start=self.people)
        ]
        self.people += len(vectors)
        self.gallery.enrol_all(entries)
        self.gallery._index.settle()

    def found(self, vector: NDArray[np.float32]) -> list[str]:
        (face,) = self.gallery.identify(vector[None], Query(limit=1)).faces
        return [each.identity.external_id for each in face.candidates]


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    hall = Hall(tmp_path)
    yield hall
    hall.store.close()


def test_a_rebuild_measures_the_codes_anew_and_everybody_is_identified_all_the_while(hall: Hall) -> None:
    easy, hard = unit_vectors(350, seed=1, dimension=DIMENSION), alike_vectors(300, seed=2)
    hall.fill(easy)
    first = hall.gallery.search_plan
    assert first.bits_per_component == 0.5
    for start in range(0, len(hard), 100):
        hall.fill(hard[start : start + 100])
    stale = hall.gallery.search_plan
    assert stale.fit == first.fit  # what was measured on the first people is still said of everybody
    answers: list[list[str]] = []
    stop = threading.Event()

    def identify() -> None:
        while not stop.is_set():
            answers.append(hall.found(hard[200]))

    searching = threading.Thread(target=identify)
    searching.start()
    wait_until(lambda: len(answers) > 2)
    before = len(answers)
    hall.gallery.request_rebuild()
    during = len(answers) - before
    stop.set()
    searching.join()
    fresh = hall.gallery.search_plan
    assert fresh.fit != stale.fit
    assert fresh.share_looked_at > stale.share_looked_at  # foretold as it is
    assert fresh.reason != stale.reason
    assert during > 0
    assert {tuple(each) for each in answers} == {("p550",)}
    assert all(hall.found(row) == [f"p{number}"] for number, row in enumerate(easy[:20]))


def test_compaction_measures_the_codes_of_a_large_segment_anew() -> None:
    index = FastIndex(DIMENSION, replace(SETTINGS, measured_rows=600), operating_score=0.6)
    easy, hard = unit_vectors(400, seed=1, dimension=DIMENSION), alike_vectors(1_200, seed=2)
    for number, row in enumerate(np.concatenate([easy, hard]), start=1):
        index.add([number], [number], row[None])
    index.settle()
    measured = index.choice
    index.erase(range(1, 401))
    index.settle()
    assert index.choice.fit != measured.fit
    assert index.choice.share_looked_at > measured.share_looked_at


def test_a_rebuild_takes_the_threshold_that_is_in_force_now(hall: Hall) -> None:
    hall.fill(unit_vectors(300, seed=1, dimension=DIMENSION))
    assert hall.gallery.search_plan.bits_per_component == 0.5
    hall.store.update_policy("hall", policy_to_json(GalleryPolicy(decision=DecisionPolicy(cosine=0.25))))
    hall.gallery.catch_up()
    hall.gallery.request_rebuild()
    plan = hall.gallery.search_plan
    assert (plan.bits_per_component, plan.operating_score) == (1.0, 0.25)


def test_a_search_that_began_before_an_index_was_swapped_ends_in_the_new_one(hall: Hall) -> None:
    rows = unit_vectors(20, seed=1, dimension=DIMENSION)
    hall.fill(rows)
    old = hall.gallery._searchable.index
    search = old.search

    def swapped_meanwhile(*arguments: Any, **options: Any) -> list[tuple[Hit, ...]]:
        found = search(*arguments, **options)
        if hall.gallery._index is old:
            hall.gallery.request_rebuild()
            hall.gallery.delete_identity("p5")  # the old index is not told any more
        return found

    old.search = swapped_meanwhile  # type: ignore[method-assign]
    assert hall.found(rows[5]) == []
    assert hall.found(rows[6]) == ["p6"]


def test_changes_go_on_while_an_index_is_built_and_none_is_lost(hall: Hall) -> None:
    rows = unit_vectors(360, seed=1, dimension=DIMENSION)
    hall.fill(rows[:300])
    is_building, may_go_on = threading.Event(), threading.Event()
    replay = hall.gallery._replay

    def slow_replay(index: GalleryIndex, model: ModelRecord, *, after: int, until: int) -> int:
        reached = replay(index, model, after=after, until=until)
        is_building.set()
        assert may_go_on.wait(WAIT_SECONDS)
        return reached

    hall.gallery._replay = slow_replay  # type: ignore[method-assign]
    hall.store.request_rebuild(hall.gallery.record)
    hall.gallery.catch_up()
    assert is_building.wait(WAIT_SECONDS)
    old = hall.gallery._index
    hall.fill(rows[300:])
    hall.gallery.delete_identity("p5")
    assert hall.gallery._index is old
    assert (hall.found(rows[350]), hall.found(rows[5])) == (["p350"], [])
    may_go_on.set()
    hall.gallery.settle()
    assert hall.gallery._index is not old
    assert (hall.found(rows[350]), hall.found(rows[5])) == (["p350"], [])
    with hall.gallery.held() as held:
        standing = held.moment.standing(hall.gallery.record)
        assert (held.index.digest, held.revision) == (standing.digest, standing.revision)
    assert hall.gallery.copies_since is not None  # the codes of somebody who is erased are in the new index


# The queue


def test_who_asks_during_a_rebuild_gets_another_one_behind_it() -> None:
    begun, may_end = threading.Semaphore(0), threading.Event()
    times: list[int] = []

    def rebuild() -> None:
        times.append(1)
        begun.release()
        assert may_end.wait(WAIT_SECONDS)

    works = Rebuilds(rebuild)
    works.ask()
    assert begun.acquire(timeout=WAIT_SECONDS)
    works.ask()
    works.ask()
    may_end.set()
    works.settle()
    assert len(times) == 2


def test_a_database_that_is_away_for_a_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilds, "RETRY_SECONDS", (0.0, 0.0))
    failures = iter([StoreUnavailable("away"), StoreUnavailable("away")])

    def rebuild() -> None:
        failure = next(failures, None)
        if failure is not None:
            raise failure

    works = Rebuilds(rebuild)
    works.ask()
    works.finish()


def test_a_rebuild_that_fails_is_told_and_the_next_one_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    failures = iter([ValueError("planted")])

    def rebuild() -> None:
        failure = next(failures, None)
        if failure is not None:
            raise failure

    works = Rebuilds(rebuild)
    works.ask()
    with pytest.raises(ValueError, match="planted"):
        works.finish()
    assert "the old one goes on answering" in caplog.text
    works.settle()  # nothing is under way
    works.ask()
    works.finish()


def test_who_waits_for_a_rebuild_may_give_up() -> None:
    class GaveUp(Exception):
        pass

    may_end = threading.Event()

    def rebuild() -> None:
        assert may_end.wait(WAIT_SECONDS)

    works = Rebuilds(rebuild)
    works.ask()

    def give_up() -> None:
        raise GaveUp

    with pytest.raises(GaveUp):
        works.settle(checkpoint=give_up)
    may_end.set()
    works.settle()
