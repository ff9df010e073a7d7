"""Receipts, tombstones and the journal: what an erasure leaves, and what a restored backup does not bring back."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from tests.indexer.erasure_site import HORIZON, ErasureSite, made_template

from facedex.indexer.erasure_check import checked_erasure
from facedex.indexer.errors import IdentityNotFound, ReceiptInvalid, StoreUnavailable
from facedex.indexer.failpoints import Step
from facedex.indexer.identification import Query
from facedex.indexer.store import parameters
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.purging import vacuum
from facedex.indexer.store.receipts import Signer, canonical, verified
from facedex.indexer.store.store import Store

ADA = "ada-4711-lovelace"


@pytest.fixture
def site(database_url: str, tmp_path: Path) -> Iterator[ErasureSite]:
    site = ErasureSite(tmp_path / "data", url=database_url)
    yield site
    site.close()


@pytest.fixture
def sqlite_site(tmp_path: Path) -> Iterator[ErasureSite]:
    site = ErasureSite(tmp_path / "data")
    yield site
    site.close()


def key_of(site: ErasureSite) -> bytes:
    return site.store.erasures.signer.public_key


def finds(site: ErasureSite, name: str) -> bool:
    probe = made_template(name, 0).vector[None]
    faces = site.gallery.identify(probe, Query(threshold=0.9)).faces
    return name in {each.identity.external_id for each in faces[0].candidates}


# Receipts


def test_a_receipt_says_what_was_erased_when_and_until_when_copies_are_left(site: ErasureSite) -> None:
    templates = site.enrol(ADA, faces=3)
    erased = site.gallery.delete_identity(ADA)
    content = verified(erased.receipt, key_of(site))
    assert (content["scope"], content["reason"], content["gallery"]) == ("identity", "requested", "staff")
    assert (content["templates"], content["template_count"], content["crop_count"]) == (templates, 3, 3)
    assert content["revision"] == erased.revision
    assert content["erased_at"] == "2026-01-01T00:00:00.000000+00:00"
    assert content["horizon_at"] == "2026-01-01T01:00:00.000000+00:00"
    assert content["store"] == site.store.erasures.signer.store_id


def test_a_receipt_is_kept_and_is_the_one_that_was_given(site: ErasureSite) -> None:
    first, _ = site.enrol(ADA)
    receipts = [site.gallery.delete_template(first).receipt, site.gallery.delete_identity(ADA).receipt]
    receipts.append(site.galleries.delete("staff").receipt)
    assert {each.receipt for each in site.store.erasures.page()} == set(receipts)
    assert {json.loads(each)["receipt"]["scope"] for each in receipts} == {"template", "identity", "gallery"}


def test_erasures_are_listed_page_by_page_the_newest_first(site: ErasureSite) -> None:
    for number in range(5):
        site.enrol(f"person-{number}", faces=1)
        site.gallery.delete_identity(f"person-{number}")
        site.clock.advance(seconds=number % 2)
    erasures = site.store.erasures
    one_by_one = [erasures.page(limit=1)[0]]
    while page := erasures.page(before=one_by_one[-1], limit=1):
        one_by_one += page
    assert one_by_one == erasures.page()
    assert len(one_by_one) == 5
    assert [each.tombstone.erased_at for each in one_by_one] == sorted(
        (each.tombstone.erased_at for each in one_by_one), reverse=True
    )


@pytest.mark.parametrize("kept", ["tombstones", "receipts", "journal"])
def test_nothing_that_is_kept_of_an_erasure_names_the_person(sqlite_site: ErasureSite, kept: str) -> None:
    sqlite_site.enrol(ADA)
    sqlite_site.gallery.delete_identity(ADA)
    (record,) = sqlite_site.store.erasures.page()
    texts = {
        "tombstones": json.dumps(record.tombstone.to_json()),
        "receipts": record.receipt,
        "journal": (sqlite_site.data / "erasures.db-wal").read_bytes().decode("latin-1"),
    }
    for telling in (ADA, f"Display {ADA}", made_template(ADA, 0).source_digest):
        assert telling not in texts[kept]


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "a count": lambda document: document["receipt"].update(template_count=7),
    "the time": lambda document: document["receipt"].update(erased_at="2020-01-01T00:00:00.000000+00:00"),
    "a field more": lambda document: document["receipt"].update(note="all is well"),
    "the signature": lambda document: document.update(signature="00" * 64),
    "no signature": lambda document: document.pop("signature"),
    "half a signature": lambda document: document.update(signature=document["signature"][:64]),
    "no receipt": lambda document: document.update(receipt=[]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_receipt_that_was_changed_is_refused(sqlite_site: ErasureSite, change: Callable[[Any], None]) -> None:
    sqlite_site.enrol(ADA)
    document = json.loads(sqlite_site.gallery.delete_identity(ADA).receipt)
    assert verified(canonical(document).decode(), key_of(sqlite_site))
    change(document)
    with pytest.raises(ReceiptInvalid):
        verified(json.dumps(document), key_of(sqlite_site))


@pytest.mark.parametrize(
    "text", ["", "null", "{}", "[1]", '"receipt"', '{"receipt": 1, "signature": "zz"}', "[" * 99_999]
)
def test_what_is_no_receipt_is_refused(text: str) -> None:
    with pytest.raises(ReceiptInvalid):
        verified(text, Signer(bytes(32)).public_key)


def test_the_receipt_of_another_installation_is_refused(sqlite_site: ErasureSite, tmp_path: Path) -> None:
    sqlite_site.enrol(ADA)
    receipt = sqlite_site.gallery.delete_identity(ADA).receipt
    with closing(ErasureSite(tmp_path / "other")) as other, pytest.raises(ReceiptInvalid):
        checked_erasure(other.galleries, receipt)


# Asking whether anything is still held


def test_after_the_horizon_nothing_is_held(site: ErasureSite) -> None:
    site.enrol(ADA)
    site.enrol("somebody else")
    receipt = site.gallery.delete_identity(ADA).receipt
    assert any("copies" in each for each in checked_erasure(site.galleries, receipt).held)
    site.pass_horizon()
    assert checked_erasure(site.galleries, receipt).held == ()


def test_somebody_new_under_the_old_id_is_not_what_was_erased(site: ErasureSite) -> None:
    site.enrol(ADA)
    receipt = site.gallery.delete_identity(ADA).receipt
    site.pass_horizon()
    site.enrol(ADA)
    assert checked_erasure(site.galleries, receipt).held == ()


def test_rows_and_index_entries_that_came_back_are_told(sqlite_site: ErasureSite) -> None:
    site = sqlite_site
    numbers = site.enrol(ADA)
    backup = backed_up(site)
    receipt = site.gallery.delete_identity(ADA).receipt
    restored = restore_without_journal(site, backup)
    restored.galleries.follow()
    held = checked_erasure(restored.galleries, receipt).held
    assert f"the row of template {numbers[0]}" in held
    assert f"template {numbers[0]} in the index" in held
    assert any("knows nothing of the erasure" in each for each in held)
    restored.close()


# Restored backups


def backed_up(site: ErasureSite) -> Path:
    """The database alone, as a backup would have it."""
    target = site.data.parent / "backup.db"
    with site.store._engine.connect() as connection:
        connection.connection.driver_connection.execute(f"VACUUM INTO '{target}'")  # type: ignore[union-attr]
    return target


def restore(site: ErasureSite, backup: Path) -> ErasureSite:
    site.close()
    for each in site.data.glob("facedex.db*"):
        each.unlink()
    shutil.copy(backup, site.data / "facedex.db")
    return ErasureSite(site.data, clock=site.clock)


def restore_without_journal(site: ErasureSite, backup: Path) -> ErasureSite:
    site.close()
    for each in site.data.glob("erasures.db*"):
        each.unlink()
    return restore(site, backup)


def erase_each_way(site: ErasureSite) -> None:
    site.gallery.delete_identity("erased")
    site.gallery.delete_template(site.store.identity(site.gallery.record, "two faces").templates[0].id)
    site.clock.advance(minutes=10)
    site.galleries.erase_expired()


def test_a_clean_up_that_fails_is_done_again_before_an_erasure_counts_as_complete(
    site: ErasureSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("erased", "stays"):
        site.enrol(name)
    site.settle()
    site.gallery.delete_identity("erased")
    site.settle()
    site.clock.advance(seconds=HORIZON.total_seconds() / 2)
    write, failures = site.galleries._indexes.write, iter([OSError("No space left on device")])
    written: list[None] = []

    def write_snapshot(*arguments: Any) -> None:
        for failure in failures:
            raise failure
        written.append(write(*arguments))

    monkeypatch.setattr(site.galleries._indexes, "write", write_snapshot)
    with pytest.raises(OSError, match="No space"):
        site.settle()
    assert site.store.erasures.page()[0].purged_at is None
    site.settle()
    assert written
    assert site.store.erasures.page()[0].purged_at is not None


def test_a_writer_in_the_way_of_a_clean_up_only_postpones_it(sqlite_site: ErasureSite) -> None:
    site = sqlite_site
    site.enrol("erased")
    site.settle()
    site.gallery.delete_identity("erased")
    site.settle()
    site.clock.advance(seconds=HORIZON.total_seconds() / 2)
    with closing(sqlite3.connect(site.data / "facedex.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            vacuum(site.store._engine)
        writer.execute("ROLLBACK")
    site.pass_horizon()
    assert site.store.erasures.page()[0].purged_at is not None


def test_any_number_of_erasures_is_noted_with_few_values_a_statement(
    sqlite_site: ErasureSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parameters, "MAX_PARAMETERS", 5)
    site, backup = sqlite_site, None
    for number in range(12):
        site.enrol(f"p{number}")
    backup = backed_up(site)
    counts: list[int] = []
    for engine in (site.store._engine, site.journal._engine):
        event.listen(engine, "before_cursor_execute", lambda *said: counts.append(len(said[3])))
    for number in range(12):
        site.gallery.delete_identity(f"p{number}")
    counts.clear()
    site.pass_horizon()
    assert all(each.purged_at is not None for each in site.store.erasures.page())
    assert 6 in counts  # five erasures, and when
    assert max(counts) < 12
    restored = restore(site, backup)
    assert not any(finds(restored, f"p{number}") for number in range(12))
    restored.close()


def enrol_all(site: ErasureSite) -> None:
    for name in ("erased", "two faces", "stays"):
        site.enrol(name)
    site.enrol("expired", expires=timedelta(minutes=5))


def test_a_restored_database_brings_nobody_back(sqlite_site: ErasureSite, caplog: pytest.LogCaptureFixture) -> None:
    enrol_all(sqlite_site)
    backup = backed_up(sqlite_site)
    erase_each_way(sqlite_site)
    before = sqlite_site.store.erasures.page()
    site = restore(sqlite_site, backup)
    assert [finds(site, name) for name in ("erased", "expired", "stays")] == [False, False, True]
    assert len(site.store.identity(site.gallery.record, "two faces").templates) == 1
    with pytest.raises(IdentityNotFound):
        site.store.identity(site.gallery.record, "erased")
    assert "3 erasures that it did not know were done again" in caplog.text
    assert [each.receipt for each in site.store.erasures.page()] == [each.receipt for each in before]
    site.close()


def test_without_a_journal_a_restored_database_brings_people_back(sqlite_site: ErasureSite) -> None:
    """What the test above relies on."""
    enrol_all(sqlite_site)
    backup = backed_up(sqlite_site)
    erase_each_way(sqlite_site)
    site = restore_without_journal(sqlite_site, backup)
    assert finds(site, "erased")
    site.close()


def test_a_gallery_that_a_restored_database_brings_back_is_deleted_again(sqlite_site: ErasureSite) -> None:
    sqlite_site.enrol(ADA)
    backup = backed_up(sqlite_site)
    sqlite_site.galleries.delete("staff")
    site = restore(sqlite_site, backup)
    assert site.store.revisions() == {}
    site.close()


def test_whoever_got_the_number_of_somebody_erased_stays(sqlite_site: ErasureSite) -> None:
    """After a restore numbers are given away a second time."""
    sqlite_site.enrol("first")
    backup = backed_up(sqlite_site)
    sqlite_site.clock.advance(minutes=1)
    erased = sqlite_site.enrol(ADA)
    sqlite_site.gallery.delete_identity(ADA)
    sqlite_site.clock.advance(minutes=1)
    site = restore_without_journal(sqlite_site, backup)
    assert site.enrol("newcomer") == erased
    # The journal comes back, with the erasure of the same number.
    tombstone = tombstone_of(site, "newcomer")
    site.journal.note([tombstone])
    site = site.reopened()
    assert finds(site, "newcomer")
    site.close()


def tombstone_of(site: ErasureSite, name: str) -> Any:
    """As of somebody else who had the number, a minute earlier."""
    record = site.store.identity(site.gallery.record, name)
    with closing(ErasureSite(site.data.parent / "scratch", clock=site.clock)) as other:
        other.enrol("first")
        site.clock.advance(minutes=-1)
        other.enrol(ADA)
        other.gallery.delete_identity(ADA)
        site.clock.advance(minutes=1)
        (tombstone,) = (each.tombstone for each in other.store.erasures.page())
    assert tombstone.identity_id == record.id
    return tombstone


def test_a_replayed_erasure_is_done_once(sqlite_site: ErasureSite) -> None:
    enrol_all(sqlite_site)
    backup = backed_up(sqlite_site)
    sqlite_site.gallery.delete_identity("erased")
    site = restore(sqlite_site, backup)
    site.clock.advance(seconds=1)
    site.enrol("erased")
    site = site.reopened()
    assert finds(site, "erased")
    assert len(site.store.erasures.page()) == 1
    site.close()


def test_a_new_journal_learns_what_the_database_knows(sqlite_site: ErasureSite) -> None:
    sqlite_site.enrol(ADA)
    sqlite_site.gallery.delete_identity(ADA)
    known = {each.tombstone.erasure_id for each in sqlite_site.store.erasures.page()}
    sqlite_site.close()
    for each in sqlite_site.data.glob("erasures.db*"):
        each.unlink()
    site = ErasureSite(sqlite_site.data, clock=sqlite_site.clock)
    assert site.journal.erasure_ids() == known
    site.close()


# Deaths in the middle


class Death(BaseException):
    """The process dies here; nothing after it happens."""


@pytest.mark.parametrize("step", [Step.AFTER_COMMIT, Step.BEFORE_JOURNAL, Step.BEFORE_RECEIPT])
def test_an_erasure_whose_process_died_is_completed_at_the_next_start(sqlite_site: ErasureSite, step: Step) -> None:
    site = sqlite_site
    site.enrol(ADA)
    site.store.erasures.keyed_hash  # noqa: B018  (made beforehand, so that the first commit is that of the erasure)

    def die(reached: Step) -> None:
        if reached is step:
            raise Death

    site.store.reached = die
    site.store.erasures._reached = die
    with pytest.raises(Death):
        site.gallery.delete_identity(ADA)
    assert [each.receipt for each in site.store.erasures.page()] == [""]
    site = site.reopened()
    (record,) = site.store.erasures.page()
    assert verified(record.receipt, key_of(site))["identity_number"] == 1
    assert site.journal.erasure_ids() == {record.tombstone.erasure_id}
    site.close()


# Imports


def test_an_import_leaves_out_who_was_erased_after_the_export(site: ErasureSite) -> None:
    site.enrol(ADA)
    number, exported_at = site.gallery.record.id, site.clock.now
    site.clock.advance(minutes=1)
    assert not site.store.erasures.forbids(number, ADA, exported_at=exported_at)
    site.gallery.delete_identity(ADA)
    assert site.store.erasures.forbids(number, ADA, exported_at=exported_at)
    assert not site.store.erasures.forbids(number, ADA, exported_at=site.clock.now)
    assert not site.store.erasures.forbids(number, "somebody else", exported_at=exported_at)
    assert not site.store.erasures.forbids(number + 1, ADA, exported_at=exported_at)


def test_tombstones_come_back_as_they_were_written(site: ErasureSite) -> None:
    site.enrol(ADA)
    site.gallery.delete_identity(ADA)
    (record,) = site.store.erasures.page()
    assert site.journal.tombstones([record.tombstone.erasure_id]) == [record.tombstone]
    assert record.tombstone.horizon_at - record.tombstone.erased_at == HORIZON


def test_the_keys_of_an_installation_are_there_before_the_first_backup(tmp_path: Path) -> None:
    with closing(Store.open(sqlite_url(tmp_path / "a.db"))) as store:
        first = store.erasures.signer.store_id
    with closing(Store.open(sqlite_url(tmp_path / "a.db"))) as store:
        assert store.erasures.signer.store_id == first
