"""Several processes over one database follow the same change log."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from sqlalchemy import create_engine, make_url, text
from tests.server.conftest import StartServer, vectors_of
from tests.server.faces import PEOPLE, enrol_request, identify_request, photograph
from tests.server.running_server import COMMANDS, RunningServer, Wire, refusal, wait_until

from facedex.v1 import enrolment_pb2, face_pb2, gallery_pb2


def who_is(wire: Wire, probe: bytes | face_pb2.Vector) -> list[str]:
    answer = wire.identification.Identify(identify_request("staff", probe))
    return [each.identity_id for face in answer.faces for each in face.candidates]


def create_staff(wire: Wire) -> None:
    wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name="staff")))


@pytest.fixture
def running(start_server: StartServer, database_url: str) -> RunningServer:
    return start_server("--database", database_url)


def index(server: RunningServer, database_url: str, *arguments: str) -> str:
    """Runs `facedex-index` on a server's data."""
    place = ("--data", str(server.data), "--database", database_url)
    command = [str(COMMANDS / "facedex-index"), *place, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_whom_the_indexer_enrols_beside_a_running_server_is_found(
    running: RunningServer, database_url: str, tmp_path: Path
) -> None:
    for person in ("person_001", "person_002"):
        (tmp_path / "people" / person).mkdir(parents=True)
        shutil.copy(PEOPLE / person / "1.jpg", tmp_path / "people" / person)
    with Wire(running.address) as wire:
        create_staff(wire)
        assert who_is(wire, photograph(2, 4)) == []
        report = json.loads(
            index(running, database_url, "enrol", str(tmp_path / "people"), "--gallery", "staff", "--json")
        )
        assert report["enrolled"] == 2
        wait_until(lambda: who_is(wire, photograph(2, 4)) == ["person_002"])
        assert "staff" in index(running, database_url, "rebuild")
        assert who_is(wire, photograph(2, 4)) == ["person_002"]


def test_two_servers_over_one_database_tell_the_same(
    running: RunningServer, start_server: StartServer, database_url: str
) -> None:
    second = start_server("--database", database_url)
    with Wire(running.address) as here, Wire(second.address) as there:
        vectors = vectors_of(here)
        create_staff(here)
        template_id = here.enrolment.Enrol(enrol_request("staff", "ada", vectors.vector(1))).results[0].template_id
        wait_until(lambda: who_is(there, vectors.vector(1)) == ["ada"])
        there.enrolment.DeleteTemplate(enrolment_pb2.DeleteTemplateRequest(gallery="staff", template_id=template_id))
        assert who_is(here, vectors.vector(1)) == []
        here.galleries.DeleteGallery(gallery_pb2.DeleteGalleryRequest(name="staff"))
        create_staff(here)
        here.enrolment.Enrol(enrol_request("staff", "grace", vectors.vector(2)))
        wait_until(lambda: who_is(there, vectors.vector(2)) == ["grace"])


def test_two_servers_that_enrol_at_the_same_time_lose_nobody(
    running: RunningServer, start_server: StartServer, database_url: str
) -> None:
    second = start_server("--database", database_url)
    with Wire(running.address) as here, Wire(second.address) as there:
        vectors = vectors_of(here)
        create_staff(here)
        wires = (here, there)
        calls = [
            wires[n % 2].enrolment.Enrol.future(enrol_request("staff", f"person {n}", vectors.vector(n)))
            for n in range(60)
        ]
        numbers = [each.result().results[0].template_id for each in calls]
        assert len(set(numbers)) == 60
        for wire in wires:
            wait_until(lambda each=wire: all(who_is(each, vectors.vector(n)) == [f"person {n}"] for n in range(60)))  # type: ignore[misc]


def test_a_caller_is_told_of_a_lost_database_without_its_address(
    start_server: StartServer, postgresql: Callable[[], str]
) -> None:
    url = make_url(postgresql())
    running = start_server("--database", url.render_as_string(hide_password=False))
    with Wire(running.address) as wire:
        create_staff(wire)
        with create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(text(f"DROP DATABASE {url.database} WITH (FORCE)"))
        refused = refusal(lambda: wire.identification.Identify(identify_request("staff", photograph(1))))
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        for revealing in (str(url.database), str(url.username), "socket"):
            assert revealing not in refused.message
        assert wire.info().version
