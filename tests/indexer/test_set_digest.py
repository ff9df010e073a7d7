"""The digest of a set of templates: in any order, with a key, and the same for store, index and an upgraded database."""

from __future__ import annotations

from alembic import command
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from tests.indexer.conftest import House
from tests.indexer.doubles import MODEL, Person, person_vector

from facedex.indexer.enrolment import Enrol, VectorItem
from facedex.indexer.set_digest import EMPTY, TemplateDigester
from facedex.indexer.store.migrate import _config
from facedex.indexer.store.records import IdentityDetails, Standing
from facedex.indexer.store.store import Store

KEY = bytes(range(32))
entries = st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.binary(min_size=8, max_size=8))


def digest_of(*members: tuple[int, int, bytes], key: bytes = KEY, model: str = "ab" * 32) -> object:
    digester = TemplateDigester(key, model_digest=model)
    return EMPTY.plus(digester.of(*each) for each in members)


@given(st.lists(entries, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_a_set_does_not_matter(members: list[tuple[int, int, bytes]], chance: object) -> None:
    shuffled = list(members)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert digest_of(*members) == digest_of(*shuffled)


@given(st.lists(entries, max_size=4), entries)
def test_who_came_and_went_leaves_no_trace(
    members: list[tuple[int, int, bytes]], guest: tuple[int, int, bytes]
) -> None:
    digester = TemplateDigester(KEY, model_digest="ab" * 32)
    digest = EMPTY.plus(digester.of(*each) for each in members)
    assert digest.plus([digester.of(*guest)]).minus([digester.of(*guest)]) == digest


def test_everything_that_a_search_depends_on_counts() -> None:
    one = (1, 2, b"vector")
    others = [
        digest_of((2, 2, b"vector")),
        digest_of((1, 3, b"vector")),
        digest_of((1, 2, b"Vector")),
        digest_of(one, key=bytes(32)),
        digest_of(one, model="cd" * 32),
        digest_of(one, one),
        digest_of(),
    ]
    assert digest_of(one) not in others
    assert len(set(others)) == len(others)


def enrol(house: House, number: int) -> int:
    item = VectorItem(person_vector(Person(number)), MODEL.digest)
    return house.enroller.enrol(Enrol(IdentityDetails(f"person-{number}"), (item,))).results[0].template_id


def standing(house: House) -> Standing:
    with house.store.moment() as moment:
        return moment.standing(house.gallery.record)


def test_store_and_index_have_one_digest_at_each_revision(house: House) -> None:
    seen = {EMPTY}
    first = enrol(house, 1)
    for change in (lambda: enrol(house, 2), lambda: house.gallery.delete_template(first), lambda: enrol(house, 3)):
        change()
        assert standing(house) == Standing(house.gallery.revision, house.gallery._index.digest)
        seen.add(standing(house).digest)
    house.gallery.delete_identity("person-2")
    house.gallery.delete_identity("person-3")
    assert standing(house).digest == house.gallery._index.digest == EMPTY
    assert len(seen) == 4


def test_a_database_of_an_older_version_gets_its_digests(house: House) -> None:
    for number in range(5):
        enrol(house, number)
    with house.store._engine.begin() as connection:
        command.downgrade(_config(connection), "0002")
        connection.execute(text("DELETE FROM secret WHERE name = 'consistency'"))
    house.store.close()
    house.store = Store.open(house.url, clock=house.clock)
    gallery = house.open_gallery()
    with house.store.moment() as moment:
        assert moment.standing(gallery.record).digest == gallery._index.digest != EMPTY
