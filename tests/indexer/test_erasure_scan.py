"""After the horizon of an erasure no byte of the person is left in the data folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from tests.indexer.doubles import MODEL
from tests.indexer.erasure_scan import Traces
from tests.indexer.erasure_site import HORIZON, Erase, ErasureSite, faces_of, made_template

from facedex.indexer.gallery import Gallery
from facedex.indexer.store import erasures, purging, remembered

ADA = "ada-4711-lovelace"
SUCCESSOR = replace(MODEL, digest="ba" * 32, name="successor")
CROWD = 12


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ErasureSite]:
    site = ErasureSite(tmp_path / "data")
    yield site
    site.close()


def fill(site: ErasureSite) -> Traces:
    """Ada among others, one of whom looks like her; everything on disk: database, log, snapshot, answers."""
    for number in range(CROWD):
        site.enrol(f"person-{number:05}")
    site.enrol(ADA, expires=timedelta(minutes=5))
    site.enrol("somebody-like-ada", others=ADA)
    site.settle()
    traces = site.traces(ADA)
    present = {each.partition(": ")[0] for each in traces.found_in(site.data)}
    assert {"index/gallery-1.snapshot", "facedex.db-wal"} <= present
    return traces


def erase_identity(site: ErasureSite, name: str) -> None:
    site.gallery.delete_identity(name)


def let_expire(site: ErasureSite, name: str) -> None:
    site.clock.advance(minutes=6)
    assert len(site.galleries.erase_expired()) == 1
    assert name not in {each.external_id for each in site.store.identities(site.gallery.record)}


def enrol_anew_after_expiry(site: ErasureSite, name: str) -> None:
    site.clock.advance(minutes=6)
    site.enrol(name, faces=0)
    site.gallery.delete_identity(name)


def delete_gallery(site: ErasureSite, _name: str) -> None:
    site.galleries.delete("staff")


WAYS: dict[str, Erase] = {
    "identity": erase_identity,
    "expiry": let_expire,
    "enrolled anew": enrol_anew_after_expiry,
    "gallery": delete_gallery,
}


@pytest.mark.parametrize("erase", WAYS.values(), ids=WAYS.keys())
def test_after_the_horizon_no_file_holds_anything_of_somebody_erased(site: ErasureSite, erase: Erase) -> None:
    traces = fill(site)
    erase(site, ADA)
    site.pass_horizon()
    assert traces.found_in(site.data) == set()
    assert all(each.purged_at is not None for each in site.store.erasures.page())


def test_after_the_horizon_no_file_holds_a_vector_by_the_model_to_which_the_gallery_changes(site: ErasureSite) -> None:
    traces = fill(site)
    record = site.gallery.record
    site.store.successions.begin(record, SUCCESSOR)
    templates = {
        face.id: made_template(f"{person.external_id} by {SUCCESSOR.name}", number).vector
        for person in site.store.identities(record)
        for number, face in enumerate(person.templates)
    }
    site.store.successions.add(record, templates, model_digest=SUCCESSOR.digest)
    site.store.successions.put_in_force(record, digest="", certificate=None)
    site.settle()
    for number, face in enumerate(site.store.identity(record, ADA).templates):
        traces.add_vector(f"new vector {number}", templates[face.id])
    assert any("new vector" in each for each in traces.found_in(site.data))
    site.gallery.delete_identity(ADA)
    site.pass_horizon()
    assert traces.found_in(site.data) == set()


def test_after_the_horizon_no_file_holds_anything_of_an_erased_template(site: ErasureSite) -> None:
    fill(site)
    record = site.store.identity(site.gallery.record, ADA)
    site.gallery.delete_template(record.templates[0].id)
    site.pass_horizon()
    assert faces_of(ADA, range(1)).found_in(site.data) == set()
    assert faces_of(ADA, range(1, 2)).found_in(site.data) != set()


def test_what_is_erased_leaves_the_log_within_a_minute(site: ErasureSite) -> None:
    """The rest of the horizon is for what only a database written anew is rid of."""
    traces = fill(site)
    erase_identity(site, ADA)
    site.settle()
    assert not any("-wal" in each for each in traces.found_in(site.data))


def test_what_a_dead_process_began_the_next_one_ends(site: ErasureSite) -> None:
    traces = fill(site)
    erase_identity(site, ADA)
    dead = site.store.erasures
    site = site.reopened()
    assert [each.tombstone for each in site.store.erasures.page()] == dead_tombstones(dead)
    site.pass_horizon()
    assert traces.found_in(site.data) == set()


def dead_tombstones(dead: erasures.Erasures) -> list[object]:
    return [each.tombstone for each in dead.page()]


def test_a_reader_that_is_in_the_way_postpones_the_end_and_it_is_not_called_done(site: ErasureSite) -> None:
    traces = fill(site)
    with site.store._engine.connect() as reader:
        reader.exec_driver_sql("SELECT count(*) FROM template").scalar()
        erase_identity(site, ADA)
        site.pass_horizon()
        assert site.store.erasures.page()[0].purged_at is None
        assert traces.found_in(site.data) != set()
    site.settle()
    assert site.store.erasures.page()[0].purged_at is not None
    assert traces.found_in(site.data) == set()


def test_the_database_is_written_anew_at_most_twice_in_a_horizon(site: ErasureSite, monkeypatch: Any) -> None:
    written: list[Engine] = []

    def counted(engine: Engine) -> None:
        written.append(engine)
        purging.vacuum(engine)

    monkeypatch.setattr(erasures, "vacuum", counted)
    fill(site)
    for number in range(12):
        site.gallery.delete_identity(f"person-{number:05}")
        site.settle()
        site.clock.advance(seconds=HORIZON.total_seconds() / 12)
    assert 1 <= len(written) <= 2


# The scan finds what is left where a part of the work is left out


def leave_secure_delete_out(site: ErasureSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site.store._engine.dispose()
    event.listen(site.store._engine, "connect", _delete_insecurely)
    monkeypatch.setattr(erasures, "vacuum", _claim)


def _delete_insecurely(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA secure_delete=OFF")


def leave_checkpoint_out(_site: ErasureSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasures, "checkpoint", _claim)
    monkeypatch.setattr(erasures, "vacuum", _claim)


def leave_snapshot_out(site: ErasureSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.galleries, "save_snapshots", _claim)
    monkeypatch.setattr(Gallery, "forget_erased", _claim)


def leave_answers_out(_site: ErasureSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "forget_identity", _claim)


def _claim(*_arguments: object, **_options: object) -> bool:
    """Says that it is done."""
    return True


OMISSIONS = {
    "facedex.db": leave_secure_delete_out,
    "facedex.db-wal": leave_checkpoint_out,
    "index/gallery-1.snapshot": leave_snapshot_out,
    "facedex.db: external id": leave_answers_out,
}


@pytest.mark.parametrize(("place", "omit"), OMISSIONS.items(), ids=OMISSIONS.keys())
def test_the_scan_finds_what_is_left_where_a_part_is_left_out(
    site: ErasureSite, monkeypatch: pytest.MonkeyPatch, place: str, omit: Callable[..., None]
) -> None:
    traces = fill(site)
    omit(site, monkeypatch)
    erase_identity(site, ADA)
    site.pass_horizon()
    assert any(each.startswith(place) for each in traces.found_in(site.data))
