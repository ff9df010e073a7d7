"""Galleries whose vectors lie in a vector engine: the same answers, after whatever happens to the engine or a server."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from tests.indexer.conftest import House
from tests.indexer.doubles import MODEL, Person, person_vector
from tests.indexer.search.remote_engines import LateEngine

from facedex.indexer.consistency.check import check_gallery
from facedex.indexer.consistency.findings import Fault
from facedex.indexer.engine_indexes import EngineIndexes, Engines
from facedex.indexer.enrolment import Enrol, VectorItem
from facedex.indexer.errors import EngineUnavailable
from facedex.indexer.gallery import Gallery
from facedex.indexer.identification import Query
from facedex.indexer.indexes import Indexes
from facedex.indexer.search.engine_index import EngineIndex
from facedex.indexer.search.milvus import MilvusEngines
from facedex.indexer.search.segment import Rows
from facedex.indexer.store.records import IdentityDetails, ModelRecord
from facedex.indexer.store.store import Store

PEOPLE = 30
NEW_MODEL = ModelRecord("ab" * 32, "new", MODEL.dimension, "", 0.5, "")


@dataclass
class LateEngines:
    """Collections in memory that show changes late and in another order; `is_down`: nobody answers."""

    chance: random.Random = field(default_factory=lambda: random.Random(5))
    engines: dict[str, LateEngine] = field(default_factory=dict[str, LateEngine])
    is_down: bool = False

    def opened(self, collection: str, dimension: int) -> LateEngine:
        self._check()
        return self.engines.setdefault(collection, Falling(self.chance, dimension, self))

    def names(self, prefix: str) -> list[str]:
        self._check()
        return [each for each in self.engines if each.startswith(prefix)]

    def drop(self, collection: str) -> None:
        self._check()
        del self.engines[collection]

    def _check(self) -> None:
        if self.is_down:
            raise EngineUnavailable("nobody answers")


class Falling(LateEngine):
    """A late engine that may be down."""

    def __init__(self, chance: random.Random, dimension: int, engines: LateEngines) -> None:
        super().__init__(chance, dimension)
        self._engines = engines

    def _let_some_happen(self) -> None:
        self._engines._check()
        super()._let_some_happen()

    def upsert(self, rows: Rows) -> None:
        self._engines._check()
        super().upsert(rows)


@pytest.fixture(params=["late", "milvus"])
def engines(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engines]:
    if request.param == "late":
        yield LateEngines()
        return
    milvus = MilvusEngines(str(tmp_path / "lite.db"))
    yield milvus
    milvus.close()


@pytest.fixture
def late() -> LateEngines:
    return LateEngines()


def server(house: House, engines: Engines) -> Gallery:
    """The gallery as a server has it that begins now."""
    gallery = Gallery(
        house.store.gallery("staff"), store=house.store, indexes=EngineIndexes(house.store, None, engines)
    )
    gallery.catch_up()
    return gallery


def enrol(house: House, number: int) -> None:
    item = VectorItem(person_vector(Person(number)), MODEL.digest)
    house.enroller.enrol(Enrol(IdentityDetails(f"person-{number}"), (item,)))


def filled(house: House) -> None:
    for number in range(PEOPLE):
        enrol(house, number)


def delivered(gallery: Gallery) -> None:
    """All that is due has been shown by the engine once."""
    for _ in range(200):
        gallery.deliver()
        if gallery._index.deliver():
            gallery.deliver()
            return
    raise AssertionError("the engine never shows what it was sent")


def answers(gallery: Gallery, *, query: Query | None = None) -> list[list[tuple[str, float]]]:
    probes = np.stack([person_vector(Person(number)) for number in range(PEOPLE + 5)])
    found = gallery.identify(probes, query or Query(limit=5, threshold=0.2)).faces
    return [[(each.identity.external_id, each.score) for each in face.candidates] for face in found]


@pytest.mark.parametrize(
    "query", [Query(limit=5, threshold=0.2), Query(excluded_identity_ids=frozenset({"person-3", "person-4"}))]
)
def test_answers_are_those_of_the_local_index(house: House, engines: Engines, query: Query) -> None:
    filled(house)
    gallery = server(house, engines)
    house.gallery.delete_identity("person-3")
    enrol(house, PEOPLE)
    for _ in range(5):
        gallery.catch_up()
        assert answers(gallery, query=query) == answers(house.gallery, query=query)
        assert gallery.template_count == house.gallery.template_count
        gallery.deliver()


def test_a_server_that_begins_goes_on_where_the_others_left_the_engine(house: House, engines: Engines) -> None:
    filled(house)
    first = server(house, engines)
    delivered(first)
    indexes = EngineIndexes(house.store, None, engines)
    assert indexes.opened(house.store.gallery("staff")).revision == first.revision == PEOPLE
    enrol(house, PEOPLE)
    house.gallery.delete_identity("person-0")
    second = server(house, engines)
    assert second.revision == PEOPLE + 2
    assert answers(second) == answers(house.gallery)
    first.catch_up()
    assert answers(first) == answers(second)


def test_two_servers_and_the_store_are_never_of_two_minds(house: House, late: LateEngines) -> None:
    chance = random.Random(3)
    both = [server(house, late), server(house, late)]
    there: list[int] = []
    for number in range(60):
        if there and chance.random() < 0.3:
            house.gallery.delete_identity(f"person-{there.pop(chance.randrange(len(there)))}")
        else:
            enrol(house, number)
            there.append(number)
        one = chance.choice(both)
        one.catch_up()
        assert answers(one) == answers(house.gallery)
        chance.choice(both).deliver()


def test_how_far_the_engine_is_is_only_noted_when_it_shows_everything(house: House, late: LateEngines) -> None:
    gallery = server(house, late)
    filled(house)
    gallery.catch_up()
    (name,) = late.engines
    noted = 0
    for _ in range(200):
        gallery.deliver()
        noted = house.store.delivered_revision(gallery.record.id, name)
        if noted:
            break
        assert isinstance(gallery._index, EngineIndex)
        assert gallery._index._remote.standing.unseen > 0
    assert noted == PEOPLE
    assert len(late.engines[name]._rows) == PEOPLE


# What can happen to an engine


def test_a_row_that_the_engine_lost_is_found_by_the_check_and_comes_back_with_a_rebuild(
    house: House, late: LateEngines
) -> None:
    filled(house)
    gallery = server(house, late)
    delivered(gallery)
    assert check_gallery(gallery).is_consistent
    (engine,) = late.engines.values()
    engine._rows.pop(7)
    engine._rows[8] = (engine._rows[8][0], engine._rows[9][1])
    found = [(each.fault, each.template_id) for each in check_gallery(gallery).findings]
    assert {(Fault.INDEX_MISSING, 7), (Fault.INDEX_MISSING, 8)} <= set(found)
    gallery.request_rebuild()
    delivered(gallery)
    assert check_gallery(gallery).is_consistent
    assert answers(gallery) == answers(house.gallery)


def test_an_engine_that_lost_everything_is_filled_anew_by_the_next_server(house: House, late: LateEngines) -> None:
    filled(house)
    delivered(server(house, late))
    late.engines.clear()
    assert answers(server(house, late)) == answers(house.gallery)


def test_somebody_who_haunts_the_engine_is_returned_by_nobody_and_goes_with_a_rebuild(
    house: House, late: LateEngines
) -> None:
    filled(house)
    gallery = server(house, late)
    delivered(gallery)
    (engine,) = late.engines.values()
    erased = dict(engine._rows)
    house.gallery.delete_identity("person-5")
    gallery.catch_up()
    delivered(gallery)
    late.engines[next(iter(late.engines))]._rows.update(erased)  # a stale message of a server that died since
    assert answers(server(house, late)) == answers(house.gallery)
    engine._rows.update(erased)
    gallery.request_rebuild()
    delivered(gallery)
    assert len(engine._rows) == PEOPLE - 1


def test_an_engine_that_outlived_an_older_copy_of_the_database_gives_nobody_a_wrong_name(
    house: House, late: LateEngines
) -> None:
    """Numbers are given again after a restore: what the engine has under them is somebody else."""
    filled(house)
    gallery = server(house, late)
    delivered(gallery)
    (engine,) = late.engines.values()
    later = range(PEOPLE + 1, PEOPLE + 5)
    for number in later:
        engine._rows[number] = (number, np.asarray(person_vector(Person(500 + number)), np.float32))
    for number in range(PEOPLE, PEOPLE + 4):
        enrol(house, number)
    ghosts = np.stack([person_vector(Person(500 + number)) for number in later])
    for _ in range(100):
        found = gallery.identify(ghosts, Query(threshold=0.9)).faces
        assert not any(face.candidates for face in found)
        gallery.catch_up()
        assert answers(gallery) == answers(house.gallery)
        gallery.deliver()
    assert gallery._index.deliver()
    assert check_gallery(gallery).is_consistent


def test_while_the_engine_is_away_calls_say_so_and_nothing_is_lost(house: House, late: LateEngines) -> None:
    filled(house)
    gallery = server(house, late)
    delivered(gallery)
    late.is_down = True
    enrol(house, PEOPLE)
    with pytest.raises(EngineUnavailable, match="nobody answers"):
        gallery.catch_up()
    with pytest.raises(EngineUnavailable):
        answers(gallery)
    late.is_down = False
    gallery.catch_up()
    assert answers(gallery) == answers(house.gallery)


# Galleries and models that come and go


def test_a_deleted_gallery_leaves_no_collection(house: House, engines: Engines) -> None:
    filled(house)
    gallery = server(house, engines)
    delivered(gallery)
    indexes = EngineIndexes(house.store, None, engines)
    house.store.delete_gallery("staff")
    indexes.retire(gallery.record)
    assert engines.names("facedex_") == []


def test_collections_that_nobody_needs_are_dropped_and_no_others(house: House, engines: Engines) -> None:
    gallery = server(house, engines)
    filled(house)
    gallery.catch_up()
    delivered(gallery)
    (own,) = engines.names("facedex_")
    store_id = house.store.erasures.signer.store_id
    engines.opened(f"facedex_{store_id[:16]}_99_{'0' * 16}", MODEL.dimension)
    engines.opened("facedex_of_another_installation", MODEL.dimension)
    EngineIndexes(house.store, None, engines).discard_leftovers()
    assert set(engines.names("facedex_")) == {own, "facedex_of_another_installation"}
    assert answers(gallery) == answers(house.gallery)


def test_a_gallery_that_changes_its_model_does_so_in_the_engine_too(house: House, engines: Engines) -> None:
    filled(house)
    galleries = [
        server(house, engines),
        Gallery(house.store.gallery("staff"), store=house.store, indexes=Indexes(house.store)),
    ]
    record = house.store.gallery("staff")
    house.store.successions.begin(record, NEW_MODEL)
    vectors = {number: person_vector(Person(100 + number)) for number in range(1, PEOPLE + 1)}
    house.store.successions.add(record, vectors, model_digest=NEW_MODEL.digest)
    house.store.successions.put_in_force(record, digest="", certificate=None)
    for each in galleries:
        each.catch_up()
        each.deliver()
    probes = np.stack([person_vector(Person(100 + number)) for number in range(1, PEOPLE + 1)])
    found = [
        [face.candidates[0].identity.external_id for face in each.identify(probes, Query(threshold=0.9)).faces]
        for each in galleries
    ]
    assert found[0] == found[1] == [f"person-{number}" for number in range(PEOPLE)]
    house.store.successions.finish(house.store.gallery("staff"), policy=lambda policy, _: policy)
    for each in galleries:
        each.catch_up()
        each.deliver()
    assert answers(galleries[0]) == answers(galleries[1])
    EngineIndexes(house.store, None, engines).discard_leftovers()
    assert len(engines.names("facedex_")) == 1


def change_model(gallery: Gallery, model: ModelRecord, store: Store) -> None:
    numbers = gallery.templates().template_ids.tolist()
    store.successions.begin(gallery.record, model)
    vectors = {number: person_vector(Person(number)) for number in numbers}
    store.successions.add(gallery.record, vectors, model_digest=model.digest)
    store.successions.put_in_force(gallery.record, digest="", certificate=None)
    store.successions.finish(gallery.record, policy=lambda policy, _: policy)
    gallery.catch_up()


def test_a_gallery_that_changed_its_model_there_and_back_is_filled_anew(house: House, late: LateEngines) -> None:
    filled(house)
    first = server(house, late)
    delivered(first)
    change_model(first, NEW_MODEL, house.store)
    delivered(first)
    EngineIndexes(house.store, None, late).discard_leftovers()
    change_model(house.open_gallery(), MODEL, house.store)  # by a command, which delivers nothing
    again = server(house, late)
    assert again.template_count == PEOPLE
    probes = np.stack([person_vector(Person(number)) for number in range(1, PEOPLE + 1)])
    assert all(face.candidates for face in again.identify(probes, Query(threshold=0.9)).faces)
