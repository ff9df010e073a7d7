"""A stream of enrolments that goes on is a job: others see how far it is and what was refused, and stop it."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import grpc
import pytest
from tests.server.faces import VectorMaker, enrol_request
from tests.server.running_server import Wire, refusal
from tests.waiting import wait_until

from facedex.indexer.enrolment import Enrolment, EnrolOutcome, EnrolReason, EnrolResult, Finding
from facedex.indexer.errors import JobTaken, RequestIdReused, StoreUnavailable
from facedex.indexer.jobs.runner import HEARTBEAT_SECONDS, JobRunner
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.records import JobState
from facedex.indexer.store.store import Store
from facedex.server.enrol_stream import Answer
from facedex.server.stream_job import StreamJob, stream_job
from facedex.v1 import enrolment_pb2, operations_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from facedex.indexer.store.records import JobRecord, LedgerMark

BAD_ONE = 1
GOOD = Answer("1", Enrolment("ada", (EnrolResult(EnrolOutcome.ENROLLED, 1),)))
BAD = Answer(
    "2", Enrolment("eve", (EnrolResult(EnrolOutcome.REFUSED, refusals=(Finding(EnrolReason.NO_FACE, "no face"),)),))
)
WRONG = Answer("3", RequestIdReused())


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(sqlite_url(tmp_path / "facedex.db"))) as store:
        yield store


class Stream:
    """A stream's job, with a clock that is set by hand."""

    def __init__(self, store: Store) -> None:
        self.clock = Clock()
        self.store = store
        self.job = StreamJob(store, clock=self.clock)
        assert len(list(self.job.watched(iter([enrol_request("staff", "ada")])))) == 1

    def note(self, *answers: Answer) -> JobRecord:
        """As many answers, the last of them so late that it is written."""
        for each in answers[:-1]:
            self.job.note(each)
        self.clock.seconds += HEARTBEAT_SECONDS
        self.job.note(answers[-1])
        return self.row()

    def row(self) -> JobRecord:
        (row,) = self.store.jobs()
        return row


def test_a_stream_that_is_soon_over_leaves_no_row(store: Store) -> None:
    with stream_job(store) as job:
        job.note(GOOD)
    assert store.jobs() == []


def test_a_long_stream_tells_how_far_it_is_and_what_was_refused(store: Store) -> None:
    stream = Stream(store)
    row = stream.note(GOOD, BAD, WRONG, GOOD)
    assert (row.kind, row.gallery, row.state, row.position) == ("enrol-stream", "staff", JobState.RUNNING, 4)
    assert row.result == {"enrolled": 2, "already_enrolled": 0, "refused": 1, "failed": 1}
    assert stream.note(BAD).position == 5
    stream.job.end(JobState.DONE)
    assert (stream.row().state, stream.row().progress) == (JobState.DONE, 1.0)
    findings = [(each.position, each.is_refusal, each.reason) for each in store.bulk_findings(stream.row())]
    assert findings == [(1, True, "no_face"), (2, True, "request_id_reused"), (4, True, "no_face")]


def test_an_idle_stream_shows_that_it_lives_and_learns_that_it_is_cancelled(store: Store) -> None:
    stream = Stream(store)
    stream.job.idle()
    assert store.jobs() == []  # nobody was enrolled yet
    stream.job.note(GOOD)
    stream.job.idle()
    first = stream.row()
    assert (first.state, first.position) == (JobState.RUNNING, 1)
    stream.job.idle()
    assert stream.row().heartbeat_at > first.heartbeat_at
    store.cancel_job(first.id)
    with pytest.raises(JobTaken):
        stream.job.idle()


def test_a_stream_that_breaks_off_is_noted_as_failed(store: Store) -> None:
    stream = Stream(store)
    stream.note(GOOD)
    stream.job.note(BAD)
    stream.job.end(JobState.FAILED, error="the stream was broken off")
    row = stream.row()
    assert (row.state, row.position, row.error) == (JobState.FAILED, 2, "the stream was broken off")


def test_a_cancelled_stream_is_told_at_its_next_mark(store: Store) -> None:
    stream = Stream(store)
    store.cancel_job(stream.note(GOOD).id)
    with pytest.raises(JobTaken):
        stream.note(GOOD)


def note_and_cancel(store: Store, job: StreamJob) -> None:
    """Somebody cancels the job of a stream that has just been marked."""
    assert len(list(job.watched(iter([enrol_request("staff", "ada")])))) == 1
    job._written_at = -HEARTBEAT_SECONDS
    job.note(GOOD)
    store.cancel_job(store.jobs()[0].id)


def test_a_stream_that_is_cancelled_after_its_last_mark_ends_as_cancelled(store: Store) -> None:
    with pytest.raises(JobTaken), stream_job(store) as job:
        note_and_cancel(store, job)
    assert [row.state for row in store.jobs()] == [JobState.CANCELLED]


def test_a_stream_that_breaks_off_after_it_was_cancelled_ends_as_cancelled(store: Store) -> None:
    def stream() -> None:
        with stream_job(store) as job:
            note_and_cancel(store, job)
            raise ConnectionError("hung up")

    with pytest.raises(ConnectionError, match="hung up"):
        stream()
    assert [row.state for row in store.jobs()] == [JobState.CANCELLED]


def test_no_server_takes_a_stream_up(store: Store) -> None:
    Stream(store).note(GOOD)
    assert JobRunner(store, {}).run_one() is None


@pytest.mark.parametrize("is_committed", [True, False])
def test_a_database_that_is_away_costs_neither_the_stream_nor_a_finding(
    store: Store, monkeypatch: pytest.MonkeyPatch, *, is_committed: bool
) -> None:
    stream = Stream(store)
    stream.note(GOOD)
    put_mark, failures = store.put_mark, iter([True])

    def shaky(mark: LedgerMark) -> None:
        fails = next(failures, False)
        if is_committed or not fails:
            put_mark(mark)
        if fails:
            raise StoreUnavailable("away")

    monkeypatch.setattr(store, "put_mark", shaky)
    stream.note(BAD)
    assert stream.note(BAD).position == 3
    assert [each.position for each in store.bulk_findings(stream.row())] == [1, 2]


# Over the wire


def test_a_stream_under_way_is_listed_and_cancelled(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    may_send = threading.Semaphore(1)

    def requests() -> Iterator[enrolment_pb2.EnrolStreamRequest]:
        number = 0
        while may_send.acquire(timeout=60):
            vector = vectors.vector(number)
            if number == BAD_ONE:
                vector.model_digest = "ab" * 32
            yield enrolment_pb2.EnrolStreamRequest(enrol=enrol_request(gallery, f"p{number}", vector))
            number += 1

    answers = wire.enrolment.EnrolStream(requests())
    running: list[operations_pb2.Job] = []

    def is_listed() -> bool:
        may_send.release()
        assert next(answers).HasField("enrolled")
        (newest,) = wire.operations.ListJobs(operations_pb2.ListJobsRequest(page_size=1)).jobs or [operations_pb2.Job()]
        running[:] = [newest]
        is_running = newest.kind == "enrol-stream" and newest.state == operations_pb2.JOB_STATE_RUNNING
        return is_running and newest.done_count > BAD_ONE

    wait_until(is_listed)
    assert running[0].gallery == gallery
    assert json.loads(running[0].result)["enrolled"] == running[0].done_count - 1
    wire.operations.CancelJob(operations_pb2.CancelJobRequest(id=running[0].id))
    may_send.release(1_000_000)  # more than are enrolled between two heartbeats
    refused = refusal(lambda: list(answers))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "JOB_TAKEN")
    ended = wire.operations.GetJob(operations_pb2.GetJobRequest(id=running[0].id)).job
    assert ended.state == operations_pb2.JOB_STATE_CANCELLED
    (finding,) = wire.operations.ListJobFindings(operations_pb2.ListJobFindingsRequest(id=running[0].id)).findings
    assert (finding.position, finding.is_refusal, finding.reason) == (BAD_ONE, True, "wrong_model")
