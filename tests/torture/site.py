"""A server over one database: kill it, start it again, and hold it to its word."""

from __future__ import annotations

import itertools
import random
import shutil
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tests.server.faces import VectorMaker
from tests.server.running_server import CALL_SECONDS, Wire
from tests.torture.inquest import BYSTANDER, Depth, Inquest
from tests.torture.load import Caller
from tests.torture.nursery import Nursery, Order

from facedex.indexer.failpoints import Step
from facedex.indexer.store.records import IdentityDetails, NewEnrolment, NewTemplate
from facedex.indexer.store.store import Store
from facedex.v1 import enrolment_pb2, gallery_pb2

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.torture.ledger import Problem

GALLERY = "staff"
CALLERS = 3
LONGEST_LOAD_SECONDS = 0.25
LATEST_DEATH_SECONDS = 60.0
"""It is over as soon as the server is dead; a rebuild beside callers on a busy machine may take long."""
LARGE_PAUSE_SECONDS = 0.02
"""Of a caller, between its calls: what tends a large index in the background gets to its step beside them."""
LONGEST_START_SECONDS = 0.25
EVERYBODY_EVERY = 100
LARGE_STEP_CHANCE = 0.8
MOST_CHANGES, MOST_ERASURES = 40, 6
"""A change, or an erasure, that is killed is one of the first so many after a start."""
CROWD_FACES = 13_200
"""So many that the index has segments, a snapshot is worth writing, and blocks are sealed at a start without one."""
FACES_PER_REQUEST = 100


class Manner(Enum):
    """When the server is killed."""

    MOMENT = "at a random moment under load"
    STEP = "at a fail-point"
    START = "at a random moment of its start"


CHANGE_STEPS = (Step.BEFORE_COMMIT, Step.AFTER_COMMIT, Step.AFTER_APPLY, Step.BEFORE_REPLY)
ERASURE_STEPS = (Step.BEFORE_JOURNAL, Step.BEFORE_RECEIPT)
REBUILD_STEPS = (Step.BEFORE_REBUILD_SWAP, Step.AFTER_REBUILD_SWAP)
SNAPSHOT_STEPS = (Step.SNAPSHOT_BEGUN, Step.SNAPSHOT_WRITTEN, Step.SNAPSHOT_RENAMED)
SEAL_STEPS = (Step.BEFORE_SEAL_SWAP, Step.AFTER_SEAL_SWAP)
LARGE_STEPS = (*REBUILD_STEPS, *SNAPSHOT_STEPS, *SEAL_STEPS)


@dataclass(slots=True)
class Tally:
    """What came of the kills."""

    kills: int = 0
    at_steps: dict[str, int] = field(default_factory=dict)
    missed_steps: int = 0
    """Fail-points that were not reached in time; the server was killed all the same."""
    answers: int = 0
    problems: list[Problem] = field(default_factory=list)

    def count_step(self, step: Step) -> None:
        self.at_steps[step.value] = self.at_steps.get(step.value, 0) + 1


class Site:
    """One database with one gallery, callers who know what they were told, and a server that is killed."""

    def __init__(self, folder: Path, database: str, nursery: Nursery, *, seed: int, store: str = "honest") -> None:
        self.tally = Tally()
        self._nursery = nursery
        self.order = Order(str(folder), database, store=store)
        self._index_folder = folder / "index"
        self._random = random.Random(seed)
        self._is_large = False
        self._large_steps = itertools.cycle(LARGE_STEPS)
        with self.running(replace(self.order, store="honest")) as wire:
            wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name=GALLERY)))
            embedder = wire.info().embedder
        self._vectors = VectorMaker(dimension=embedder.dimension, model_digest=embedder.digest)
        self.callers = [
            Caller(f"{seed}-{number}", GALLERY, self._vectors, seed=100 * seed + number) for number in range(CALLERS)
        ]

    def add_crowd(self) -> None:
        """Enrols a crowd that makes the index large: it is sealed, saved and rebuilt as those of large galleries are."""
        directions = np.random.default_rng(1).standard_normal((CROWD_FACES, self._vectors.dimension))
        rows = (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)
        with self.running() as wire:
            for start in range(0, CROWD_FACES, FACES_PER_REQUEST):
                wire.enrolment.Enrol(self._crowd_request(start, rows), timeout=CALL_SECONDS)
        self._is_large = True

    def _crowd_request(self, start: int, rows: np.ndarray) -> enrolment_pb2.EnrolRequest:
        vectors = [self._vectors.of(row) for row in rows[start : start + FACES_PER_REQUEST]]
        return enrolment_pb2.EnrolRequest(
            gallery=GALLERY,
            identity=enrolment_pb2.Identity(id=f"{BYSTANDER}-{start}"),
            items=[enrolment_pb2.EnrolItem(vector=each) for each in vectors],
            duplicate_action=gallery_pb2.GUARD_ACTION_ALLOW,
            mislabel_action=gallery_pb2.GUARD_ACTION_ALLOW,
        )

    # One kill

    def cycle(self, manner: Manner, step: Step | None = None, number: int = 1) -> list[Problem]:
        """Kills once, in one of the manners, starts again and checks; a step is needed for `Manner.STEP`."""
        if manner is Manner.START:
            self._kill_while_starting()
        elif manner is Manner.STEP and step is not None:
            self.kill_at(step, number)
        else:
            self._kill_under_load()
        self.tally.kills += 1
        return self.check()

    def random_cycle(self) -> list[Problem]:
        """The next one by chance."""
        manner = self._random.choices(list(Manner), [45, 45, 10])[0]
        if manner is not Manner.STEP:
            return self.cycle(manner)
        if self._is_large and self._random.random() < LARGE_STEP_CHANCE:
            return self.cycle(manner, next(self._large_steps))
        step = self._random.choice((*CHANGE_STEPS, *ERASURE_STEPS))
        most = MOST_ERASURES if step in ERASURE_STEPS else MOST_CHANGES
        return self.cycle(manner, step, self._random.randint(1, most))

    def load(self, *, seconds: float) -> None:
        """Lets the callers do what they do for some time."""
        with self.running() as wire, self._load(wire):
            time.sleep(seconds)

    def kill_at(self, step: Step, number: int = 1) -> None:
        """Lets the server die at a step; where it does not get there in time, it is killed all the same."""
        if step in LARGE_STEPS:
            self._make_due(step)
        born = self._nursery.start(replace(self.order, failpoint=f"{step.value}:{number}"))
        pause = LARGE_PAUSE_SECONDS if step in LARGE_STEPS else 0.0
        if born.address:
            with Wire(born.address) as wire, self._load(wire, pause_seconds=pause):
                self._wait_for_death(step)
        if self._nursery.kill_if_alive():
            self.tally.missed_steps += 1
        else:
            self.tally.count_step(step)

    def check(self, depth: Depth | None = None) -> list[Problem]:
        """Starts a server, asks it about everybody, and kills it without more ado."""
        if depth is None:
            depth = Depth.EVERYBODY if self.tally.kills % EVERYBODY_EVERY == 0 else Depth.TOUCHED
        with self.running() as wire:
            inquest = Inquest(wire, GALLERY, self.callers, chance=self._random)
            found = inquest.problems(depth)
            if self.order.store == "honest":  # a hasty one keeps its transactions open, and nobody can examine it
                found += inquest.examination(depth)
        self.tally.problems += found
        return found

    def _kill_while_starting(self) -> None:
        self._nursery.send(self.order)
        time.sleep(self._random.uniform(0, LONGEST_START_SECONDS))
        self._nursery.kill()

    def _kill_under_load(self) -> None:
        born = self._nursery.start(self.order)
        with Wire(born.address) as wire, self._load(wire):
            time.sleep(self._random.uniform(0, LONGEST_LOAD_SECONDS))
            self._nursery.kill()

    def _make_due(self, step: Step) -> None:
        """Makes what has this step happen soon."""
        if step in SEAL_STEPS:
            shutil.rmtree(self._index_folder, ignore_errors=True)  # a cache may be lost at any time
        if step in SNAPSHOT_STEPS:
            self._erase_passer_by()  # a snapshot that holds somebody who is erased is written anew

    def _wait_for_death(self, step: Step) -> None:
        deadline = time.monotonic() + LATEST_DEATH_SECONDS
        if step in REBUILD_STEPS:
            self._request_rebuild()
        while not self._nursery.is_dead() and time.monotonic() < deadline:
            time.sleep(0.002)

    def _request_rebuild(self) -> None:
        """As `facedex-index rebuild` beside the server does."""
        with closing(Store.open(self.order.database)) as store:
            store.request_rebuild(store.gallery(GALLERY))

    def _erase_passer_by(self) -> None:
        """As another process over the same database may do."""
        with closing(Store.open(self.order.database)) as store:
            gallery = store.gallery(GALLERY)
            face = NewTemplate(self._vectors.components(0), "00" * 32)
            details = IdentityDetails(f"{BYSTANDER}-passing")
            store.enrol(gallery, NewEnrolment(details, gallery.model.digest, (face,)))
            store.delete_identity(gallery, details.external_id)

    @contextmanager
    def _load(self, wire: Wire, *, pause_seconds: float = 0.0) -> Generator[None]:
        stop = threading.Event()
        threads = [
            threading.Thread(target=each.call_until_dead, args=(wire, stop, pause_seconds)) for each in self.callers
        ]
        before = sum(each.answers for each in self.callers)
        for thread in threads:
            thread.start()
        yield
        stop.set()
        for thread in threads:
            thread.join()
        self.tally.answers += sum(each.answers for each in self.callers) - before

    @contextmanager
    def running(self, order: Order | None = None) -> Generator[Wire]:
        """A server that is killed in the end."""
        born = self._nursery.start(order or self.order)
        if not born.address:
            raise AssertionError("the server did not start; its log says why")
        try:
            with Wire(born.address) as wire:
                yield wire
        finally:
            self._nursery.kill()
