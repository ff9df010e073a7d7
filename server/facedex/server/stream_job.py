"""The job of a stream of enrolments: others see how far it is and what was refused, and can stop it."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from facedex.indexer.enrolment import Enrolment, EnrolOutcome
from facedex.indexer.errors import JobTaken, StoreUnavailable
from facedex.indexer.jobs.bulk import findings_of
from facedex.indexer.jobs.owner import this_process
from facedex.indexer.jobs.runner import HEARTBEAT_SECONDS
from facedex.indexer.store.records import BulkFinding, JobState, LedgerMark
from facedex.server.status import failure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from facedex.indexer.store.records import JobRecord
    from facedex.indexer.store.store import Store
    from facedex.server.enrol_stream import Answer
    from facedex.v1.enrolment_pb2 import EnrolRequest

FAILED = "failed"
"""Beside the outcomes of items: requests that were answered with an error."""


class StreamJob:
    """Counts the answers of a stream, and writes them into a row every few seconds.

    A stream that is over sooner has no row: nobody could have looked at it.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._written_at = clock()
        self._gallery = ""
        self._job: JobRecord | None = None
        self._counts: Counter[str] = Counter({each.value: 0 for each in EnrolOutcome})
        self._written = 0
        # Whether the answer to the last mark was lost.
        self._is_unsure = False
        self._position = 0
        self._findings: list[BulkFinding] = []

    def watched(self, requests: Iterator[EnrolRequest]) -> Iterator[EnrolRequest]:
        """The same requests. The job bears the gallery of the first one."""
        for each in requests:
            self._gallery = self._gallery or each.gallery
            yield each

    def note(self, answer: Answer) -> None:
        """Raises JobTaken where somebody cancelled the job."""
        self._count(answer.outcome)
        self._position += 1
        if self._clock() - self._written_at >= HEARTBEAT_SECONDS:
            self._write()

    def idle(self) -> None:
        """Shows that the stream goes on, though nothing is answered. Raises JobTaken where somebody cancelled the job."""
        if self._position:
            self._write()

    def end(self, state: JobState, *, error: str = "") -> None:
        """Says what became of the stream, if it has a row."""
        if self._job is None:
            return
        with suppress(StoreUnavailable):  # then its owner falls silent, and whoever looks sees it as abandoned
            if state is not JobState.CANCELLED:
                self._put_mark(self._job)
            self._store.finish_job(self._job, state, result=dict(self._counts), error=error)

    def _count(self, outcome: Enrolment | Exception) -> None:
        if isinstance(outcome, Exception):
            failure = failure_of(outcome)
            self._counts[FAILED] += 1
            self._findings.append(BulkFinding(self._position, True, failure.reason.lower(), failure.message))  # noqa: FBT003
            return
        for result in outcome.results:
            self._counts[result.outcome.value] += 1
            self._findings += findings_of(result, self._position)

    def _write(self) -> None:
        self._written_at = self._clock()
        with suppress(StoreUnavailable):  # the next time; people go on being enrolled as far as that works
            if self._job is None:
                self._job = self._store.begin_stream(self._gallery, this_process())
            self._put_mark(self._job)

    def _put_mark(self, job: JobRecord) -> None:
        if self._is_unsure:
            written = self._store.job(job.id).position
            self._findings = [each for each in self._findings if each.position >= written]
            self._written = written
        self._is_unsure = True
        self._store.put_mark(
            LedgerMark(job, self._written, self._position, 0, dict(self._counts), tuple(self._findings))
        )
        self._written, self._findings, self._is_unsure = self._position, [], False


@contextmanager
def stream_job(store: Store) -> Generator[StreamJob]:
    """The job of a stream, from its first request to its last answer."""
    job = StreamJob(store)
    try:
        yield job
        job.end(JobState.DONE)
    except JobTaken:  # also where it was cancelled after its last heartbeat
        job.end(JobState.CANCELLED)
        raise
    except BaseException:
        try:
            job.end(JobState.FAILED, error="the stream was broken off")
        except JobTaken:
            job.end(JobState.CANCELLED)
        raise
