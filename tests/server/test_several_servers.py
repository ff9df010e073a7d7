"""Several servers over one PostgreSQL: one is killed, one joins, and no caller notices."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from tests.server.conftest import vectors_of
from tests.server.faces import VectorMaker, enrol_request, identify_request
from tests.server.running_server import RunningServer, Wire, refusal
from tests.waiting import wait_until

from facedex.client import Client, IdentityNotFoundError, RetryPolicy, UnavailableError, Vector
from facedex.v1 import gallery_pb2, identification_pb2

GALLERY = "staff"
LOAD_SECONDS = 6.0


@dataclass
class Site:
    """Servers over one database, and the addresses that a client is told."""

    folder: Path
    database_url: str
    running: list[RunningServer] = field(default_factory=list)

    def start(self, *options: str) -> RunningServer:
        data = self.folder / f"server{len(self.running)}"
        server = RunningServer(data, "--database", self.database_url, *options)
        self.running.append(server)
        return server

    @property
    def alive(self) -> list[RunningServer]:
        return [each for each in self.running if each.is_alive]


@pytest.fixture
def site(tmp_path: Path, postgresql: Callable[[], str]) -> Iterator[Site]:
    site = Site(tmp_path, postgresql())
    yield site
    for server in site.alive:
        assert server.stop() == 0


class People:
    """Enrols, erases and identifies through one client, and keeps account of what was acknowledged."""

    def __init__(self, client: Client, vectors: VectorMaker, *, first: int) -> None:
        self._client = client
        self._vectors = vectors
        self._next = first
        self._chance = random.Random(first)
        self.enrolled: dict[int, int] = {}
        self.erased: set[int] = set()
        self.faults: list[str] = []
        self.calls = 0

    def work(self, until: Callable[[], bool]) -> None:
        while not until():
            act = self._chance.choice([self._enrol, self._identify, self._identify, self._erase])
            try:
                act()
            except Exception as error:  # noqa: BLE001  (whatever fails is told in the end)
                self.faults.append(f"{act.__name__}: {error!r}")
            self.calls += 1

    def vector(self, number: int) -> Vector:
        made = self._vectors.vector(number)
        return Vector(made.values, made.model_digest)

    def _enrol(self) -> None:
        number, self._next = self._next, self._next + 1
        answer = self._client.enrol(GALLERY, f"person {number}", vectors=[self.vector(number)])
        self.enrolled[number] = answer.revision

    def _identify(self) -> None:
        """Whoever was enrolled is found by any server that is told the revision, and whoever was erased by none."""
        if self.enrolled:
            number = self._chance.choice(list(self.enrolled))
            if f"person {number}" not in self._who(number, least_revision=self.enrolled[number]):
                self.faults.append(f"person {number} is lost")
        if self.erased:
            number = self._chance.choice(list(self.erased))
            if f"person {number}" in self._who(number, least_revision=0):
                self.faults.append(f"person {number} is resurrected")

    def _who(self, number: int, *, least_revision: int) -> list[str]:
        found = self._client.identify(GALLERY, self.vector(number), least_revision=least_revision)
        return [each.identity for each in found.faces[0].candidates]

    def _erase(self) -> None:
        """As the README says: when the answer got lost, ask again, and nobody there means done."""
        if len(self.enrolled) < 5:
            return
        number = self._chance.choice(list(self.enrolled))
        del self.enrolled[number]
        for _ in range(5):
            try:
                self._client.delete_identity(GALLERY, f"person {number}")
            except UnavailableError:
                time.sleep(0.2)
                continue
            except IdentityNotFoundError:
                pass
            self.erased.add(number)
            return
        raise AssertionError("the erasure was never answered")


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def create_gallery(server: RunningServer) -> VectorMaker:
    with Wire(server.address) as wire:
        wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name=GALLERY)))
        return vectors_of(wire)


def test_one_of_three_is_killed_and_one_joins_under_load_and_no_call_fails(site: Site) -> None:
    port = free_port()
    first = [site.start() for _ in range(3)]
    vectors = create_gallery(first[0])
    target = "ipv4:" + ",".join([*(each.address for each in first), f"127.0.0.1:{port}"])
    ends = time.monotonic() + LOAD_SECONDS
    with Client.connect(target, retry=RetryPolicy(attempts=6)) as client, ExitStack() as connections:
        people = [People(client, vectors, first=10_000 * number) for number in range(4)]
        threads = [
            threading.Thread(target=each.work, args=[lambda: time.monotonic() > ends], daemon=True) for each in people
        ]
        for thread in threads:
            thread.start()
        time.sleep(LOAD_SECONDS / 4)
        first[0].kill()
        site.start("--listen", f"127.0.0.1:{port}")
        wires = [connections.enter_context(Wire(server.address)) for server in site.alive]
        for wire in wires:
            wire.info()
        for thread in threads:
            thread.join()
        last_write = time.monotonic()
        newest = max(revision for each in people for revision in each.enrolled.values())
        for wire in wires:
            wait_until(lambda each=wire: each.info().indexes[0].revision >= newest, within_seconds=1.0)  # type: ignore[misc]
        assert time.monotonic() - last_write < 1.0, "all have caught up within a second of the last write"
    assert not [fault for each in people for fault in each.faults]
    assert min(len(each.erased) for each in people) > 0
    told = [everybody(server, vectors, people) for server in site.alive]
    assert len(told) == 3
    for answers in told:
        assert answers.revision == told[0].revision
        assert answers.lost == answers.resurrected == []
        assert answers.faults == 0, "the digest of each index is that of the store"


@dataclass(frozen=True)
class Told:
    """What one server says when all is quiet."""

    revision: int
    lost: list[int]
    resurrected: list[int]
    faults: int


def everybody(server: RunningServer, vectors: VectorMaker, people: list[People]) -> Told:
    with Client.connect(server.address) as client:
        report = client.check_consistency(GALLERY)

        def is_found(number: int) -> bool:
            made = vectors.vector(number)
            found = client.identify(GALLERY, Vector(made.values, made.model_digest))
            return any(each.identity == f"person {number}" for each in found.faces[0].candidates)

        lost = [number for each in people for number in each.enrolled if not is_found(number)]
        resurrected = [number for each in people for number in each.erased if is_found(number)]
        return Told(report.revision, lost, resurrected, sum(report.counts.values()))


def test_word_of_a_change_comes_at_once_and_not_only_at_the_next_look(site: Site) -> None:
    """Both look into the log once in a minute only."""
    servers = [site.start("--follow-interval-seconds", "60") for _ in range(2)]
    here, there = (Wire(each.address) for each in servers)
    vectors = create_gallery(servers[0])
    there.identification.Identify(identify_request(GALLERY, vectors.vector(0)))
    delays = []
    for number in range(10):
        revision = here.enrolment.Enrol(enrol_request(GALLERY, f"person {number}", vectors.vector(number))).revision
        began = time.monotonic()
        wait_until(lambda least=revision: there.info().indexes[0].revision >= least, within_seconds=5.0)  # type: ignore[misc]
        delays.append(time.monotonic() - began)
    assert np.median(delays) < 1.0
    here.channel.close()
    there.channel.close()


def test_a_search_that_names_a_revision_sees_it_on_every_server(site: Site) -> None:
    """Even where no word comes, because both servers look once in a minute and the word is lost with its sender."""
    servers = [site.start(), site.start()]
    here, there = (Wire(each.address) for each in servers)
    vectors = create_gallery(servers[0])
    revision = 0
    for number in range(30):
        revision = here.enrolment.Enrol(enrol_request(GALLERY, f"person {number}", vectors.vector(number))).revision
        request = identify_request(GALLERY, vectors.vector(number))
        request.least_revision = revision
        answer = there.identification.Identify(request)
        assert answer.revision >= revision
        assert answer.faces[0].candidates[0].identity_id == f"person {number}"
    request = identification_pb2.IdentifyRequest(gallery=GALLERY, vector=vectors.vector(1), least_revision=revision + 1)
    refused = refusal(lambda: there.identification.Identify(request))
    assert refused.reason == "INVALID_ARGUMENT"
    assert "least_revision" in refused.message
    here.channel.close()
    there.channel.close()
