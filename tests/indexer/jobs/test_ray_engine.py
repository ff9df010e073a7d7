"""Bulk enrolment and re-embedding by the workers of a Ray: the same as by threads, also where workers die."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.indexer.jobs.test_bulk_kill import Written, written

from facedex.indexer.assembly import assemble_galleries
from facedex.indexer.devices import DeviceChoice
from facedex.indexer.enroller import Enroller, no_checkpoint
from facedex.indexer.errors import EngineFailed, EngineUnusable, JobTaken
from facedex.indexer.eyes import OldPicture, OwnEyes
from facedex.indexer.galleries import Galleries
from facedex.indexer.jobs import ray_crew
from facedex.indexer.jobs.bulk import BulkEnrolment
from facedex.indexer.jobs.engines import Engine, EngineKind, Sight, sight
from facedex.indexer.jobs.photograph_sources import FolderSource
from facedex.indexer.jobs.ray_crew import MOST_DEATHS, Crew, Failure, RayEyes
from facedex.indexer.policy import GalleryPolicy
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.store import Store
from facedex.indexer.vision.decode import ImageLimits
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER
from facedex.indexer.vision.workbench import available_cores

GALLERY = "staff"


# With a Ray


@pytest.fixture
def source(people: Path, tmp_path: Path) -> FolderSource:
    """Enough for a few groups, with photographs that are refused."""
    folder = tmp_path / "people"
    folder.mkdir()
    for copy in range(2):
        for person in sorted(each for each in people.iterdir() if each.name.startswith("person_"))[:10]:
            (folder / f"{copy}_{person.name}").symlink_to(person)
    (folder / "nobody").mkdir()
    (folder / "nobody" / "1.jpg").write_bytes(b"no photograph")
    return FolderSource(folder)


def galleries_in(folder: Path, store: Store) -> Galleries:
    return assemble_galleries(
        store,
        data=folder,
        detector=BUILTIN_DETECTOR,
        embedder=BUILTIN_EMBEDDER,
        limits=ImageLimits(),
        workers=available_cores(),
    )


def enrolled(
    folder: Path, source: FolderSource, kind: EngineKind, *, after_first_group: Callable[[Galleries, Sight], None]
) -> Written:
    """What stands in the database afterwards."""
    folder.mkdir()
    with closing(Store.open(sqlite_url(folder / "facedex.db"))) as store:
        galleries = galleries_in(folder, store)
        galleries.create(GALLERY, GalleryPolicy())
        gallery = galleries.get(GALLERY)
        with sight(Engine(kind), galleries, galleries.eyes(gallery)) as seen:
            bulk = BulkEnrolment(store, Enroller(gallery, seen.eyes), workers=seen.callers)
            for number, _ in enumerate(bulk.run(bulk.begin(GALLERY, source.survey()), source)):
                if number == 0:
                    after_first_group(galleries, seen)
    return written(sqlite_url(folder / "facedex.db"))


def untouched(_galleries: Galleries, _seen: Sight) -> None:
    """Nothing happens."""


def test_a_ray_whose_worker_is_killed_half_way_leaves_what_threads_leave(source: FolderSource, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    victims: list[int] = []

    def kill_one_and_embed_again(galleries: Galleries, seen: Sight) -> None:
        assert isinstance(seen.eyes, RayEyes)
        victims.append(seen.eyes.crew.processes[0])
        os.kill(victims[0], signal.SIGKILL)
        photograph = next(iter(source.items())).read()
        assert isinstance(photograph, bytes)
        own = OwnEyes(galleries.pipeline).vector_of(OldPicture(photograph), checkpoint=no_checkpoint)
        theirs = seen.eyes.vector_of(OldPicture(photograph), checkpoint=no_checkpoint)
        assert own is not None
        np.testing.assert_array_equal(own, theirs)

    undisturbed = enrolled(tmp_path / "threads", source, EngineKind.LOCAL, after_first_group=untouched)
    disturbed = enrolled(tmp_path / "ray", source, EngineKind.RAY, after_first_group=kill_one_and_embed_again)
    assert len(victims) == 1
    assert disturbed == undisturbed


def test_a_ray_that_is_not_there_is_named(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    with closing(Store.open(sqlite_url(tmp_path / "facedex.db"))) as store:
        galleries = galleries_in(tmp_path, store)
        looking = Engine(EngineKind.RAY, ray_address="127.0.0.1:9")
        with pytest.raises(EngineUnusable, match=r"no Ray at 127\.0\.0\.1:9"):
            sight(looking, galleries, OwnEyes(galleries.pipeline)).__enter__()


def test_where_ray_is_not_installed_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(EngineUnusable, match=r"pip install 'facedex\[server,ray\]'"),
        ray_crew.ray_sight(SimpleNamespace(), address=None, device=DeviceChoice.CPU),  # type: ignore[arg-type]
    ):
        pass


# With a double of Ray, whose workers fail when they are told to


class WorkerDied(Exception):
    pass


class TaskFailed(Exception):
    pass


class NoAnswerYet(Exception):
    pass


class RayDouble:
    """Answers at once; a reference is a function that gives the answer, or raises."""

    exceptions = SimpleNamespace(RayActorError=WorkerDied, RayError=TaskFailed, GetTimeoutError=NoAnswerYet)

    def __init__(self) -> None:
        self.is_slow = False

    def wait(self, references: list[object], *, timeout: float) -> tuple[list[object], list[object]]:
        assert timeout > 0
        return references, []

    def get(self, reference: Callable[[], object], *, timeout: float | None = None) -> object:
        if self.is_slow and timeout is not None:
            raise NoAnswerYet
        return reference()


class Remote:
    def __init__(self, answer: Callable[..., object]) -> None:
        self._answer = answer

    def remote(self, *arguments: object) -> Callable[[], object]:
        return lambda: self._answer(*arguments)


def _same(answer: object) -> object:
    return answer


class WorkerDouble:
    """Dies when it is asked, or answers with its number."""

    def __init__(self, number: int, *, dies: bool = False, starts: bool = True) -> None:
        self.process = Remote(lambda: number if starts else self._die("facedex is not installed"))
        self.look = Remote(lambda *_: self._die("killed") if dies else [number])
        self.vector_of = Remote(_same)

    @staticmethod
    def _die(why: str) -> None:
        raise WorkerDied(why)


def crew_of(workers: Iterator[WorkerDouble], *, size: int, ray: RayDouble | None = None) -> Crew:
    return Crew(ray or RayDouble(), lambda: next(workers), size=size, callers=2)


def looked(crew: Crew, checkpoint: Callable[[], None] = no_checkpoint) -> Any:
    return RayEyes(crew).look([b""], SimpleNamespace(), checkpoint=checkpoint)  # type: ignore[arg-type]


def test_what_a_worker_had_when_it_died_is_looked_at_by_the_one_who_takes_its_place() -> None:
    crew = crew_of(iter([WorkerDouble(1, dies=True), WorkerDouble(2)]), size=1)
    assert [looked(crew), looked(crew)] == [[2], [2]]
    assert crew.processes == (2,)


def test_a_photograph_over_which_workers_die_again_and_again_ends_the_work_with_the_reason() -> None:
    crew = crew_of((WorkerDouble(number, dies=True) for number in range(MOST_DEATHS + 1)), size=1)
    with pytest.raises(EngineFailed, match="workers died over the same photograph"):
        looked(crew)


def test_workers_that_cannot_begin_end_the_work_with_the_reason() -> None:
    crew = crew_of((WorkerDouble(number, starts=False) for number in range(2)), size=2)
    with pytest.raises(EngineFailed, match="no worker is left: facedex is not installed"):
        looked(crew)


def test_an_error_of_ours_in_a_worker_is_told_as_it_is_and_the_worker_goes_on() -> None:
    crew = crew_of(iter([WorkerDouble(1)]), size=1)
    for _ in range(3):  # more often than a worker is asked at a time
        with pytest.raises(EngineFailed, match="the model is broken"):
            crew.ask("vector_of", Failure("the model is broken"), checkpoint=no_checkpoint)
    assert looked(crew) == [1]


def test_a_cancelled_enrolment_does_not_wait_for_an_answer() -> None:
    ray = RayDouble()
    crew = crew_of(iter([WorkerDouble(1)]), size=1, ray=ray)
    assert looked(crew) == [1]
    ray.is_slow = True
    asked: list[None] = []

    def checkpoint() -> None:
        asked.append(None)
        if len(asked) > 3:
            raise JobTaken(1)

    with pytest.raises(JobTaken):
        looked(crew, checkpoint)
