"""Data keys made ahead: each is given once, none is older than it may be, and hurry alone makes many."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from facedex.indexer.store.key_store import DataKey, KeyStore
from facedex.indexer.store.keys_ahead import LIFE_SECONDS, MOST, KeysAhead
from facedex.indexer.store.transform_rows import KeyPlace

STAFF, GUESTS = KeyPlace("a" * 32, 1), KeyPlace("a" * 32, 2)


@dataclass(slots=True)
class Watch:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class CountingKeys:
    """A key store that only counts."""

    made: list[tuple[KeyPlace, int]] = field(default_factory=list[tuple[KeyPlace, int]])
    born: dict[str, float] = field(default_factory=dict[str, float])
    watch: Watch = field(default_factory=Watch)

    def create_all(self, place: KeyPlace, *, count: int) -> list[DataKey]:
        self.made.append((place, count))
        keys = [DataKey(f"{len(self.born) + number}", b"k") for number in range(count)]
        self.born.update({each.key_id: self.watch.now for each in keys})
        return keys


@pytest.fixture
def keys() -> CountingKeys:
    return CountingKeys()


@pytest.fixture
def ahead(keys: CountingKeys) -> KeysAhead:
    return KeysAhead(keys, clock=keys.watch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_whoever_enrols_now_and_then_gets_keys_that_are_made_for_him(ahead: KeysAhead, keys: CountingKeys) -> None:
    for _ in range(5):
        ahead.take(STAFF, 1)
        keys.watch.now += 1
    assert keys.made == [(STAFF, 1)] * 5


def test_in_a_hurry_they_are_made_in_groups_up_to_a_most(ahead: KeysAhead, keys: CountingKeys) -> None:
    taken = [ahead.take(STAFF, 1)[0].key_id for _ in range(1_000)]
    assert len(set(taken)) == 1_000
    assert [count for _, count in keys.made] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 256, 256]
    assert max(count for _, count in keys.made) == MOST


def test_where_some_grew_too_old_half_as_many_are_made_and_after_a_rest_one(
    ahead: KeysAhead, keys: CountingKeys
) -> None:
    for _ in range(16):
        ahead.take(STAFF, 1)
    for rest in (1.5, 1.5, 50):
        keys.watch.now += rest * LIFE_SECONDS
        ahead.take(STAFF, 1)
    assert [count for _, count in keys.made] == [1, 2, 4, 8, 16, 8, 4, 1]


def test_no_key_is_given_that_was_made_too_long_ago(ahead: KeysAhead, keys: CountingKeys) -> None:
    for number in range(400):
        keys.watch.now += 0.001 + 0.05 * (number % 7 == 0)
        (key,) = ahead.take(STAFF, 1)
        assert keys.watch.now - keys.born[key.key_id] < LIFE_SECONDS
    assert len(keys.born) > 400  # else none was ever too old


def test_each_gallery_has_its_own_since_they_may_have_transforms(ahead: KeysAhead, keys: CountingKeys) -> None:
    ahead.take(STAFF, 1)
    ahead.take(STAFF, 1)
    ahead.take(GUESTS, 1)
    assert keys.made == [(STAFF, 1), (STAFF, 2), (GUESTS, 1)]


def test_a_group_gets_as_many_as_it_needs_and_takes_what_is_left_first(ahead: KeysAhead, keys: CountingKeys) -> None:
    assert len(ahead.take(STAFF, 5)) == 5
    assert len(ahead.take(STAFF, 3)) == 3
    assert len(ahead.take(STAFF, 100)) == 100
    assert keys.made == [(STAFF, 5), (STAFF, 10), (STAFF, 93)]


def test_they_are_on_disk_before_they_are_given(tmp_path: object) -> None:
    store = KeyStore.open(f"sqlite+pysqlite:///{tmp_path}/keys.db")
    ahead = KeysAhead(store)
    given = [ahead.take(STAFF, 1)[0] for _ in range(10)]
    assert store.keys(each.key_id for each in given) == {each.key_id: each for each in given}
    store.close()
