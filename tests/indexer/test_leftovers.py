"""What a killed process leaves in the data folder holds vectors: it is deleted by whoever starts after it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.indexer.conftest import House
from tests.indexer.doubles import MODEL, Person, person_vector

from facedex.indexer.enrolment import Enrol, VectorItem
from facedex.indexer.gallery import Gallery
from facedex.indexer.indexes import Indexes
from facedex.indexer.policy import GalleryPolicy, policy_to_json
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.records import IdentityDetails


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(sqlite_url(tmp_path / "facedex.db"))


@pytest.fixture
def indexes(house: House, tmp_path: Path) -> Indexes:
    """Those of a process that has just started; a snapshot of the one gallery is there."""
    indexes = Indexes(house.store, tmp_path / "index", least_rows=1)
    house.enroller.enrol(Enrol(IdentityDetails("ada"), (VectorItem(person_vector(Person(1)), MODEL.digest),)))
    gallery = Gallery(house.store.gallery("staff"), store=house.store, indexes=indexes)
    gallery.catch_up()
    gallery.save_snapshot()
    return indexes


def names(tmp_path: Path) -> list[str]:
    return sorted(each.name for each in (tmp_path / "index").iterdir())


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_half_a_snapshot_stays_only_while_its_writer_lives(indexes: Indexes, tmp_path: Path) -> None:
    writers = {"dead": dead_process(), "before": os.getpid(), "alive": os.getppid()}
    for number in writers.values():
        (tmp_path / "index" / f"gallery-1.{number}.partial").write_bytes(b"vectors")
    indexes.discard_leftovers()
    assert names(tmp_path) == sorted([f"gallery-1.{writers['alive']}.partial", "gallery-1.snapshot"])


def test_the_snapshot_of_a_gallery_goes_although_its_deleter_died_before_it_could_delete_it(
    house: House, indexes: Indexes, tmp_path: Path
) -> None:
    house.store.create_gallery("guests", model=MODEL, policy=policy_to_json(GalleryPolicy()))
    house.store.delete_gallery("staff")  # the process dies here
    indexes.discard_leftovers()
    assert names(tmp_path) == []


def test_without_a_folder_or_before_the_first_snapshot_nothing_is_left(house: House, tmp_path: Path) -> None:
    Indexes(house.store).discard_leftovers()
    Indexes(house.store, tmp_path / "index").discard_leftovers()
    assert not (tmp_path / "index").exists()
