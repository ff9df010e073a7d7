"""Start from a snapshot and the log above it; a snapshot that cannot be trusted changes nothing but the time it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from tests.indexer.conftest import House
from tests.indexer.doubles import MODEL, Person, person_vector

from facedex.indexer.enrolment import Enrol, VectorItem
from facedex.indexer.gallery import Gallery
from facedex.indexer.identification import Query
from facedex.indexer.indexes import Indexes
from facedex.indexer.store.records import IdentityDetails


def enrol(house: House, number: int) -> None:
    item = VectorItem(person_vector(Person(number)), MODEL.digest)
    house.enroller.enrol(Enrol(IdentityDetails(f"person-{number}"), (item,)))


def found(gallery: Gallery, number: int) -> list[str]:
    answer = gallery.identify(person_vector(Person(number))[None], Query(threshold=0.9)).faces[0]
    return [each.identity.external_id for each in answer.candidates]


@pytest.fixture
def indexes(house: House, tmp_path: Path) -> Indexes:
    return Indexes(house.store, tmp_path / "index", least_rows=5)


def opened(house: House, indexes: Indexes) -> Gallery:
    return Gallery(house.store.gallery("staff"), store=house.store, indexes=indexes)


def saved(house: House, indexes: Indexes) -> Path:
    gallery = opened(house, indexes)
    gallery.catch_up()
    gallery.save_snapshot()
    return next((each for each in indexes._folder.iterdir()), Path()) if indexes._folder else Path()


def test_a_start_reads_the_snapshot_and_replays_what_changed_since(house: House, indexes: Indexes) -> None:
    for number in range(10):
        enrol(house, number)
    saved(house, indexes)
    enrol(house, 10)
    house.gallery.delete_identity("person-3")
    gallery = opened(house, indexes)
    assert (gallery.revision, gallery.template_count) == (10, 10)
    gallery.catch_up()
    assert (gallery.revision, gallery.template_count) == (12, 10)
    assert [found(gallery, number) for number in (2, 3, 10)] == [["person-2"], [], ["person-10"]]


def test_a_small_gallery_needs_no_file(house: House, indexes: Indexes, tmp_path: Path) -> None:
    enrol(house, 1)
    gallery = opened(house, indexes)
    gallery.catch_up()
    gallery.save_snapshot()
    assert not (tmp_path / "index").exists()


def test_a_damaged_snapshot_is_dropped_with_a_log_line_and_the_index_is_built_from_the_store(
    house: House, indexes: Indexes, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10):
        enrol(house, number)
    path = saved(house, indexes)
    path.write_bytes(path.read_bytes()[:-50])
    gallery = opened(house, indexes)
    assert "dropped" in caplog.text
    assert not path.exists()
    assert gallery.revision == 0
    gallery.catch_up()
    assert found(gallery, 7) == ["person-7"]


def test_a_snapshot_of_another_history_is_dropped(house: House, indexes: Indexes) -> None:
    for number in range(10):
        enrol(house, number)
    path = saved(house, indexes)
    with house.store._engine.begin() as connection:
        # As after a restore: the same number was given to another change.
        connection.execute(text("UPDATE change SET changed_at = '2001-01-01 00:00:00' WHERE seq = 10"))
    assert opened(house, indexes).revision == 0
    assert not path.exists()


def test_a_snapshot_that_could_not_be_written_is_tried_again(house: House, indexes: Indexes, tmp_path: Path) -> None:
    for number in range(10):
        enrol(house, number)
    saved(house, indexes)
    gallery = opened(house, indexes)
    house.gallery.delete_identity("person-4")
    gallery.catch_up()
    (tmp_path / "index").rename(tmp_path / "away")
    (tmp_path / "index").write_bytes(b"in the way of the folder")
    with pytest.raises(OSError, match="index"):
        gallery.save_snapshot()
    assert gallery.needs_saving(least_changes=1_000)
    (tmp_path / "index").unlink()
    gallery.save_snapshot()
    assert not gallery.needs_saving(least_changes=1_000)
    assert opened(house, indexes).revision == gallery.revision


def test_an_erased_person_does_not_stay_in_the_snapshot(house: House, indexes: Indexes) -> None:
    for number in range(10):
        enrol(house, number)
    path = saved(house, indexes)
    vector = house.store.vectors(house.gallery.record, "person-4")[0].astype("<f2").tobytes()
    assert vector in path.read_bytes()
    house.gallery.delete_identity("person-4")
    gallery = opened(house, indexes)
    assert not gallery.needs_saving(least_changes=1_000)
    gallery.catch_up()
    assert gallery.needs_saving(least_changes=1_000)
    gallery.save_snapshot()
    assert vector not in path.read_bytes()
    assert not gallery.needs_saving(least_changes=1_000)
