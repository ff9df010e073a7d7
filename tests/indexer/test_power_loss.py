"""Power loss, disks that lie, full disks and clocks that go back: what was acknowledged stays, what was erased stays away.

A killed process loses nothing that it wrote; lost power loses what was not synced. SQLite syncs its write-ahead log at each
commit (synchronous=FULL), so after a commit the log up to there is on disk, and anything may have become of what follows.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from tests.indexer.conftest import House
from tests.indexer.doubles import MODEL, Person, person_vector
from tests.indexer.search.oracle import DIMENSION, unit_vectors

from facedex.indexer.enrolment import Enrol, VectorItem
from facedex.indexer.errors import IdentityNotFound, StoreUnavailable
from facedex.indexer.failpoints import Step
from facedex.indexer.gallery import Gallery
from facedex.indexer.identification import Query
from facedex.indexer.indexes import Indexes
from facedex.indexer.policy import GalleryPolicy
from facedex.indexer.search.fast import FastIndex
from facedex.indexer.search.snapshot import Snapshot, SnapshotKey, write_snapshot
from facedex.indexer.store.engine import open_engine, sqlite_url
from facedex.indexer.store.records import IdentityDetails
from facedex.indexer.store.store import Store

LOST_BYTES = 400


def enrol(house: House, number: int) -> None:
    item = VectorItem(person_vector(Person(number)), MODEL.digest)
    house.enroller.enrol(Enrol(IdentityDetails(f"person-{number}"), (item,)))


def found(gallery: Gallery, number: int) -> bool:
    answer = gallery.identify(person_vector(Person(number))[None], Query(threshold=0.9)).faces[0]
    return [each.identity.external_id for each in answer.candidates] == [f"person-{number}"]


@pytest.fixture
def sqlite_house(tmp_path: Path) -> Iterator[House]:
    house = House(sqlite_url(tmp_path / "facedex.db"))
    yield house
    house.store.close()


# SQLite: what follows the last synced commit may be missing, torn or garbage


def wal(folder: Path) -> Path:
    return folder / "facedex.db-wal"


def after_power_loss(folder: Path, disk: Path, *, synced_bytes: int, tail: bytes) -> Gallery:
    """Opens a copy of the database whose log is as it was synced, with something after it."""
    shutil.rmtree(disk, ignore_errors=True)
    disk.mkdir()
    shutil.copy(folder / "facedex.db", disk)
    wal(disk).write_bytes(wal(folder).read_bytes()[:synced_bytes] + tail)
    store = Store.open(sqlite_url(disk / "facedex.db"))
    gallery = Gallery(store.gallery("staff"), store=store, indexes=Indexes(store))
    gallery.catch_up()
    return gallery


def test_an_acknowledged_change_survives_whatever_becomes_of_the_one_after_it(
    sqlite_house: House, tmp_path: Path
) -> None:
    for number in range(5):
        enrol(sqlite_house, number)
    sqlite_house.gallery.delete_identity("person-3")
    synced = wal(tmp_path).stat().st_size
    enrol(sqlite_house, 5)
    tail = wal(tmp_path).read_bytes()[synced:]
    chance = random.Random(3)
    cuts = [0, 1, *(chance.randrange(len(tail)) for _ in range(12)), len(tail) - 1, len(tail)]
    for cut in cuts:
        for rest in (b"", bytes(len(tail) - cut), chance.randbytes(len(tail) - cut)):
            gallery = after_power_loss(tmp_path, tmp_path / "disk", synced_bytes=synced, tail=tail[:cut] + rest)
            assert [found(gallery, number) for number in range(5)] == [True, True, True, False, True], cut
            assert gallery.template_count == 4 + found(gallery, 5), cut
            assert found(gallery, 5) == (gallery.revision == 7), cut
            with pytest.raises(IdentityNotFound):
                gallery.store.identity(gallery.record, "person-3")
            gallery.store.close()


def test_a_log_that_lost_what_was_acknowledged_is_noticed(sqlite_house: House, tmp_path: Path) -> None:
    """The check above fails where a commit was not synced."""
    enrol(sqlite_house, 0)
    before = wal(tmp_path).stat().st_size
    enrol(sqlite_house, 1)
    gallery = after_power_loss(tmp_path, tmp_path / "disk", synced_bytes=before, tail=b"")
    assert [found(gallery, 0), found(gallery, 1)] == [True, False]
    gallery.store.close()


def durabilities(engine: Engine, *, connections: int = 25) -> set[tuple[str, int]]:
    """How changes are kept, over as many connections as are asked for at once."""
    with ExitStack() as stack:
        opened = [stack.enter_context(engine.connect()) for _ in range(connections)]
        return {
            (
                str(each.exec_driver_sql("PRAGMA journal_mode").scalar()),
                int(each.exec_driver_sql("PRAGMA synchronous").scalar_one()),
            )
            for each in opened
        }


FULLY_SYNCED = ("wal", 2)


def test_every_connection_syncs_every_commit(sqlite_house: House) -> None:
    """More connections than the pool keeps, before and after it was emptied."""
    engine = sqlite_house.store._engine
    assert durabilities(engine) == {FULLY_SYNCED}
    engine.dispose()
    assert durabilities(engine) == {FULLY_SYNCED}


def test_a_connection_that_does_not_sync_is_noticed(tmp_path: Path) -> None:
    engine = open_engine(sqlite_url(tmp_path / "facedex.db"))
    event.listen(engine, "connect", _sync_less)
    assert durabilities(engine) != {FULLY_SYNCED}
    engine.dispose()


def _sync_less(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


# Snapshots: our own writer syncs the file before it gets its name, and the folder after


class Disk:
    """Knows what would be left if the power went now: of a file, what it held when it was last synced."""

    def __init__(self) -> None:
        self.files: dict[int, bytes] = {}
        self.names: set[str] = set()
        self._sync = os.fsync

    def sync(self, descriptor: int) -> None:
        """What `os.fsync` does, and notes it."""
        self._sync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        if path.is_dir():
            self.names = {each.name for each in path.iterdir()}
        else:
            self.files[path.stat().st_ino] = path.read_bytes()

    def has(self, path: Path) -> bool:
        """Whether all of the file would be left."""
        return self.files.get(path.stat().st_ino) == path.read_bytes()


def small_snapshot() -> Snapshot:
    index = FastIndex(DIMENSION)
    index.add([1, 2, 3], [1, 1, 2], unit_vectors(3, seed=1))
    return Snapshot(
        SnapshotKey(1, "ab" * 32, DIMENSION, index.codebook_digest), 3, "2026-01-01", index.digest, index.state()
    )


def left_by_power_loss(folder: Path, disk: Disk) -> dict[Step, bool]:
    """Writes a snapshot; for two moments, whether all of it would be left."""
    left: dict[Step, bool] = {}

    def reached(step: Step) -> None:
        if step is Step.SNAPSHOT_WRITTEN:
            left[step] = all(disk.has(each) for each in folder.glob("*.partial"))

    path = folder / "gallery-1.snapshot"
    write_snapshot(path, small_snapshot(), secret=bytes(32), reached=reached)
    left[Step.SNAPSHOT_RENAMED] = disk.names == {path.name} and disk.has(path)
    return left


def test_a_snapshot_is_on_disk_before_it_has_its_name_and_the_name_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk.sync)
    assert left_by_power_loss(tmp_path, disk) == {Step.SNAPSHOT_WRITTEN: True, Step.SNAPSHOT_RENAMED: True}


def test_a_writer_whose_syncs_are_lost_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", _lose_sync)
    assert left_by_power_loss(tmp_path, Disk()) == {Step.SNAPSHOT_WRITTEN: False, Step.SNAPSHOT_RENAMED: False}


def _lose_sync(_descriptor: int) -> None:
    return


def test_after_a_disk_lost_parts_of_a_snapshot_that_it_said_were_synced_the_store_answers(
    sqlite_house: House, tmp_path: Path
) -> None:
    for number in range(10):
        enrol(sqlite_house, number)
    indexes = Indexes(sqlite_house.store, tmp_path / "index", least_rows=5)
    gallery = opened(sqlite_house, indexes)
    gallery.save_snapshot()
    sqlite_house.gallery.delete_identity("person-3")
    (path,) = (tmp_path / "index").iterdir()
    content = path.read_bytes()
    chance = random.Random(4)
    for _ in range(10):
        start = chance.randrange(len(content) - 1)
        end = min(len(content), start + chance.randrange(1, LOST_BYTES))
        path.write_bytes(content[:start] + bytes(end - start) + content[end:])
        # Where what is lost was zero anyway, nothing is lost.
        is_whole = path.read_bytes() == content
        assert (indexes.opened(gallery.record).revision == 10) == is_whole
        gallery = opened(sqlite_house, indexes)
        assert [found(gallery, number) for number in (2, 3, 4)] == [True, False, True]


def opened(house: House, indexes: Indexes) -> Gallery:
    gallery = Gallery(house.store.gallery("staff"), store=house.store, indexes=indexes)
    gallery.catch_up()
    return gallery


# Full disks


def test_on_a_full_database_a_change_is_refused_as_a_whole_and_the_next_succeeds(sqlite_house: House) -> None:
    enrol(sqlite_house, 0)
    engine = sqlite_house.store._engine
    engine.dispose()
    event.listen(engine, "connect", _fill)
    number = _enrol_until_full(sqlite_house)
    assert found(sqlite_house.gallery, 0)
    assert not found(sqlite_house.gallery, number)
    assert sorted(sqlite_house.store.identity_ids(sqlite_house.gallery.record, ())) == list(range(1, number + 1))
    event.remove(engine, "connect", _fill)
    engine.dispose()
    enrol(sqlite_house, number)
    assert found(sqlite_house.gallery, number)


def _fill(connection: Any, _record: object) -> None:
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages + 4}")


def _enrol_until_full(house: House) -> int:
    for number in range(1, 1_000):
        try:
            enrol(house, number)
        except StoreUnavailable as error:
            assert "full" in str(error)  # noqa: PT017  (what it says is the point)
            return number
    raise AssertionError("the database was not full")


def test_a_snapshot_that_cannot_be_written_is_tried_again_and_changes_nothing(
    sqlite_house: House, tmp_path: Path
) -> None:
    for number in range(10):
        enrol(sqlite_house, number)
    folder = tmp_path / "index"
    folder.touch()  # a file where the folder should be: nothing can be written there, whoever the user is
    gallery = opened(sqlite_house, Indexes(sqlite_house.store, folder, least_rows=5))
    with pytest.raises(OSError, match="index"):
        gallery.save_snapshot()
    assert gallery.needs_saving(least_changes=1)
    assert found(gallery, 7)
    folder.unlink()
    gallery.save_snapshot()
    assert not gallery.needs_saving(least_changes=1)


# Clocks that go back


def test_changes_keep_their_order_when_the_clock_goes_back(house: House) -> None:
    for number in range(3):
        enrol(house, number)
        house.clock.advance(days=-1)
    house.gallery.delete_identity("person-1")
    house.clock.advance(days=-400)
    enrol(house, 3)
    gallery = house.open_gallery()
    assert (gallery.revision, house.gallery.revision) == (5, 5)
    assert [found(gallery, number) for number in range(4)] == [True, False, True, True]


def test_whoever_was_erased_after_their_time_stays_away_when_the_clock_goes_back(house: House) -> None:
    house.set_policy(GalleryPolicy(retention_seconds=3600))
    enrol(house, 1)
    house.clock.advance(hours=2)
    assert not found(house.gallery, 1)
    (expired,) = house.store.expired_identities()
    house.gallery.delete_identity(expired[1])
    house.clock.advance(days=-30)
    assert not found(house.gallery, 1)
    assert not found(house.open_gallery(), 1)


def test_nobody_is_erased_before_their_time_when_the_clock_goes_back(house: House) -> None:
    house.set_policy(GalleryPolicy(retention_seconds=3600))
    enrol(house, 1)
    house.clock.advance(days=-30)
    assert house.store.expired_identities() == []
    assert found(house.gallery, 1)


def test_a_snapshot_of_before_the_clock_went_back_is_still_that_of_this_history(house: House, tmp_path: Path) -> None:
    for number in range(10):
        enrol(house, number)
    indexes = Indexes(house.store, tmp_path / "index", least_rows=5)
    opened(house, indexes).save_snapshot()
    house.clock.advance(days=-2)
    house.gallery.delete_identity("person-3")
    assert indexes.opened(house.gallery.record).revision == 10
    assert [found(opened(house, indexes), number) for number in (2, 3)] == [True, False]
