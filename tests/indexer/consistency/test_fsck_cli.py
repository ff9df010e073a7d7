"""`facedex-index fsck`: what it prints, writes, mends, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.indexer.doubles import MODEL, Person, person_vector
from typer.testing import CliRunner

from facedex.indexer.cli import app
from facedex.indexer.policy import GalleryPolicy, policy_to_json
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.records import IdentityDetails, NewEnrolment, NewTemplate
from facedex.indexer.store.store import Store

DIFFERENCES = 3


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Two galleries, with one person each."""
    store = Store.open(sqlite_url(tmp_path / "facedex.db"))
    for number, name in enumerate(("staff", "visitors")):
        gallery = store.create_gallery(name, model=MODEL, policy=policy_to_json(GalleryPolicy()))
        template = NewTemplate(person_vector(Person(number)), f"{number:064x}")
        store.enrol(gallery, NewEnrolment(IdentityDetails("ada"), MODEL.digest, (template,)))
    yield store
    store.close()


def fsck(data: Path, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["--data", str(data), "fsck", *options], env={"COLUMNS": "200"})
    return done.exit_code, done.output


def alter(store: Store) -> None:
    with store._engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE template SET vector = (SELECT vector FROM template WHERE id = 2) WHERE id = 1"
        )


def test_a_healthy_data_folder_ends_with_0(store: Store, tmp_path: Path) -> None:
    code, output = fsck(tmp_path)
    assert (code, store.gallery("staff").revision) == (0, 1)
    assert "staff" in output
    assert "visitors" in output


def test_a_difference_is_named_and_ends_with_3(store: Store, tmp_path: Path) -> None:
    alter(store)
    code, output = fsck(tmp_path)
    assert code == DIFFERENCES
    assert "row-altered" in output
    assert "--accept-store" in output
    assert fsck(tmp_path, "--gallery", "visitors")[0] == 0


def test_a_repair_leaves_an_altered_database_alone_until_it_is_accepted(store: Store, tmp_path: Path) -> None:
    alter(store)
    assert fsck(tmp_path, "--repair")[0] == DIFFERENCES
    assert fsck(tmp_path, "--repair", "--accept-store")[0] == 0
    assert fsck(tmp_path)[0] == 0
    assert store.gallery("staff").revision > 1


def test_files_and_rows_of_nobody_are_mended(store: Store, tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "gallery-99.snapshot").write_bytes(b"faces")
    with store._engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        connection.exec_driver_sql("DELETE FROM gallery WHERE name = 'visitors'")
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")
    code, output = fsck(tmp_path)
    assert code == DIFFERENCES
    assert "orphan-file" in output
    assert "stray-rows" in output
    assert fsck(tmp_path, "--repair", "--accept-store")[0] == 0
    assert list((tmp_path / "index").iterdir()) == []


def test_the_findings_are_written_for_programs(store: Store, tmp_path: Path) -> None:
    alter(store)
    fsck(tmp_path, "--json", str(tmp_path / "out" / "found.json"))
    document = json.loads((tmp_path / "out" / "found.json").read_text())
    (first, second) = document["galleries"]
    assert not document["is_consistent"]
    # The index is made from the altered row here; a server that had it before would find it another one.
    assert (first["gallery"], first["counts"]) == ("staff", {"row-altered": 1, "index-digest": 1})
    assert second["is_consistent"]
    assert (first["findings"][0]["template"], first["findings"][0]["fault"]) == (1, "row-altered")


def test_accepting_without_repairing_is_wrong_usage(store: Store, tmp_path: Path) -> None:
    assert fsck(tmp_path, "--accept-store")[0] == 2
    assert store.galleries()


def test_a_gallery_or_database_that_there_is_not_is_one_line(store: Store, tmp_path: Path) -> None:
    assert fsck(tmp_path, "--gallery", "nobody")[0] == 1
    assert store.galleries()
    assert fsck(tmp_path / "nowhere")[0] == 1
