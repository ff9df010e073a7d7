"""Looking at photographs with the workers of a Ray."""

from __future__ import annotations

import importlib
import os
import queue
import socket
import sys
import threading
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from facedex.indexer.assembly import eyes_by
from facedex.indexer.devices import DeviceChoice
from facedex.indexer.enroller import no_checkpoint
from facedex.indexer.errors import EngineFailed, EngineUnusable, IndexerError
from facedex.indexer.jobs.engines import Sight
from facedex.indexer.vision.errors import VisionError
from facedex.indexer.vision.workbench import available_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from facedex.indexer.eyes import Look, LookRules, OldPicture
    from facedex.indexer.vision.recipe import Recipe

# How soon somebody who waits for an answer looks whether it is still wanted.
LOOK_SECONDS = 0.3
KNOCK_SECONDS = 10.0
# After so many workers have died over the same photographs, those are the reason.
MOST_DEATHS = 3
# So that bulk enrolment, which holds few photographs at a time, never has Ray write one to a disk.
MOST_BYTES_OF_A_REQUEST = 2 * 20 * 2**20

OWN_RAY: Final = {
    "automatic_object_spilling_enabled": False,
    "worker_niceness": 0,  # they give way to everything else otherwise, and here they are the work
    "task_events_report_interval_ms": 0,  # nobody looks at its dashboard
    "enable_metrics_collection": False,
}

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Post:
    """What a worker takes of the cluster, how many it answers at a time, and how many ask it, so that it never waits."""

    cores: int
    gpus: int
    at_a_time: int
    callers: int


ON_A_CORE = Post(cores=1, gpus=0, at_a_time=1, callers=2)
ON_A_GPU = Post(cores=4, gpus=1, at_a_time=16, callers=16)


class Worker:
    """What runs in a process of the Ray: it has models of its own, and knows neither database, nor keys, nor names."""

    def __init__(self, recipe: Recipe, device: DeviceChoice, cores: int) -> None:
        self._eyes = eyes_by(recipe, device, workers=cores)

    def process(self) -> int:
        """The number of its process, once it can look."""
        return os.getpid()

    def look(self, photographs: Sequence[bytes], rules: LookRules) -> list[Look] | Failure:
        return _told(lambda: self._eyes.look(photographs, rules, checkpoint=no_checkpoint))

    def vector_of(self, old: OldPicture) -> NDArray[np.float32] | Failure | None:
        return _told(lambda: self._eyes.vector_of(old, checkpoint=no_checkpoint))


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of ours as a value: most of them cannot be sent as they are."""

    message: str


def _told(work: Callable[[], Answer]) -> Answer | Failure:
    try:
        return work()
    except (IndexerError, VisionError) as error:
        return Failure(str(error))


class RayEyes:
    """Has the workers of a crew look. A worker that dies is replaced, and what it had is looked at by another."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew

    def look(self, photographs: Sequence[bytes], rules: LookRules, *, checkpoint: Callable[[], None]) -> list[Look]:
        looks: list[Look] = self.crew.ask("look", photographs, rules, checkpoint=checkpoint)
        return looks

    def vector_of(self, old: OldPicture, *, checkpoint: Callable[[], None]) -> NDArray[np.float32] | None:
        vector: NDArray[np.float32] | None = self.crew.ask("vector_of", old, checkpoint=checkpoint)
        return vector


class Crew:
    """The workers of a Ray, each of which is asked by a few at a time.

    Workers are admitted when their models are loaded. Ray is not left to restart them: one that lost its machine would
    keep what it was asked until there is room for it, which may be never.
    """

    def __init__(self, ray: Any, hire: Callable[[], Any], *, size: int, callers: int) -> None:
        """`hire` makes a worker, which may not have begun yet."""
        self._ray = ray
        self._hire = hire
        self._callers = callers
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._changing = threading.Lock()
        self._expected = 0
        self._dead: set[Any] = set()
        self._processes: dict[Any, int] = {}
        self._admitting: list[threading.Thread] = []
        self._problem = "none was started"
        self._is_ended = threading.Event()
        for _ in range(size):
            self._engage()

    def close(self) -> None:
        """Nobody is admitted any more. Before Ray is left: a thread that waits in it then would be ended."""
        self._is_ended.set()
        for thread in self._admitting:
            thread.join()

    @property
    def processes(self) -> tuple[int, ...]:
        """The numbers of the processes that look, each on its own machine."""
        with self._changing:
            return tuple(number for worker, number in self._processes.items() if worker not in self._dead)

    def ask(self, method: str, *arguments: object, checkpoint: Callable[[], None]) -> Any:
        """What a worker answers.

        Raises:
            EngineFailed: no worker is left, or nobody can answer.

        """
        for _ in range(MOST_DEATHS):
            worker = self._taken(checkpoint)
            try:
                answer = self._answer(getattr(worker, method).remote(*arguments), checkpoint)
            except self._ray.exceptions.RayActorError:
                self._replace(worker)
                continue
            except self._ray.exceptions.RayError as error:
                self._idle.put(worker)
                raise EngineFailed(_first_line(error)) from None
            except BaseException:
                self._idle.put(worker)
                raise
            self._idle.put(worker)
            if isinstance(answer, Failure):
                raise EngineFailed(answer.message)
            return answer
        raise EngineFailed(f"{MOST_DEATHS} workers died over the same photograph: leave it out, or look at Ray's logs")

    def _answer(self, reference: Any, checkpoint: Callable[[], None]) -> Any:
        while True:
            try:
                return self._ray.get(reference, timeout=LOOK_SECONDS)
            except self._ray.exceptions.GetTimeoutError:
                checkpoint()

    def _taken(self, checkpoint: Callable[[], None]) -> Any:
        while True:
            checkpoint()
            if not self._expected:
                raise EngineFailed(f"no worker is left: {self._problem}")
            try:
                worker = self._idle.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            if worker not in self._dead:
                return worker

    def _engage(self) -> None:
        worker = self._hire()
        thread = threading.Thread(target=self._admit, args=(worker,), name="ray-worker", daemon=True)
        with self._changing:
            self._expected += 1
            self._admitting = [*(each for each in self._admitting if each.is_alive()), thread]
        thread.start()

    def _admit(self, worker: Any) -> None:
        process = worker.process.remote()
        while not self._ray.wait([process], timeout=LOOK_SECONDS)[0]:
            if self._is_ended.is_set():
                return
        try:
            number = self._ray.get(process)
        except Exception as error:  # noqa: BLE001  (whatever it is: this worker will not come)
            with self._changing:
                self._expected -= 1
                self._problem = _first_line(error)
            return
        with self._changing:
            self._processes[worker] = number
        for _ in range(self._callers):
            self._idle.put(worker)

    def _replace(self, worker: Any) -> None:
        """Once, however many were waiting for its answers."""
        with self._changing:
            if worker in self._dead:
                return
            self._dead.add(worker)
        self._engage()
        with self._changing:
            self._expected -= 1


@contextmanager
def ray_sight(recipe: Recipe, *, address: str | None, device: DeviceChoice) -> Generator[Sight]:
    """Sight with the workers of a Ray, which is left, or stopped where it was started here.

    Raises:
        EngineUnusable: Ray is not installed, cannot be reached, or has nothing to work with.

    """
    ray = _ray()
    post = ON_A_GPU if device is DeviceChoice.CUDA else ON_A_CORE
    _connect(ray, address, post)
    try:
        size = _places(ray, post)
        # Ray tells of a worker's death on the standard output, which is for what programs read.
        with closing(_crew(ray, recipe, device, post, size)) as crew, redirect_stdout(sys.stderr):
            yield Sight(RayEyes(crew), size * post.callers)
    finally:
        ray.shutdown()


def _crew(ray: Any, recipe: Recipe, device: DeviceChoice, post: Post, size: int) -> Crew:
    shared = ray.put(recipe)  # each machine fetches the models once
    remote = ray.remote(Worker).options(num_cpus=post.cores, num_gpus=post.gpus, max_concurrency=post.at_a_time)
    return Crew(ray, lambda: remote.remote(shared, device, post.cores), size=size, callers=post.callers)


def _connect(ray: Any, address: str | None, post: Post) -> None:
    quietly = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is not None:
            _knock(address)
            ray.init(address=address, **quietly)
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray of ours tells nobody that it runs
        cores = available_cores()
        ray.init(
            address="local",
            num_cpus=cores,
            include_dashboard=False,
            object_store_memory=cores * post.callers * MOST_BYTES_OF_A_REQUEST,
            _system_config=OWN_RAY,
            **quietly,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise EngineUnusable(f"no Ray at {address or 'this machine'}: {_first_line(error)}") from None


def _knock(address: str) -> None:
    """Ray itself would try for minutes. Raises ConnectionError, TimeoutError or ValueError."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdecimal():
        raise ValueError("give HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
    except OSError as error:
        raise ConnectionError(error.strerror or "nobody answers") from None


def _places(ray: Any, post: Post) -> int:
    """How many workers the cluster has room for."""
    resources = ray.cluster_resources()
    places = int(resources.get("GPU", 0)) if post.gpus else int(resources.get("CPU", 0)) // post.cores
    if places < 1:
        raise EngineUnusable(f"the Ray has {'no GPU' if post.gpus else 'no core'} to work with")
    return places


def _first_line(error: BaseException) -> str:
    """The last line of a traceback says what happened; those above it name files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise EngineUnusable("Ray is not installed: pip install 'facedex[server,ray]'") from None
