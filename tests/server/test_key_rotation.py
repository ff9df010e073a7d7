"""New data keys for everybody while a server enrols, identifies and erases, over each database; with deaths in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from sqlalchemy import create_engine, select
from tests.server.conftest import StartServer, vectors_of
from tests.server.faces import VectorMaker, enrol_request, identify_request
from tests.server.running_server import COMMANDS, ENVIRONMENT, RunningServer, Wire
from tests.waiting import wait_until

from facedex.indexer.store.schema import identity
from facedex.indexer.store.transforms import new_secret
from facedex.v1 import enrolment_pb2, gallery_pb2

GALLERY = "staff"
CROWD = 240
PROBED = 20
# Above so many of the crowd, people are erased meanwhile.
FIRST_ERASED = 100
SCORE_TOLERANCE = 1e-3
# Between two calls, so that what is tested gets something of the processor too.
PAUSE_SECONDS = 0.005

Answers = dict[int, tuple[str, float]]


@dataclass(slots=True)
class Caller:
    """Enrols, erases and identifies all the time, and remembers what was acknowledged and what looked different."""

    server: RunningServer
    vectors: VectorMaker
    expected: Answers
    enrolled: set[int] = field(default_factory=set[int])
    erased: set[int] = field(default_factory=set[int])
    differences: list[str] = field(default_factory=list[str])
    identified: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def at_work(self) -> Generator[None]:
        works = (self._enrol, self._erase, self._identify)
        threads = [threading.Thread(target=self._forever, args=(each,), daemon=True) for each in works]
        for each in threads:
            each.start()
        yield
        self._ended.set()
        for each in threads:
            each.join()

    def _forever(self, work: Callable[[Wire], None]) -> None:
        while not self._ended.is_set():
            try:
                with Wire(self.server.address) as wire:
                    while not self._ended.wait(PAUSE_SECONDS):
                        work(wire)
            except grpc.RpcError as error:
                # A killed server; whether it did what it was asked for is not known.
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    self.differences.append(str(error))

    def _enrol(self, wire: Wire) -> None:
        number = CROWD + len(self.enrolled)
        wire.enrolment.Enrol(enrol_request(GALLERY, name_of(number), self.vectors.vector(number)))
        self.enrolled.add(number)

    def _erase(self, wire: Wire) -> None:
        number = FIRST_ERASED + len(self.erased)
        if number < CROWD - 1:
            request = enrolment_pb2.DeleteIdentityRequest(gallery=GALLERY, identity_id=name_of(number))
            try:
                wire.enrolment.DeleteIdentity(request)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise  # else it was done before the answer to it was lost
            self.erased.add(number)

    def _identify(self, wire: Wire) -> None:
        self.differences += differences(self.expected, answers(wire, self.vectors, range(PROBED)))
        self.identified += PROBED


def name_of(number: int) -> str:
    return f"person-{number}"


def answers(wire: Wire, vectors: VectorMaker, numbers: Iterator[int] | range) -> Answers:
    """Probe → best identity and its score; nobody is an empty name."""
    found: Answers = {}
    for number in numbers:
        answer = wire.identification.Identify(identify_request(GALLERY, vectors.vector(number, away=0.3)))
        best = next(iter(answer.faces[0].candidates), None)
        found[number] = ("", 0.0) if best is None else (best.identity_id, best.score)
    return found


def differences(expected: Answers, found: Answers) -> list[str]:
    return [
        f"probe {number}: {found[number]} instead of {before}"
        for number, before in expected.items()
        if found[number][0] != before[0] or abs(found[number][1] - before[1]) > SCORE_TOLERANCE
    ]


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything is that a command needs."""

    database: str
    keys: Path
    secret: Path

    @property
    def options(self) -> list[str]:
        return ["--database", self.database, "--data-keys", str(self.keys), "--template-secret", str(self.secret)]


def command(server: RunningServer, at: Place, *words: str, failpoint: str = "") -> tuple[int, str]:
    place = ["--data", str(server.data), *at.options]
    done = subprocess.run(
        [str(COMMANDS / "facedex-index"), *place, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=ENVIRONMENT | ({"FACEDEX_FAILPOINT": failpoint} if failpoint else {}),
    )
    return done.returncode, done.stdout or done.stderr


def key_ids(database: str) -> dict[str, str]:
    engine = create_engine(database)
    with engine.connect() as connection:
        found = {row.external_id: row.key_id for row in connection.execute(select(identity))}
    engine.dispose()
    return found


def fill(wire: Wire, vectors: VectorMaker) -> None:
    wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name=GALLERY)))
    requests = (enrol_request(GALLERY, name_of(number), vectors.vector(number)) for number in range(CROWD))
    stream = wire.enrolment.EnrolStream(enrolment_pb2.EnrolStreamRequest(enrol=each) for each in requests)
    assert sum(1 for _ in stream) == CROWD


@pytest.mark.timeout(600)
def test_nobody_is_lost_comes_back_or_looks_different_while_keys_change(
    start_server: StartServer, database_url: str, tmp_path: Path
) -> None:
    place = Place(database_url, tmp_path / "keys", tmp_path / "secret")
    place.secret.write_text(new_secret())
    server = start_server(*place.options)
    with Wire(server.address) as wire:
        vectors = vectors_of(wire)
        fill(wire, vectors)
        expected = answers(wire, vectors, range(PROBED))
    assert {name for name, _ in expected.values()} == {name_of(number) for number in range(PROBED)}
    old = key_ids(database_url)
    caller = Caller(server, vectors, expected)
    with caller.at_work():
        code, _ = command(server, place, "data-keys", "rotate", failpoint="before-commit:6")
        assert code == -signal.SIGKILL
        changed = sum(key_ids(database_url).get(name) not in {key, None} for name, key in old.items())
        assert 0 < changed < CROWD
        if database_url.startswith("sqlite"):
            server.kill()
            server.start()
        code, told = command(server, place, "data-keys", "rotate", "--json")
        assert (code, json.loads(told)["state"]) == (0, "done")
        code, told = command(server, place, "data-keys", "retire", "--json")
        assert (code, json.loads(told)["kept"]) == (0, 0)
        code, told = command(server, place, "transforms", "renew", GALLERY, "--json")
        assert (code, json.loads(told).get("damaged", 0)) == (0, 0)
        assert command(server, place, "data-keys", "retire")[0] == 0
        assert command(server, place, "rebuild")[0] == 0
        seen = caller.identified, len(caller.enrolled), len(caller.erased)
        wait_until(lambda: all(now > then for now, then in zip(_done(caller), seen, strict=True)), within_seconds=60)
    assert not caller.differences
    assert not set(key_ids(database_url).values()) & set(old.values())
    (statement,) = json.loads(command(server, place, "transforms", "show", "--json")[1])
    assert (statement["has_transform"], statement["others"]) == (True, 0)
    for is_new in (False, True):  # as it runs, and as a start makes it
        if is_new:
            server.stop()
            server.start()
        with Wire(server.address) as wire:
            check(wire, caller)
    code, told = command(server, place, "fsck")
    assert code == 0, told


def _done(caller: Caller) -> tuple[int, int, int]:
    # Everybody who may be erased is erased: then it need not go on.
    erased = len(caller.erased)
    return caller.identified, len(caller.enrolled), CROWD if erased >= CROWD - FIRST_ERASED - 2 else erased


def check(wire: Wire, caller: Caller) -> None:
    found = answers(wire, caller.vectors, range(PROBED))
    assert differences(caller.expected, found) == []
    lost = {number for number, (name, _) in asked(wire, caller, caller.enrolled).items() if name != name_of(number)}
    back = {number for number, (name, _) in asked(wire, caller, caller.erased).items() if name == name_of(number)}
    assert (lost, back) == (set(), set())


def asked(wire: Wire, caller: Caller, numbers: set[int]) -> Answers:
    return answers(wire, caller.vectors, iter(sorted(numbers)))


def test_the_comparison_of_answers_notices_another_person_and_another_score() -> None:
    before: Answers = {1: ("ada", 0.9), 2: ("bea", 0.8)}
    assert differences(before, dict(before)) == []
    assert differences(before, {1: ("ada", 0.9), 2: ("cleo", 0.8)})
    assert differences(before, {1: ("ada", 0.902), 2: ("bea", 0.8)})
