"""`kill -9` at each step of the write path: what was acknowledged is there, what was erased is not, nothing is half there.

`tests.torture` does the same at random, a thousand times.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc
import pytest
from sqlalchemy import create_engine, delete
from tests.conftest import ROOT
from tests.server.faces import VectorMaker, enrol_request, identify_request
from tests.server.running_server import Refusal, Wire, refusal, refusal_of
from tests.torture.inquest import Depth
from tests.torture.ledger import GONE, Fault, Person, State, problems_of
from tests.torture.nursery import Nursery
from tests.torture.site import CHANGE_STEPS, GALLERY, LARGE_STEPS, Manner, Site
from tests.waiting import wait_until

from facedex.indexer.failpoints import Step
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.schema import change, template
from facedex.v1 import enrolment_pb2

MakeSite = Callable[..., Site]


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery") / "servers.log") as nursery:
        yield nursery


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A small gallery that the tests of changes share: each leaves it checked."""
    folder = tmp_path_factory.mktemp("site")
    url = sqlite_url(folder / "facedex.db")
    if request.param == "postgresql":
        make_database: Callable[[], str] = request.getfixturevalue("postgresql")
        url = make_database()
    return Site(folder / "data", url, nursery, seed=11)


@pytest.fixture(scope="module")
def large_site(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A gallery so large that its index is sealed and saved; what happens there is the same over each database."""
    folder = tmp_path_factory.mktemp("large")
    site = Site(folder / "data", sqlite_url(folder / "facedex.db"), nursery, seed=12)
    site.add_crowd()
    return site


@pytest.fixture
def make_site(nursery: Nursery, tmp_path: Path) -> MakeSite:
    """A site that one test may break."""

    def make(store: str = "honest") -> Site:
        return Site(tmp_path / "data", sqlite_url(tmp_path / "facedex.db"), nursery, seed=13, store=store)

    return make


@pytest.mark.parametrize("number", [2, 9])
@pytest.mark.parametrize("step", CHANGE_STEPS)
def test_a_server_that_dies_at_a_step_of_a_change_keeps_its_word(site: Site, step: Step, number: int) -> None:
    deaths = site.tally.at_steps.get(step.value, 0)
    assert site.cycle(Manner.STEP, step, number) == []
    assert site.tally.at_steps[step.value] == deaths + 1


@pytest.mark.parametrize("manner", [Manner.MOMENT, Manner.START])
def test_a_server_that_dies_at_any_moment_keeps_its_word(site: Site, manner: Manner) -> None:
    assert [site.cycle(manner) for _ in range(2)] == [[], []]
    assert site.check(Depth.EVERYBODY) == []


@pytest.mark.parametrize("step", LARGE_STEPS)
def test_a_server_that_dies_while_it_tends_its_index_keeps_its_word(large_site: Site, step: Step) -> None:
    deaths = large_site.tally.at_steps.get(step.value, 0)
    assert large_site.cycle(Manner.STEP, step) == []
    assert large_site.tally.at_steps[step.value] == deaths + 1


@pytest.mark.parametrize("step", [Step.SNAPSHOT_BEGUN, Step.SNAPSHOT_WRITTEN])
def test_half_a_snapshot_of_a_dead_server_does_not_stay(large_site: Site, step: Step) -> None:
    """It holds vectors of people who may be erased later."""
    folder = Path(large_site.order.data) / "index"
    large_site.kill_at(step)
    assert list(folder.glob("*.partial"))
    with large_site.running():
        wait_until(lambda: not list(folder.glob("*.partial")))
    assert large_site.check() == []


# Disks


def test_on_a_full_disk_changes_are_refused_searches_go_on_and_nothing_is_lost(
    make_site: MakeSite, tmp_path: Path
) -> None:
    site = make_site()
    site.load(seconds=0.3)
    largest = max(each.stat().st_size for each in tmp_path.iterdir())
    with site.running(replace(site.order, largest_file_bytes=largest + 2**18)) as wire:
        vectors = vectors_of(wire)
        kept, refused = _enrol_until_refused(wire, vectors)
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert [_finds(wire, vectors, number) for number in (0, kept - 1, kept)] == [True, True, False]
    with site.running() as wire:
        assert [_finds(wire, vectors, number) for number in (0, kept - 1, kept)] == [True, True, False]
        wire.enrolment.Enrol(enrol_request(GALLERY, f"crowd-{kept}", vectors.vector(kept)))
        assert _finds(wire, vectors, kept)
    assert site.check(Depth.EVERYBODY) == []


def _enrol_until_refused(wire: Wire, vectors: VectorMaker) -> tuple[int, Refusal]:
    for number in range(2_000):
        try:
            wire.enrolment.Enrol(enrol_request(GALLERY, f"crowd-{number}", vectors.vector(number)))
        except grpc.RpcError as error:
            return number, refusal_of(error)
    raise AssertionError("the disk was not full")


def _finds(wire: Wire, vectors: VectorMaker, number: int) -> bool:
    answer = wire.identification.Identify(identify_request(GALLERY, vectors.vector(number)))
    return [each.identity_id for each in answer.faces[0].candidates] == [f"crowd-{number}"]


def vectors_of(wire: Wire) -> VectorMaker:
    embedder = wire.info().embedder
    return VectorMaker(dimension=embedder.dimension, model_digest=embedder.digest)


def test_over_a_read_only_folder_changes_are_refused_searches_go_on_and_nothing_is_lost(
    make_site: MakeSite, tmp_path: Path
) -> None:
    site = make_site()
    with site.running() as wire:
        vectors = vectors_of(wire)
        wire.enrolment.Enrol(enrol_request(GALLERY, "crowd-0", vectors.vector(0)))
    with _read_only(tmp_path), site.running(replace(site.order, obeys_permissions=True)) as wire:
        erasure = enrolment_pb2.DeleteIdentityRequest(gallery=GALLERY, identity_id="crowd-0")
        enrolment = enrol_request(GALLERY, "crowd-1", vectors.vector(1))
        for call in (partial(wire.enrolment.DeleteIdentity, erasure), partial(wire.enrolment.Enrol, enrolment)):
            refused = refusal(call)
            assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert [_finds(wire, vectors, number) for number in (0, 1)] == [True, False]
    with site.running() as wire:
        assert [_finds(wire, vectors, number) for number in (0, 1)] == [True, False]


@contextmanager
def _read_only(folder: Path) -> Generator[None]:
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o500 if path.is_dir() else 0o400)
    yield
    for path in paths:
        path.chmod(0o700 if path.is_dir() else 0o600)


# The checkers notice a broken promise


def test_a_server_that_acknowledges_before_it_commits_is_caught(make_site: MakeSite) -> None:
    site = make_site(store="hasty")
    found = [problem for _ in range(2) for problem in site.cycle(Manner.STEP, Step.BEFORE_REPLY, 30)]
    assert Fault.LOST in {each.fault for each in found}


def test_somebody_who_comes_back_after_an_erasure_is_caught(make_site: MakeSite) -> None:
    site = make_site()
    site.load(seconds=0.5)
    caller = next(each for each in site.callers if each.ledger.alive)
    person = caller.ledger.alive[0]
    person.settle(GONE)  # as if its erasure had been acknowledged
    found = [each for each in site.check(Depth.EVERYBODY) if person.id in each.text]
    assert {each.fault for each in found} == {Fault.RESURRECTED}


def test_a_template_that_is_gone_from_the_store_is_caught(make_site: MakeSite) -> None:
    site = make_site()
    site.load(seconds=0.3)
    with create_engine(site.order.database).begin() as connection:
        connection.execute(delete(template).where(template.c.id == 1))
        connection.execute(delete(template).where(template.c.id == 2))
    assert Fault.LOST in {each.fault for each in site.check(Depth.EVERYBODY)}


def test_an_index_that_differs_from_the_store_is_caught(make_site: MakeSite) -> None:
    site = make_site()
    site.load(seconds=0.3)
    with create_engine(site.order.database).begin() as connection:
        last = connection.execute(template.select().order_by(template.c.id.desc())).first()
        assert last is not None
        connection.execute(delete(change).where(change.c.template_id == last.id))
    texts = [each.text for each in site.check() if each.fault is Fault.HALF]
    assert any("in the store" in each and "in the index" in each for each in texts)


@pytest.mark.parametrize(
    ("found", "faults"),
    [
        (State("ada", frozenset({1, 2})), []),
        (State("bea", frozenset({1, 2})), []),
        (State("cleo", frozenset({1, 2})), [Fault.LOST]),
        (State("ada", frozenset({1})), [Fault.LOST]),
        (GONE, [Fault.LOST, Fault.LOST]),
        (State("ada", frozenset({1, 2, 3})), [Fault.RESURRECTED]),
    ],
    ids=str,
)
def test_an_update_without_an_answer_may_have_happened_or_not(found: State, faults: list[Fault]) -> None:
    person = Person("7", settled=State("ada", frozenset({1, 2})))
    person.hope(State("bea", frozenset({1, 2})))
    assert [each.fault for each in problems_of(person, found)] == faults


@pytest.mark.parametrize(("store", "exit_code"), [("honest", 0), ("hasty", 1)])
def test_torture_ends_with_its_figures_and_fails_where_a_promise_was_broken(
    store: str, exit_code: int, tmp_path: Path
) -> None:
    options = ["--kills", "4", "--database", "sqlite", "--store", store, "--folder", str(tmp_path), "--seed", "3"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == exit_code, done.stdout + done.stderr
    line = done.stdout.splitlines()[-1]
    assert line.startswith("torture: 4 kills, ")
    assert (line == "torture: 4 kills, 0 lost, 0 resurrected") == (exit_code == 0)


def test_a_fail_point_that_there_is_not_keeps_a_server_from_starting(make_site: MakeSite, nursery: Nursery) -> None:
    site = make_site()
    assert nursery.start(replace(site.order, failpoint="nowhere:1")).address == ""
    assert nursery.wait() == 1
    assert "FailPointInvalid" in nursery.log()
