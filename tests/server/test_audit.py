"""Who did what is written down: over the wire, also where the server dies or the disk is full."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.server.conftest import StartServer, vectors_of
from tests.server.faces import enrol_request, identify_request, landscape, photograph
from tests.server.own_server import app_over
from tests.server.running_server import Wire, refusal
from tests.waiting import wait_until
from typer.testing import CliRunner

from facedex.indexer.api_key import KeyTerms, KeyText, Role
from facedex.indexer.audit import AuditEntry, AuditEvent
from facedex.indexer.cli import app as index_app
from facedex.indexer.errors import StoreUnavailable
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.store import Store
from facedex.server.app import App
from facedex.server.audit_writer import AuditUnavailable, AuditWriter
from facedex.server.recorder import AuditChoice
from facedex.v1 import enrolment_pb2, erasure_pb2, gallery_pb2, identification_pb2

FAR_FROM_DUE = 3600.0


def key_of(store: Store, *roles: Role) -> KeyText:
    text = store.api_keys.create(KeyTerms("a test", frozenset(roles))).text
    time.sleep(0.02)  # so that a server that does not know it looks again
    return text


def wire_with(app: App, key: KeyText) -> Wire:
    return Wire(app.address, authorization=f"Bearer {key}")


def create(wire: Wire, name: str = "staff") -> None:
    wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name=name)))


def written(app: App) -> list[AuditEntry]:
    """Everything that is on disk, once nothing is under way."""
    wait_until(lambda: app._audit.backlog == 0)
    return list(app._store.audit.entries())


def told(entries: Sequence[AuditEntry], key: KeyText) -> list[tuple[str, str, str]]:
    """What the entries of a key say: method, gallery and outcome."""
    events = [each.event for each in entries if each.event.key_id == key.key_id]
    return [(each.action.rpartition("/")[2], each.gallery, each.outcome) for each in events]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with app_over(tmp_path / "data") as app:
        yield app


# What is written down


def test_each_call_is_written_down_with_key_gallery_and_outcome(app: App) -> None:
    key = key_of(app._store, *Role)
    with wire_with(app, key) as wire:
        create(wire)
        vectors = vectors_of(wire)
        wire.enrolment.Enrol(enrol_request("staff", "ada", vectors.vector(1), landscape()))
        for number in (1, 2):
            wire.identification.Identify(identify_request("staff", vectors.vector(number)))
        frames = [identify_request("staff", vectors.vector(1)), identify_request("nowhere", vectors.vector(1))]
        stream = [identification_pb2.IdentifyStreamRequest(identify=each) for each in frames]
        list(wire.identification.IdentifyStream(iter(stream)))
        verify = identification_pb2.VerifyRequest(gallery="staff", image=photograph(1), identity_id="ada")
        wire.identification.Verify(verify)
        wire.enrolment.DeleteIdentity(enrolment_pb2.DeleteIdentityRequest(gallery="staff", identity_id="ada"))
        refusal(lambda: wire.enrolment.GetIdentity(enrolment_pb2.GetIdentityRequest(gallery="staff", identity_id="x")))
    assert told(written(app), key) == [
        ("CreateGallery", "staff", "OK"),
        ("Enrol", "staff", "ENROLLED 1, REFUSED 1"),
        ("Identify", "staff", "MATCH 1"),
        ("Identify", "staff", "NO_MATCH 1"),
        ("IdentifyStream", "staff", "MATCH 1"),
        ("IdentifyStream", "nowhere", "GALLERY_NOT_FOUND"),
        ("Verify", "staff", "NO_MATCH 1"),
        ("DeleteIdentity", "staff", "OK"),
        ("GetIdentity", "staff", "IDENTITY_NOT_FOUND"),
    ]
    assert app._store.audit.examined().is_whole


def test_who_finds_no_place_is_written_down_too(tmp_path: Path) -> None:
    over = threading.Event()
    with app_over(tmp_path / "data", max_concurrent_streams=1) as app:
        key = key_of(app._store, *Role)
        with wire_with(app, key) as wire:
            create(wire)
            probe = identify_request("staff", vectors_of(wire).vector(1))

            def one_frame() -> Iterator[identification_pb2.IdentifyStreamRequest]:
                yield identification_pb2.IdentifyStreamRequest(identify=probe)
                over.wait()

            first = wire.identification.IdentifyStream(one_frame())
            assert next(first).HasField("identified")
            try:
                refused = refusal(lambda: list(wire.identification.IdentifyStream(iter(()))))
            finally:
                over.set()
            assert refused.reason == "OVERLOADED"
        assert ("IdentifyStream", "", "OVERLOADED") in told(written(app), key)


def test_a_search_is_written_down_with_its_threshold_and_revision(app: App) -> None:
    key = key_of(app._store, *Role)
    with wire_with(app, key) as wire:
        create(wire)
        vectors = vectors_of(wire)
        enrolled = wire.enrolment.Enrol(enrol_request("staff", "ada", vectors.vector(1)))
        request = identify_request("staff", vectors.vector(1))
        request.threshold = 0.625
        wire.identification.Identify(request)
    enrol, search = [each.event for each in written(app)][-2:]
    assert (enrol.revision, search.revision, search.threshold) == (enrolled.revision, enrolled.revision, 0.625)


def test_each_enrolment_has_one_entry_also_where_it_changes_nothing(app: App) -> None:
    key = key_of(app._store, *Role)
    with wire_with(app, key) as wire:
        create(wire)
        first = enrol_request("staff", "ada", vectors_of(wire).vector(1), request_id="once")
        for request in (first, first, enrol_request("staff", "bob", landscape())):
            wire.enrolment.Enrol(request)
    outcomes = [outcome for _, _, outcome in told(written(app), key)]
    assert outcomes == ["OK", "ENROLLED 1", "ENROLLED 1", "REFUSED 1"]


def _second_transaction(_event: AuditEvent) -> None:
    pytest.fail("the entry was written apart from the enrolment")


def test_an_enrolment_waits_for_nobody_who_writes_the_audit(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its entry is written with it."""
    key = key_of(app._store, *Role)
    with wire_with(app, key) as wire:
        create(wire)
        monkeypatch.setattr(app._audit, "write", _second_transaction)
        wire.enrolment.Enrol(enrol_request("staff", "ada", vectors_of(wire).vector(1)))
    assert told(written(app), key)[-1] == ("Enrol", "staff", "ENROLLED 1")


def test_what_is_denied_is_written_down_too(app: App) -> None:
    key = key_of(app._store, Role.SEARCH)
    with wire_with(app, key) as wire:
        refusal(lambda: wire.galleries.DeleteGallery(gallery_pb2.DeleteGalleryRequest(name="staff")))
    assert told(written(app), key) == [("DeleteGallery", "", "ROLE_MISSING")]


def test_calls_without_a_key_are_counted_so_that_nobody_can_fill_the_disk(tmp_path: Path) -> None:
    with app_over(tmp_path / "data") as app:
        key_of(app._store, Role.SEARCH)
        with Wire(app.address) as wire:
            wait_until(lambda: _refused_for_no_key(wire))
            for _ in range(50):
                refusal(wire.info)
    store = Store.open(sqlite_url(tmp_path / "data" / "facedex.db"))
    outcomes = [each.event.outcome for each in store.audit.entries() if not each.event.key_id]
    store.close()
    assert sum(int(each.removeprefix("KEY_MISSING ")) for each in outcomes) >= 50
    assert len(outcomes) < 20


def _refused_for_no_key(wire: Wire) -> bool:
    with suppress(grpc.RpcError):
        return not wire.info()
    return True


def test_the_audit_holds_no_name_no_id_and_nothing_that_is_no_gallery(app: App) -> None:
    key = key_of(app._store, *Role)
    person = "zebedee-7431"
    with wire_with(app, key) as wire:
        create(wire)
        vectors = vectors_of(wire)
        request = enrol_request("staff", person, vectors.vector(1), request_id=f"{person}-request")
        request.identity.display_name = "Zebedee Quux"
        wire.enrolment.Enrol(request)
        wire.identification.Identify(identify_request("staff", vectors.vector(1)))
        wire.erasures.ExportIdentity(erasure_pb2.ExportIdentityRequest(gallery="staff", identity_id=person))
        refusal(lambda: wire.identification.Identify(identify_request("Zebedee Quux", vectors.vector(1))))
    documents = json.dumps([each.document() for each in written(app)]).lower()
    assert "zebedee" not in documents
    assert len(told(written(app), key)) == 5


@pytest.mark.parametrize(
    ("choice", "count"), [(AuditChoice.WITH_KEYS, 0), (AuditChoice.ALWAYS, 1), (AuditChoice.NEVER, 0)]
)
def test_without_keys_there_is_an_audit_where_it_is_asked_for(tmp_path: Path, choice: AuditChoice, count: int) -> None:
    with app_over(tmp_path / "data", audit=choice) as app, Wire(app.address) as wire:
        create(wire)
        wire.health_of("")
        assert len(written(app)) == count


# What is promised


def test_what_was_acknowledged_to_have_changed_is_in_the_audit_after_kill_9(start_server: StartServer) -> None:
    server = start_server("--audit")
    acknowledged = threading.Event()
    count = 0
    with Wire(server.address) as wire:
        create(wire)
        vectors = vectors_of(wire)

        def kill() -> None:
            acknowledged.wait()
            server.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        with suppress(grpc.RpcError):
            while True:
                wire.enrolment.Enrol(enrol_request("staff", f"person-{count}", vectors.vector(count)))
                count += 1
                if count == 20:
                    acknowledged.set()
        killer.join()
    store = Store.open(sqlite_url(server.data / "facedex.db"))
    enrolled = [each for each in store.audit.entries() if each.event.action == "EnrolmentService/Enrol"]
    assert len(enrolled) >= count >= 20
    assert store.audit.examined().is_whole
    store.close()


def test_a_stop_in_good_order_leaves_nothing_unwritten(tmp_path: Path) -> None:
    with app_over(tmp_path / "data", audit=AuditChoice.ALWAYS) as app, Wire(app.address) as wire:
        create(wire)
        probe = identify_request("staff", vectors_of(wire).vector(1))
        for _ in range(30):
            wire.identification.Identify(probe)
    done = CliRunner().invoke(index_app, ["--data", str(tmp_path / "data"), "audit", "verify", "--json"])
    report = json.loads(done.stdout)
    assert (done.exit_code, report["entries"], report["witnesses"]) == (0, 31, 1)


def test_a_stream_ends_when_its_answers_cannot_be_written_down(tmp_path: Path) -> None:
    with app_over(tmp_path / "data", audit=AuditChoice.ALWAYS) as app, Wire(app.address) as wire:
        create(wire)
        probe = identify_request("staff", vectors_of(wire).vector(1))
        app._audit._capacity = 5
        append = app._audit._append

        def refuse(_events: Sequence[AuditEvent]) -> None:
            raise StoreUnavailable("database or disk is full")

        app._audit._append = refuse
        frames = (identification_pb2.IdentifyStreamRequest(identify=probe) for _ in range(200))
        answers: list[identification_pb2.IdentifyStreamResponse] = []
        refused = refusal(lambda: answers.extend(wire.identification.IdentifyStream(frames)))
        assert refused.reason == "AUDIT_UNAVAILABLE"
        assert app._audit.backlog < 50
        app._audit._append = append


# The writer, with a store that a test lets fail


class Shelf:
    """Takes events, or refuses them, and is its own witness."""

    def __init__(self) -> None:
        self.groups: list[list[AuditEvent]] = []
        self.testimonies: list[int] = []
        self.is_full = False
        self.is_deaf = False
        self.failure: Exception = StoreUnavailable("database or disk is full")

    def write(self, events: Sequence[AuditEvent]) -> None:
        if self.is_full:
            raise self.failure
        self.groups.append(list(events))

    def testify(self) -> None:
        if self.is_deaf:
            raise self.failure
        if len(self.numbers) > max(self.testimonies, default=0):
            self.testimonies.append(len(self.numbers))

    @property
    def numbers(self) -> list[int | None]:
        return [each.revision for group in self.groups for each in group]


def event(number: int) -> AuditEvent:
    return AuditEvent(datetime(2026, 1, 1, tzinfo=UTC), "key", "action", revision=number)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def make_writer(shelf: Shelf) -> Iterator[Callable[..., AuditWriter]]:
    made: list[AuditWriter] = []

    def make(**options: Any) -> AuditWriter:
        writer = AuditWriter(shelf.write, shelf.testify, **options)
        writer.start()
        made.append(writer)
        return writer

    yield make
    shelf.is_full = False
    for each in made:
        each.stop()


def test_notes_are_written_together_and_in_order(make_writer: Callable[..., AuditWriter], shelf: Shelf) -> None:
    writer = make_writer(interval_seconds=0.1)
    for number in range(500):
        writer.note(event(number))
    wait_until(lambda: writer.backlog == 0)
    assert shelf.numbers == list(range(500))
    assert len(shelf.groups) < 50


def test_who_waits_for_an_entry_waits_for_no_interval(make_writer: Callable[..., AuditWriter], shelf: Shelf) -> None:
    writer = make_writer(interval_seconds=FAR_FROM_DUE)
    writer.note(event(1))
    started = time.monotonic()
    writer.write(event(2))
    assert shelf.numbers == [1, 2]
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("failure", [StoreUnavailable("database or disk is full"), OSError("no such key")])
def test_what_a_full_disk_refuses_is_kept_and_written_once_it_can_be(
    make_writer: Callable[..., AuditWriter], shelf: Shelf, failure: Exception
) -> None:
    shelf.is_full, shelf.failure = True, failure
    writer = make_writer(interval_seconds=0.01, capacity=3)
    for number in range(3):
        writer.require()
        writer.note(event(number))
    with pytest.raises(AuditUnavailable, match="without it nothing is answered"):
        writer.require()
    shelf.is_full = False
    wait_until(lambda: writer.backlog == 0)
    writer.require()
    assert shelf.numbers == [0, 1, 2]


def test_the_witness_is_told_once_for_many_groups_and_last_of_the_last(
    make_writer: Callable[..., AuditWriter], shelf: Shelf
) -> None:
    writer = make_writer(interval_seconds=FAR_FROM_DUE)
    for number in range(20):
        writer.write(event(number))
    assert len(shelf.groups) == 20
    assert len(shelf.testimonies) <= 1
    writer.stop()
    assert shelf.testimonies[-1] == 20


def test_a_witness_that_does_not_answer_is_told_later_and_nothing_is_written_twice(
    make_writer: Callable[..., AuditWriter], shelf: Shelf
) -> None:
    shelf.is_deaf = True
    writer = make_writer(interval_seconds=0.01)
    for number in range(3):
        writer.write(event(number))
    assert shelf.testimonies == []
    shelf.is_deaf = False
    wait_until(lambda: shelf.testimonies == [3])
    assert shelf.numbers == [0, 1, 2]


def test_a_server_whose_audit_cannot_be_written_answers_nobody_but_health(tmp_path: Path) -> None:
    with app_over(tmp_path / "data", audit=AuditChoice.ALWAYS) as app, Wire(app.address) as wire:
        create(wire)
        app._audit._capacity = 0
        probe = identify_request("staff", vectors_of(wire).vector(1))
        refused = refusal(lambda: wire.identification.Identify(probe))
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "AUDIT_UNAVAILABLE")
        assert wire.health_of("") == 1
