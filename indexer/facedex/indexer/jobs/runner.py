"""Long-running work that outlives a restart: rows of the store, taken up by whichever process has time."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from facedex.indexer.errors import EngineUnavailable, IndexerError, StoreUnavailable
from facedex.indexer.jobs.owner import this_process
from facedex.indexer.store.records import JobRecord, JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from facedex.indexer.store.store import Store

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 2.0
# A process that says nothing for so long is taken for dead, and its job is begun again by another.
SILENCE = timedelta(seconds=30)
POLL_SECONDS = 0.5


class Work(Protocol):
    """What is done for a kind of job."""

    def __call__(self, job: JobRecord, report: Callable[[float], None], /) -> dict[str, Any]:
        """Does it, reports progress from 0 to 1, and returns the result as a JSON document."""
        ...


class JobStopped(Exception):
    """Raised inside the work of a job that was cancelled, or whose process ends."""


class JobRunner:
    """Does one job after the other in a thread of its own.

    `works` says for each kind of job what is done. A job may be begun again from its start, so its work must bear being
    done twice.
    """

    def __init__(self, store: Store, works: Mapping[str, Work]) -> None:
        self._store = store
        self._works = works
        self._owner = this_process()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Interrupts the job under way and gives it back."""
        self._stopping.set()
        self._thread.join()

    def run_one(self) -> JobRecord | None:
        """Takes up one job, if there is one, and returns it as it was taken up."""
        job = self._store.claim_job(self._owner, silence=SILENCE)
        if job is not None:
            _Attempt(self._store, job, self._stopping).do(self._works.get(job.kind))
        return job

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                done = self.run_one()
            except StoreUnavailable:
                done = None  # the follower tells of the trouble; the job is taken up again
            except Exception:
                logger.exception("a job could not be worked on")
                done = None
            if done is None:
                self._stopping.wait(POLL_SECONDS)


class _Attempt:
    """One job in work, with a sign of life every few seconds."""

    def __init__(self, store: Store, job: JobRecord, stopping: threading.Event) -> None:
        self._store = store
        self._job = job
        self._stopping = stopping
        self._cancelled = threading.Event()
        self._progress = 0.0

    def do(self, work: Work | None) -> None:
        if work is None:
            self._finish(JobState.FAILED, error=f"this version knows no job of kind {self._job.kind}")
            return
        with ThreadPoolExecutor(1, thread_name_prefix="job") as thread:
            future = thread.submit(work, self._job, self._report)
            while not wait([future], timeout=HEARTBEAT_SECONDS).done:
                self._show_life()
        self._conclude(future)

    def _report(self, progress: float) -> None:
        if self._cancelled.is_set() or self._stopping.is_set():
            raise JobStopped
        self._progress = min(1.0, max(self._progress, progress))

    def _show_life(self) -> None:
        try:
            if not self._store.report_progress(self._job, self._progress):
                self._cancelled.set()
        except StoreUnavailable:
            logger.warning("job %d cannot tell how far it is: the database cannot be reached", self._job.id)

    def _conclude(self, future: Future[dict[str, Any]]) -> None:
        try:
            result = future.result()
        except JobStopped:
            self._give_up()
        except (StoreUnavailable, EngineUnavailable) as error:
            logger.warning("job %d failed: %s", self._job.id, error)
            self._finish(JobState.FAILED, error=error.told_to_callers)
        except IndexerError as error:
            self._finish(JobState.FAILED, error=str(error))
        except Exception as error:
            logger.exception("job %d failed", self._job.id)
            self._finish(JobState.FAILED, error=f"unexpected {type(error).__name__}; the server's log says where")
        else:
            self._finish(JobState.DONE, result=result)

    def _give_up(self) -> None:
        if self._cancelled.is_set():
            self._finish(JobState.CANCELLED)
        else:
            self._store.release_job(self._job)

    def _finish(self, state: JobState, *, result: dict[str, Any] | None = None, error: str = "") -> None:
        self._store.finish_job(self._job, state, result=result, error=error)
        logger.info("job %d (%s) is %s", self._job.id, self._job.kind, state.value)
