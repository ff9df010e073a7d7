"""CheckConsistency: the index in a running server's memory against its database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from sqlalchemy import create_engine, text
from tests.server.conftest import vectors_of
from tests.server.faces import enrol_request
from tests.server.running_server import CALL_SECONDS, Wire, refusal

from facedex.indexer.store.engine import sqlite_url
from facedex.server.app import App
from facedex.server.settings import Settings
from facedex.v1 import consistency_pb2, gallery_pb2

PEOPLE = 6


class Clinic:
    """A server in this process, so that a test reaches what it holds in memory."""

    def __init__(self, data: Path) -> None:
        self.url = sqlite_url(data / "facedex.db")
        self.app = App(Settings(data, listen="127.0.0.1:0", follow_interval_seconds=60))
        self.app.start()
        self.wire = Wire(self.app.address)
        self.wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name="staff")))
        self.vectors = vectors_of(self.wire)
        self.enrol_all(range(PEOPLE))

    def enrol_all(self, numbers: range) -> None:
        for number in numbers:
            self.wire.enrolment.Enrol(enrol_request("staff", f"person-{number}", self.vectors.vector(number)))

    def check(self, gallery: str = "staff") -> consistency_pb2.CheckConsistencyResponse:
        request = consistency_pb2.CheckConsistencyRequest(gallery=gallery)
        return self.wire.operations.CheckConsistency(request, timeout=CALL_SECONDS)

    def stop(self) -> None:
        self.wire.channel.close()
        self.app.stop()


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Clinic]:
    clinic = Clinic(tmp_path)
    yield clinic
    clinic.stop()


def test_a_healthy_server_agrees_with_its_database_while_it_changes(clinic: Clinic) -> None:
    enrolling = threading.Thread(target=lambda: clinic.enrol_all(range(PEOPLE, 2 * PEOPLE)))
    enrolling.start()
    while enrolling.is_alive():
        assert not clinic.check().counts
    enrolling.join()
    report = clinic.check()
    assert (report.gallery, report.revision, report.template_count) == ("staff", 2 * PEOPLE, 2 * PEOPLE)
    assert not report.findings


def test_a_template_that_the_live_index_lost_is_named(clinic: Clinic) -> None:
    clinic.app._galleries.get("staff")._index.erase([3])
    report = clinic.check()
    assert [(each.fault, each.template_id) for each in report.findings] == [("index-missing", 3), ("index-digest", 0)]
    assert {each.fault: each.count for each in report.counts} == {"index-missing": 1, "index-digest": 1}
    assert "rebuild" in report.findings[0].remedy


def test_a_row_that_was_changed_behind_the_servers_back_is_named_and_no_person_is(clinic: Clinic) -> None:
    engine = create_engine(clinic.url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE template SET vector = (SELECT vector FROM template WHERE id = 2) WHERE id = 4"))
    engine.dispose()
    report = clinic.check()
    assert [(each.fault, each.template_id) for each in report.findings] == [("row-altered", 4), ("index-vector", 4)]
    assert "person-" not in str(report)


def test_a_gallery_that_there_is_not_is_not_found(clinic: Clinic) -> None:
    assert refusal(lambda: clinic.check("nobody")).code is grpc.StatusCode.NOT_FOUND
