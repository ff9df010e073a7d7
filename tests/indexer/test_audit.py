"""The audit: what is written stays, and whatever is done to it shows."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, text
from tests.indexer.doubles import MODEL
from typer.testing import CliRunner

from facedex.indexer.api_key import KeyTerms, Role
from facedex.indexer.audit import (
    GENESIS,
    PRUNED,
    RESTORED,
    UNREADABLE,
    AuditEntry,
    AuditEvent,
    AuditFault,
    AuditHead,
    AuditReport,
    hash_of,
    pruning,
)
from facedex.indexer.cli import app
from facedex.indexer.errors import AuditNotWhole
from facedex.indexer.failpoints import Step
from facedex.indexer.store import audit_log
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.enrolling import EnrolmentEntry
from facedex.indexer.store.records import GalleryRecord, IdentityDetails, NewEnrolment, NewTemplate
from facedex.indexer.store.store import Store
from facedex.indexer.store.vault import Vault

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ACTION = "IdentificationService/Identify"


def search(number: int) -> AuditEvent:
    at = NOW + timedelta(seconds=number)
    return AuditEvent(at, "0123456789abcdef", ACTION, "staff", "MATCH 1", threshold=0.1 + number / 3, revision=number)


@pytest.mark.parametrize("odd", ["", 'quoted "twice"', "back\\slash", "line\nfeed\x00", "Zoë", "\U0001f600", "\ud800"])
@pytest.mark.parametrize(("threshold", "revision"), [(None, None), (0.1 + 0.2, 2**62), (1e-300, 0), (1.0, -1), (1, 1)])
def test_an_entry_is_hashed_as_canonical_json(odd: str, threshold: float | None, revision: int | None) -> None:
    event = AuditEvent(NOW, odd, f"{odd}/{odd}", odd, odd, threshold, revision)
    content = {
        "action": event.action,
        "at": "2026-01-02T03:04:05.678901+00:00",
        "gallery": odd,
        "key": odd,
        "number": 7,
        "outcome": odd,
        "revision": revision,
        "threshold": threshold,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert hash_of(7, event, GENESIS) == hashlib.sha256(GENESIS + text.encode()).digest()
    assert AuditEntry(7, event, GENESIS).document() == {**content, "hash": GENESIS.hex()}


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_what_json_does_not_know_is_not_hashed(threshold: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        hash_of(7, AuditEvent(NOW, "", ACTION, threshold=threshold), GENESIS)


class Site:
    """A data folder, whose database may be replaced behind the witness's back."""

    def __init__(self, data: Path, url: str) -> None:
        data.mkdir(exist_ok=True)
        self.data, self.url = data, url
        self.vault = Vault.open(data)
        self.store = Store.open(url, vault=self.vault)

    def reopened(self) -> Site:
        self.close()
        return Site(self.data, self.url)

    def close(self) -> None:
        self.store.close()
        self.vault.close()

    def write(self, *numbers: int) -> None:
        self.store.audit.append([search(each) for each in numbers])

    def sql(self, statement: str, **values: object) -> None:
        """What somebody does who can write the database."""
        with self.store._engine.begin() as connection:
            connection.execute(text(statement), values)

    def faults(self) -> list[tuple[AuditFault, int]]:
        return found(self.store.audit.examined())


def found(report: AuditReport) -> list[tuple[AuditFault, int]]:
    return [(each.fault, each.number) for each in report.findings]


@pytest.fixture
def site(database_url: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "data", database_url)
    for start in (1, 4, 7):
        site.write(*range(start, start + 3))
    yield site
    site.close()


@pytest.fixture
def sqlite_site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "data").mkdir()
    site = Site(tmp_path / "data", sqlite_url(tmp_path / "data" / "facedex.db"))
    site.write(*range(1, 10))
    yield site
    site.close()


# Whole


def test_what_was_written_is_there_in_order_and_the_chain_is_whole(site: Site) -> None:
    assert [each.event for each in site.store.audit.entries()] == [search(number) for number in range(1, 10)]
    assert site.faults() == []
    reopened = site.reopened()
    reopened.write(10)
    report = reopened.store.audit.examined()
    assert (report.count, report.witnesses, found(report)) == (10, 1, [])
    reopened.close()


def test_many_writers_make_one_chain(site: Site) -> None:
    stores = [Store.open(site.url) for _ in range(3)]

    def write(store: Store) -> None:
        for number in range(10):
            store.audit.append([search(number)])

    threads = [threading.Thread(target=write, args=(store,)) for store in stores]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for store in stores:
        store.close()
    report = site.store.audit.examined()
    assert (report.count, found(report)) == (39, [])


def test_who_wrote_last_need_not_read_where_the_chain_ends(site: Site) -> None:
    read: list[str] = []
    site.store.audit.append([search(10)])

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("SELECT"):
            read.append(statement)

    event.listen(site.store._engine, "before_cursor_execute", note)
    site.store.audit.append([search(11)])
    assert read == []
    assert found(site.store.audit.examined()) == []


def test_the_newest_are_found_by_key_gallery_action_and_moment(site: Site) -> None:
    site.store.audit.append([AuditEvent(NOW + timedelta(days=1), "other", "GalleryService/DeleteGallery", "old")])
    audit = site.store.audit
    assert [each.number for each in audit.newest(limit=3)] == [10, 9, 8]
    wanted: list[dict[str, Any]] = [{"key_id": "other"}, {"gallery": "old"}, {"since": NOW + timedelta(hours=1)}]
    assert [[each.number for each in audit.newest(limit=3, **each)] for each in wanted] == [[10]] * 3
    assert audit.newest(limit=3, action="nothing") == []


# With the change that they are of


class Cut(Exception):
    """The process ends here."""


def enrol(store: Store, gallery: GalleryRecord, name: str) -> None:
    template = NewTemplate(np.eye(1, MODEL.dimension, dtype=np.float32)[0], source_digest=64 * "0")
    entry = EnrolmentEntry(NewEnrolment(IdentityDetails(name), MODEL.digest, (template,)))
    store.enrol_all(gallery, [entry], events=lambda enrolled: [search(each.revision) for each in enrolled])


@pytest.mark.parametrize(("step", "is_there"), [(Step.BEFORE_COMMIT, False), (Step.AFTER_COMMIT, True)])
def test_an_enrolment_and_its_entry_are_there_or_neither_is(site: Site, step: Step, *, is_there: bool) -> None:
    gallery = site.store.create_gallery("staff", model=MODEL, policy={})
    before = site.store.audit.head().number

    def cut(reached: Step) -> None:
        if reached is step:
            raise Cut

    site.store.reached = cut
    with pytest.raises(Cut):
        enrol(site.store, gallery, "ada")
    names = [each.external_id for each in site.store.identities(gallery)]
    assert (names == ["ada"], site.store.audit.head().number == before + 1) == (is_there, is_there)
    assert site.faults() == []


def test_the_witness_is_not_told_again_what_it_was_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    def note(_store_id: str, head: AuditHead, _key: bytes) -> None:
        told.append(head.number)

    monkeypatch.setattr(site.vault.witness, "note", note)
    site.store.audit.write([search(10)])
    for _ in range(3):
        site.store.audit.testify()
    assert told == [10]


def test_the_witness_hears_of_an_entry_that_was_written_with_a_change(site: Site) -> None:
    gallery = site.store.create_gallery("staff", model=MODEL, policy={})
    enrol(site.store, gallery, "ada")
    site.store.audit.testify()
    head = site.store.audit.head()
    cut_back(site, to=head.number - 1)
    assert site.faults() == [(AuditFault.CUT_OFF, head.number - 1)]


# Not whole

CHANGES = (
    "at = '2020-01-01 00:00:00'",
    "key_id = 'x'",
    "action = 'x'",
    "gallery = 'x'",
    "outcome = 'NO_MATCH 1'",
    "threshold = 0.9",
    "threshold = NULL",
    "revision = 99",
    "hash = (SELECT hash FROM audit WHERE number = 2)",
    # What no program of ours writes, and SQLite takes.
    "at = 'yesterday'",
    "at = 5",
    "gallery = x'00ff'",
    "threshold = 'high'",
    "threshold = 9e999",
    "revision = 'first'",
    "revision = 0.5",
    "hash = 'none'",
    "outcome = CAST(x'4d41ff' AS TEXT)",  # no UTF-8
)


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_entry_is_found(sqlite_site: Site, change: str) -> None:
    sqlite_site.sql(f"UPDATE audit SET {change} WHERE number = 5")  # noqa: S608
    assert (AuditFault.ALTERED, 5) in sqlite_site.faults()


@pytest.mark.parametrize(
    ("rubbish", "shown"),
    [("at = 'yesterday'", "audit/unreadable"), ("action = CAST(x'4d41ff' AS TEXT)", "MA\\xff")],
)
def test_beside_an_entry_that_holds_rubbish_the_others_are_read_and_the_audit_goes_on(
    sqlite_site: Site, rubbish: str, shown: str
) -> None:
    sqlite_site.sql(f"UPDATE audit SET {rubbish} WHERE number = 5")  # noqa: S608
    sqlite_site.write(10)
    assert sqlite_site.faults() == [(AuditFault.ALTERED, 5)]
    actions = [each.event.action for each in sqlite_site.store.audit.entries()]
    assert actions == [*[ACTION] * 4, shown, *[ACTION] * 5]
    assert [each["action"] for each in sqlite_site.store.audit.documents()] == actions


def test_rubbish_is_found_also_where_its_hash_was_computed(sqlite_site: Site) -> None:
    before = list(sqlite_site.store.audit.entries())[7]
    fitting = hash_of(9, UNREADABLE, before.hash)
    sqlite_site.sql("UPDATE audit SET at = 'yesterday', hash = :hash WHERE number = 9", hash=fitting)
    sqlite_site.sql("UPDATE audit_head SET hash = :hash WHERE id = 1", hash=fitting)
    assert sqlite_site.faults() == [(AuditFault.ALTERED, 9), (AuditFault.REWRITTEN, 9)]


@pytest.mark.parametrize("rubbish", ["number = 'many'", "hash = 'none'", "number = 0.5"])
def test_rubbish_in_the_place_of_the_head_is_found(sqlite_site: Site, rubbish: str) -> None:
    sqlite_site.sql(f"UPDATE audit_head SET {rubbish} WHERE id = 1")  # noqa: S608
    assert {fault for fault, _ in sqlite_site.faults()} <= {AuditFault.INSERTED, AuditFault.REWRITTEN}
    assert sqlite_site.faults()


@pytest.mark.parametrize("rubbish", ["number = 'many'", "hash = 'none'", "tag = 'mine'", "tag = 7"])
def test_rubbish_in_the_place_of_the_witness_is_found(sqlite_site: Site, rubbish: str) -> None:
    assert sqlite_site.vault.witness is not None
    with sqlite_site.vault.witness._engine.begin() as connection:
        connection.execute(text(f"UPDATE audit_witness SET {rubbish}"))  # noqa: S608
    assert [fault for fault, _ in sqlite_site.faults()] == [AuditFault.WITNESS_FORGED]


def test_each_kind_of_meddling_is_found_on_both_databases(site: Site) -> None:
    site.sql("UPDATE audit SET outcome = 'NO_MATCH 1' WHERE number = 2")
    assert site.faults() == [(AuditFault.ALTERED, 2)]
    site.sql("UPDATE audit SET outcome = 'MATCH 1' WHERE number = 2")
    assert site.faults() == []
    site.sql("DELETE FROM audit WHERE number IN (4, 5)")
    assert site.faults() == [(AuditFault.MISSING, 4), (AuditFault.UNCHECKED, 6)]


def test_an_entry_that_was_put_in_is_found(sqlite_site: Site) -> None:
    sqlite_site.sql(
        "INSERT INTO audit SELECT 10, at, key_id, action, gallery, outcome, threshold, revision, hash FROM audit WHERE number = 9"
    )
    assert (AuditFault.INSERTED, 10) in sqlite_site.faults()


def test_two_entries_that_changed_places_are_found(sqlite_site: Site) -> None:
    for old, new in ((5, 100), (6, 5), (100, 6)):
        sqlite_site.sql("UPDATE audit SET number = :new WHERE number = :old", old=old, new=new)
    assert {number for _, number in sqlite_site.faults()} >= {5, 6}


def test_an_end_that_was_cut_off_is_found_also_where_the_head_was_set_back(sqlite_site: Site) -> None:
    sqlite_site.sql("DELETE FROM audit WHERE number > 6")
    assert sqlite_site.faults() == [(AuditFault.CUT_OFF, 6), (AuditFault.CUT_OFF, 6)]
    sqlite_site.sql("UPDATE audit_head SET number = 6, hash = (SELECT hash FROM audit WHERE number = 6)")
    assert sqlite_site.faults() == [(AuditFault.CUT_OFF, 6)]


def test_a_chain_that_was_written_anew_from_some_entry_on_is_found(sqlite_site: Site) -> None:
    """Whoever does it computes every hash rightly, and the head too."""
    cut_back(sqlite_site, to=6)
    forger = Store.open(sqlite_site.url)
    forger.audit.append([search(number) for number in (70, 80, 90)])
    forger.close()
    assert sqlite_site.faults() == [(AuditFault.REWRITTEN, 9)]


def cut_back(site: Site, *, to: int) -> None:
    site.sql("DELETE FROM audit WHERE number > :last", last=to)
    site.sql("UPDATE audit_head SET number = :last, hash = (SELECT hash FROM audit WHERE number = :last)", last=to)


def test_a_head_that_was_written_down_elsewhere_finds_what_was_done_since(sqlite_site: Site) -> None:
    head = sqlite_site.store.audit.head()
    sqlite_site.close()
    for each in sqlite_site.data.glob("erasures.db*"):
        each.unlink()
    site = sqlite_site.reopened()
    cut_back(site, to=6)
    assert site.faults() == []
    assert found(site.store.audit.examined(seen_before=head)) == [(AuditFault.CUT_OFF, 6)]
    site.write(70, 80, 90)
    assert found(site.store.audit.examined(seen_before=head)) == [(AuditFault.REWRITTEN, 9)]
    site.close()


def test_a_witness_that_was_forged_is_found(sqlite_site: Site) -> None:
    cut_back(sqlite_site, to=6)
    head = sqlite_site.store.audit.head()
    witness = sqlite_site.vault.witness
    assert witness is not None
    with witness._engine.begin() as connection:
        connection.execute(text("UPDATE audit_witness SET number = 6, hash = :hash"), {"hash": head.hash})
    assert sqlite_site.faults() == [(AuditFault.WITNESS_FORGED, 6)]


def test_a_restored_database_is_noted_once_by_many_who_write_at_once(site: Site) -> None:
    cut_back(site, to=6)
    reopened = site.reopened()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(reopened.write, range(100, 104)))
    actions = [each.event.action for each in reopened.store.audit.entries()]
    reopened.close()
    assert (actions.count(RESTORED), actions[6], len(actions)) == (1, RESTORED, 11)


def test_a_database_that_was_restored_from_a_backup_says_for_ever_that_entries_are_missing(sqlite_site: Site) -> None:
    sqlite_site.close()
    backup = sqlite_site.data.parent / "backup.db"
    shutil.copy(sqlite_site.data / "facedex.db", backup)
    site = sqlite_site.reopened()
    site.write(10, 11)
    site.close()
    shutil.copy(backup, site.data / "facedex.db")
    site = site.reopened()
    assert site.faults() == [(AuditFault.CUT_OFF, 9)]
    site.write(12, 13, 14)
    assert site.faults() == [(AuditFault.RESTORED, 10)]
    site = site.reopened()
    site.write(15)
    assert site.faults() == [(AuditFault.RESTORED, 10)]
    site.close()


# Pruned


def day(number: int) -> datetime:
    """From this moment on, the entries of the site's searches are kept."""
    return NOW + timedelta(seconds=number)


def test_pruned_entries_are_gone_and_the_chain_is_whole(site: Site) -> None:
    head = site.store.audit.head()
    assert site.store.audit.prune(day(5)) == 4
    entries = list(site.store.audit.entries())
    assert [each.number for each in entries] == [5, 6, 7, 8, 9, 10]
    assert (entries[-1].event.action, entries[-1].event.revision) == (PRUNED, 4)
    assert site.faults() == []
    assert found(site.store.audit.examined(seen_before=head)) == []
    reopened = site.reopened()
    reopened.write(11)
    assert reopened.faults() == []
    assert reopened.store.audit.prune(day(7)) == 2
    assert [each.number for each in reopened.store.audit.entries()] == [7, 8, 9, 10, 11, 12]
    assert reopened.faults() == []
    reopened.close()


def test_what_is_older_than_nothing_prunes_nothing_and_says_nothing(site: Site) -> None:
    assert site.store.audit.prune(day(1)) == 0
    assert site.store.audit.head().number == 9


def test_all_that_there_is_can_be_pruned_in_several_transactions(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "PRUNED_AT_ONCE", 4)
    assert site.store.audit.prune(datetime.now(UTC) + timedelta(days=1)) == 9
    assert [each.event.action for each in site.store.audit.entries()] == [PRUNED] * 3
    assert site.faults() == []


def test_an_entry_of_a_slow_clock_keeps_those_behind_it(site: Site) -> None:
    site.write(2)
    assert site.store.audit.prune(day(8)) == 7
    assert [each.event.revision for each in site.store.audit.entries()] == [8, 9, 2, 7]


def test_a_server_that_writes_meanwhile_waits_and_goes_on(site: Site) -> None:
    other = Store.open(site.url)

    def write() -> None:
        for each in range(20):
            other.audit.append([search(100 + each)])

    writer = threading.Thread(target=write)
    writer.start()
    assert site.store.audit.prune(day(5)) == 4
    writer.join()
    other.close()
    report = site.store.audit.examined()
    assert (report.count, found(report)) == (9 - 4 + 1 + 20, [])


def test_entries_that_were_taken_out_otherwise_are_found(sqlite_site: Site) -> None:
    """Whoever does it leaves more and more in order, down to a perfect chain; the witness is beyond them."""
    last = next(each for each in sqlite_site.store.audit.entries() if each.number == 4)
    sqlite_site.sql("DELETE FROM audit WHERE number <= 4")
    assert sqlite_site.faults() == [(AuditFault.MISSING, 1), (AuditFault.UNCHECKED, 5)]
    sqlite_site.sql("INSERT INTO audit_head VALUES (2, 4, :hash)", hash=last.hash)
    assert sqlite_site.faults() == [(AuditFault.PRUNED, 4)] * 2
    sqlite_site.store.audit.append([pruning(NOW, AuditHead(4, last.hash))])
    assert sqlite_site.faults() == [(AuditFault.PRUNED, 4)]
    with pytest.raises(AuditNotWhole, match="pruned at entry 4"):
        sqlite_site.store.audit.prune(day(8))


def test_more_than_was_pruned_is_missing(sqlite_site: Site) -> None:
    sqlite_site.store.audit.prune(day(4))
    sqlite_site.sql("DELETE FROM audit WHERE number = 4")
    assert sqlite_site.faults() == [(AuditFault.MISSING, 4), (AuditFault.UNCHECKED, 5)]


def test_an_anchor_that_was_moved_or_taken_away_is_found(sqlite_site: Site) -> None:
    sqlite_site.store.audit.prune(day(4))
    sqlite_site.sql("UPDATE audit_head SET number = 2 WHERE id = 2")
    assert (AuditFault.PRUNED, 2) in sqlite_site.faults()
    sqlite_site.sql("DELETE FROM audit_head WHERE id = 2")
    assert (AuditFault.MISSING, 1) in sqlite_site.faults()


def test_a_forged_anchor_in_the_witness_is_found(sqlite_site: Site) -> None:
    sqlite_site.store.audit.prune(day(4))
    assert sqlite_site.vault.witness is not None
    with sqlite_site.vault.witness._engine.begin() as connection:
        connection.execute(text("UPDATE audit_anchor SET number = 8"))
    assert sqlite_site.faults() == [(AuditFault.WITNESS_FORGED, 8)]


def test_what_is_wrong_is_not_pruned_away(sqlite_site: Site) -> None:
    sqlite_site.sql("UPDATE audit SET outcome = 'NO_MATCH 1' WHERE number = 2")
    with pytest.raises(AuditNotWhole, match="altered at entry 2"):
        sqlite_site.store.audit.prune(day(8))
    assert (AuditFault.ALTERED, 2) in sqlite_site.faults()


def test_a_restored_backup_is_told_of_also_when_its_entry_is_pruned(sqlite_site: Site) -> None:
    restored = AuditEvent(day(10), "local", "audit/restored", outcome="12:0123456789abcdef was seen")
    sqlite_site.store.audit.append([restored, search(11)])
    assert sqlite_site.store.audit.prune(day(11)) == 10
    assert sqlite_site.faults() == [(AuditFault.RESTORED, 12)]
    assert sqlite_site.store.audit.prune(day(12)) == 2
    assert [fault for fault, _ in sqlite_site.faults()] == [AuditFault.RESTORED]


def test_an_older_copy_of_a_pruned_database_is_only_a_restored_backup(sqlite_site: Site) -> None:
    sqlite_site.close()
    backup = sqlite_site.data.parent / "backup.db"
    shutil.copy(sqlite_site.data / "facedex.db", backup)
    site = sqlite_site.reopened()
    site.store.audit.prune(day(5))
    site.close()
    shutil.copy(backup, site.data / "facedex.db")
    site = site.reopened()
    site.write(20)
    assert site.faults() == [(AuditFault.RESTORED, 10)]
    assert site.store.audit.prune(day(6)) == 5
    assert [fault for fault, _ in site.faults()] == [AuditFault.RESTORED]
    site.close()


# Keys


def test_a_key_is_made_and_revoked_with_an_entry_that_names_it(site: Site) -> None:
    key_id = site.store.api_keys.create(KeyTerms("kiosk", frozenset({Role.SEARCH}))).key.key_id
    site.store.api_keys.revoke(key_id)
    shown = [(each.event.key_id, each.event.action, each.event.outcome) for each in site.store.audit.newest(limit=2)]
    assert shown == [("local", "keys revoke", key_id), ("local", "keys create", key_id)]
    assert site.faults() == []


# The command


@pytest.fixture
def command(sqlite_site: Site) -> Callable[..., Any]:
    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["--data", str(sqlite_site.data), "audit", *arguments])
        assert done.exit_code == code, done.output
        return done.stdout

    return run


def test_the_command_shows_verifies_and_exports(command: Callable[..., str], sqlite_site: Site, tmp_path: Path) -> None:
    shown = json.loads(command("show", "--gallery", "staff", "--limit", "2", "--json"))
    assert [(each["number"], each["outcome"]) for each in shown] == [(9, "MATCH 1"), (8, "MATCH 1")]
    assert "MATCH 1" in command("show")
    head = json.loads(command("verify", "--json"))["head"]
    command("verify", "--head", head)
    command("verify", "--head", "9:nonsense", code=1)
    sqlite_site.sql("UPDATE audit SET key_id = 'somebody else' WHERE number = 3")
    assert "altered" in command("verify", code=3)
    assert "wrote 9 entries" in command("export", str(tmp_path / "audit.jsonl"))


def test_an_export_can_be_checked_without_facedex(command: Callable[..., str], tmp_path: Path) -> None:
    check_export(command, tmp_path / "whole.jsonl", entries=9)
    assert "pruned 0 entries" in command("prune", "--before", "2026-01-02")
    assert "pruned 9 entries" in command("prune", "--before", "2026-01-03")
    assert json.loads(command("verify", "--json"))["pruned"].startswith("9:")
    assert "pruned up to 9:" in command("verify")
    check_export(command, tmp_path / "pruned.jsonl", entries=1)


def test_what_is_to_come_is_not_pruned(command: Callable[..., str]) -> None:
    command("prune", "--before", "2999-01-01", code=1)


def check_export(command: Callable[..., str], file: Path, *, entries: int) -> None:
    assert f"wrote {entries} entries" in command("export", str(file))
    previous = bytes(32)
    for line in file.read_text().splitlines():
        entry = json.loads(line)
        if "pruned" in entry:
            previous = bytes.fromhex(entry["hash"])
            continue
        told = bytes.fromhex(entry.pop("hash"))
        content = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
        assert hashlib.sha256(previous + content).digest() == told
        previous = told
