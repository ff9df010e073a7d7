"""Jobs outlive the process that began them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.indexer.conftest import House

from facedex.indexer.errors import InvalidArgument, JobNotFound, StoreUnavailable
from facedex.indexer.jobs import runner
from facedex.indexer.jobs.runner import SILENCE, JobRunner, Work
from facedex.indexer.store.records import JobRecord, JobState

Report = Callable[[float], None]
WAIT_SECONDS = 20


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.02)


def add(job: JobRecord, report: Report) -> dict[str, Any]:
    report(0.5)
    return {"sum": sum(job.arguments["numbers"])}


class Slow:
    """Work that goes on until it is stopped."""

    def __init__(self) -> None:
        self.begun = threading.Event()

    def __call__(self, _job: JobRecord, report: Report) -> dict[str, Any]:
        pause = threading.Event()
        while True:
            report(0.25)
            self.begun.set()
            pause.wait(0.01)


def runner_of(house: House, **works: Work) -> JobRunner:
    return JobRunner(house.store, works)


def test_a_job_is_done_and_says_what_came_out(house: House) -> None:
    job = house.store.create_job("add", "staff", {"numbers": [1, 2, 3]})
    assert job.state is JobState.WAITING
    assert runner_of(house, add=add).run_one() is not None
    done = house.store.job(job.id)
    assert (done.state, done.progress, done.result) == (JobState.DONE, 1.0, {"sum": 6})
    assert runner_of(house, add=add).run_one() is None


def test_jobs_are_done_in_the_order_in_which_they_were_asked_for(house: House) -> None:
    numbers = [house.store.create_job("add", "staff", {"numbers": [number]}).id for number in range(3)]
    jobs = runner_of(house, add=add)
    taken = [each.id for each in (jobs.run_one(), jobs.run_one(), jobs.run_one()) if each]
    assert taken == numbers


def test_a_job_that_fails_says_why(house: House) -> None:
    def refuse(_job: JobRecord, _report: Report) -> dict[str, Any]:
        raise InvalidArgument("numbers", "are missing")

    def break_down(_job: JobRecord, _report: Report) -> dict[str, Any]:
        raise RuntimeError("a secret detail")

    first, second, third = (house.store.create_job(kind, "staff", {}) for kind in ("refuse", "break_down", "unknown"))
    jobs = runner_of(house, refuse=refuse, break_down=break_down)
    for _ in range(3):
        jobs.run_one()
    errors = [house.store.job(each.id).error for each in (first, second, third)]
    assert all(house.store.job(each.id).state is JobState.FAILED for each in (first, second, third))
    assert errors[0] == "numbers: are missing"
    assert "RuntimeError" in errors[1]
    assert "secret" not in errors[1]
    assert "knows no job" in errors[2]


def test_a_job_that_fails_with_the_database_tells_callers_not_where_it_is(house: House) -> None:
    def lose(_job: JobRecord, _report: Report) -> dict[str, Any]:
        raise StoreUnavailable('connection failed: server at "10.0.0.5" refused user "facedex"')

    job = house.store.create_job("lose", "staff", {})
    runner_of(house, lose=lose).run_one()
    told = house.store.job(job.id).error
    assert "connection failed" in told
    assert "10.0.0.5" not in told


def test_a_job_under_way_tells_how_far_it_is_and_can_be_cancelled(house: House) -> None:
    slow = Slow()
    job = house.store.create_job("slow", "staff", {})
    working = threading.Thread(target=runner_of(house, slow=slow).run_one)
    working.start()
    assert slow.begun.wait(WAIT_SECONDS)
    house.store.cancel_job(job.id)
    working.join(WAIT_SECONDS)
    ended = house.store.job(job.id)
    assert (ended.state, ended.progress) == (JobState.CANCELLED, 0.25)


def test_a_job_that_waits_is_cancelled_at_once(house: House) -> None:
    job = house.store.create_job("add", "staff", {"numbers": []})
    assert house.store.cancel_job(job.id).state is JobState.CANCELLED
    assert runner_of(house, add=add).run_one() is None


def test_a_job_that_is_done_stays_done(house: House) -> None:
    job = house.store.create_job("add", "staff", {"numbers": []})
    runner_of(house, add=add).run_one()
    assert house.store.cancel_job(job.id).state is JobState.DONE


def test_a_job_that_ended_is_not_cancelled_by_who_saw_it_silent(house: House) -> None:
    house.store.create_job("add", "staff", {"numbers": [1]})
    runner_of(house, add=add).run_one()
    (done,) = house.store.jobs()
    house.store.finish_job(done, JobState.CANCELLED)
    assert house.store.job(done.id) == done


def test_a_runner_that_stops_gives_its_job_back(house: House) -> None:
    slow = Slow()
    job = house.store.create_job("slow", "staff", {})
    jobs = runner_of(house, slow=slow)
    jobs.start()
    assert slow.begun.wait(WAIT_SECONDS)
    jobs.stop()
    assert house.store.job(job.id).state is JobState.WAITING


def test_the_job_of_a_process_that_died_is_begun_again_by_another(house: House) -> None:
    job = house.store.create_job("add", "staff", {"numbers": [4]})
    dead = house.store.claim_job("a process that died", silence=SILENCE)
    assert dead is not None
    assert runner_of(house, add=add).run_one() is None
    house.clock.advance(seconds=SILENCE.total_seconds() + 1)
    assert runner_of(house, add=add).run_one() is not None
    assert house.store.job(job.id).result == {"sum": 4}


def test_who_lost_a_job_cannot_end_it(house: House) -> None:
    job = house.store.create_job("add", "staff", {"numbers": []})
    first = house.store.claim_job("first", silence=SILENCE)
    house.clock.advance(hours=1)
    second = house.store.claim_job("second", silence=SILENCE)
    assert first is not None
    assert second is not None
    assert not house.store.report_progress(first, 0.9)
    house.store.finish_job(first, JobState.DONE, result={"from": "first"})
    assert house.store.job(job.id).state is JobState.RUNNING
    house.store.finish_job(second, JobState.DONE, result={"from": "second"})
    assert house.store.job(job.id).result == {"from": "second"}


def test_jobs_are_listed_with_the_newest_first(house: House) -> None:
    numbers = [house.store.create_job("add", "staff", {}).id for _ in range(5)]
    page = house.store.jobs(limit=3)
    rest = house.store.jobs(before=page[-1].id, limit=3)
    assert [job.id for job in (*page, *rest)] == numbers[::-1]


def test_a_job_that_does_not_exist_is_not_found(house: House) -> None:
    with pytest.raises(JobNotFound):
        house.store.job(7)
    with pytest.raises(JobNotFound):
        house.store.cancel_job(7)


def test_silence_is_longer_than_the_time_between_two_signs_of_life() -> None:
    assert timedelta(seconds=5 * runner.HEARTBEAT_SECONDS) < SILENCE
