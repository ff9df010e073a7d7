"""Several processes over one database follow the same change log."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from sqlalchemy import create_engine, make_url, text
from tests.server.conftest import StartServer, vectors_of
from tests.server.faces import PEOPLE, enrol_request, identify_request, photograph
from tests.server.running_server import COMMANDS, RunningServer, Wire, refusal
from tests.waiting import wait_until

from facedex.indexer.store.engine import sqlite_url
from facedex.v1 import enrolment_pb2, face_pb2, gallery_pb2


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Two servers over one database."""

    first: RunningServer
    second: RunningServer
    database_url: str

    def index(self, *arguments: str) -> str:
        """Runs `facedex-index` beside them."""
        place = ("--data", str(self.first.data), "--database", self.database_url)
        command = [str(COMMANDS / "facedex-index"), *place, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def neighbours(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    folder = tmp_path_factory.mktemp("neighbours")
    url = sqlite_url(folder / "facedex.db")
    if request.param == "postgresql":
        make_database: Callable[[], str] = request.getfixturevalue("postgresql")
        url = make_database()
    first, second = (RunningServer(folder / name, "--database", url) for name in ("first", "second"))
    yield Neighbours(first, second, url)
    assert (first.stop(), second.stop()) == (0, 0)


@pytest.fixture
def here(neighbours: Neighbours) -> Iterator[Wire]:
    with Wire(neighbours.first.address) as wire:
        yield wire


@pytest.fixture
def there(neighbours: Neighbours) -> Iterator[Wire]:
    with Wire(neighbours.second.address) as wire:
        yield wire


def who_is(wire: Wire, gallery: str, probe: bytes | face_pb2.Vector) -> list[str]:
    answer = wire.identification.Identify(identify_request(gallery, probe))
    return [each.identity_id for face in answer.faces for each in face.candidates]


def create(wire: Wire, gallery: str) -> None:
    wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name=gallery)))


def test_whom_the_indexer_enrols_beside_running_servers_is_found(
    neighbours: Neighbours, here: Wire, there: Wire, tmp_path: Path
) -> None:
    for person in ("person_001", "person_002"):
        (tmp_path / "people" / person).mkdir(parents=True)
        shutil.copy(PEOPLE / person / "1.jpg", tmp_path / "people" / person)
    create(here, "indexed")
    assert who_is(here, "indexed", photograph(2, 4)) == []
    report = json.loads(neighbours.index("enrol", str(tmp_path / "people"), "--gallery", "indexed", "--json"))
    assert report["enrolled"] == 2
    for wire in (here, there):
        wait_until(lambda each=wire: who_is(each, "indexed", photograph(2, 4)) == ["person_002"])  # type: ignore[misc]
    assert "indexed" in neighbours.index("rebuild")
    assert who_is(here, "indexed", photograph(2, 4)) == ["person_002"]


def test_two_servers_over_one_database_tell_the_same(here: Wire, there: Wire) -> None:
    vectors = vectors_of(here)
    create(here, "same")
    template_id = here.enrolment.Enrol(enrol_request("same", "ada", vectors.vector(1))).results[0].template_id
    wait_until(lambda: who_is(there, "same", vectors.vector(1)) == ["ada"])
    there.enrolment.DeleteTemplate(enrolment_pb2.DeleteTemplateRequest(gallery="same", template_id=template_id))
    assert who_is(here, "same", vectors.vector(1)) == []
    here.galleries.DeleteGallery(gallery_pb2.DeleteGalleryRequest(name="same"))
    create(here, "same")
    here.enrolment.Enrol(enrol_request("same", "grace", vectors.vector(2)))
    wait_until(lambda: who_is(there, "same", vectors.vector(2)) == ["grace"])


def test_two_servers_that_enrol_at_the_same_time_lose_nobody(here: Wire, there: Wire) -> None:
    vectors = vectors_of(here)
    create(here, "both")
    wires = (here, there)
    calls = [
        wires[n % 2].enrolment.Enrol.future(enrol_request("both", f"person {n}", vectors.vector(n))) for n in range(60)
    ]
    numbers = [each.result().results[0].template_id for each in calls]
    assert len(set(numbers)) == 60
    for wire in wires:
        wait_until(
            lambda each=wire: all(who_is(each, "both", vectors.vector(n)) == [f"person {n}"] for n in range(60))  # type: ignore[misc]
        )


def test_a_caller_is_told_of_a_lost_database_without_its_address(
    start_server: StartServer, postgresql: Callable[[], str]
) -> None:
    url = make_url(postgresql())
    running = start_server("--database", url.render_as_string(hide_password=False))
    with Wire(running.address) as wire:
        create(wire, "staff")
        wire.enrolment.Enrol(enrol_request("staff", "ada", photograph(1)))  # so that there is a row to read
        with create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(text(f"DROP DATABASE {url.database} WITH (FORCE)"))
        refused = refusal(lambda: wire.identification.Identify(identify_request("staff", photograph(1))))
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        for revealing in (str(url.database), str(url.username), "socket"):
            assert revealing not in refused.message
        assert wire.health_of("") == health_pb2.HealthCheckResponse.SERVING, "the server lives"
