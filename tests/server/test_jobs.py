"""Jobs, seen and cancelled from either side: a server, `facedex`, and `facedex-index` beside it, as real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.server.conftest import StartServer
from tests.server.running_server import COMMANDS, RunningServer, Wire, refusal
from tests.waiting import wait_until

from facedex.v1 import calibration_pb2, gallery_pb2, operations_pb2

GALLERY = "staff"
# Generous: other work may keep the machine's cores busy.
UNDER_WAY_SECONDS = 60
# A second or two are promised; a busy machine may take longer to give a process its turn.
STOP_SECONDS = 10
# Of the command that cancels.
START_SECONDS = 20


@dataclass
class Site:
    """A data folder with a server on it, and the commands beside it."""

    server: RunningServer
    wire: Wire
    database_url: str

    def index(self, *arguments: object) -> Any:
        """What a command of `facedex-index` prints as JSON."""
        done = subprocess.run(self.command(*arguments, "--json"), capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    def facedex(self, *arguments: str) -> list[Any]:
        """The lines of JSON that a command of `facedex` prints."""
        command = [str(COMMANDS / "facedex"), "--server", self.server.address, *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def command(self, *arguments: object) -> list[str]:
        place = ("--data", self.server.data, "--database", self.database_url)
        return [str(each) for each in (COMMANDS / "facedex-index", *place, *arguments)]

    def begin(self, source: Path) -> subprocess.Popen[str]:
        """A bulk enrolment that is under way."""
        process = subprocess.Popen(
            self.command("enrol", source, "--gallery", GALLERY, "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: self.newest().done_count > 0, within_seconds=UNDER_WAY_SECONDS)
        return process

    def newest(self) -> operations_pb2.Job:
        jobs = self.wire.operations.ListJobs(operations_pb2.ListJobsRequest(page_size=1)).jobs
        return jobs[0] if jobs else operations_pb2.Job()

    def job(self, number: int) -> operations_pb2.Job:
        return self.wire.operations.GetJob(operations_pb2.GetJobRequest(id=number)).job

    def enrolled(self) -> int:
        return int(self.wire.galleries.GetGallery(gallery_pb2.GetGalleryRequest(name=GALLERY)).gallery.template_count)


@pytest.fixture
def site(start_server: StartServer, database_url: str) -> Iterator[Site]:
    server = start_server("--database", database_url)
    with Wire(server.address) as wire:
        yield Site(server, wire, database_url)


@pytest.fixture(scope="module")
def crowd(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many photographs that enrolling them takes longer than any test."""
    folder = tmp_path_factory.mktemp("crowd")
    for copy in range(40):
        for person in sorted(each for each in people.iterdir() if each.name.startswith("person")):
            (folder / f"{copy}_{person.name}").symlink_to(person)
    (folder / "0_nobody").mkdir()
    (folder / "0_nobody" / "1.jpg").write_bytes(b"no photograph")
    return folder


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=STOP_SECONDS)
    return process.returncode, out, errors


Cancel = Callable[[Site, int], object]


def by_the_server(site: Site, number: int) -> None:
    site.wire.operations.CancelJob(operations_pb2.CancelJobRequest(id=number))


def by_facedex(site: Site, number: int) -> None:
    site.facedex("jobs", "cancel", str(number))


def by_facedex_index(site: Site, number: int) -> None:
    assert site.index("jobs", "cancel", number)["state"] == "cancelled"


@pytest.mark.parametrize("cancel", [by_facedex, by_facedex_index])
def test_a_bulk_enrolment_shows_everywhere_and_stops_in_good_order_whoever_cancels_it(
    site: Site, crowd: Path, cancel: Cancel
) -> None:
    process = site.begin(crowd)
    running = site.newest()
    assert (running.kind, running.gallery, running.state) == ("enrol", GALLERY, operations_pb2.JOB_STATE_RUNNING)
    assert 0 < running.progress < 1
    assert running.owner.endswith(f":{process.pid}")
    started = time.monotonic()
    cancel(site, running.id)
    code, out, errors = ended(process)
    assert time.monotonic() - started < STOP_SECONDS + START_SECONDS
    assert (code, "was cancelled; what is enrolled stays" in errors, "Traceback" in errors) == (130, True, False)
    counts = json.loads(out)
    job = site.job(running.id)
    assert (job.state, job.error) == (operations_pb2.JOB_STATE_CANCELLED, "")
    assert 0 < job.done_count < job.item_count
    assert json.loads(job.result) == {name: counts[name] for name in ("enrolled", "already_enrolled", "refused")}
    wait_until(lambda: site.enrolled() == counts["enrolled"])
    (shown,) = site.facedex("jobs", "show", str(job.id))
    told = site.index("jobs", "show", job.id)
    assert (shown["state"], told["state"], counts["state"]) == ("CANCELLED", "cancelled", "cancelled")
    assert (shown["done_count"], told["done"], counts["done"]) == (job.done_count,) * 3
    refusals = [each for each in told["findings"] if each["refused"]]
    assert (refusals[0]["position"], refusals[0]["reason"]) == (0, "image_unreadable")
    assert len(refusals) == counts["refused"]


def test_a_job_whose_process_was_killed_is_told_as_abandoned_and_cancelled_at_once(
    site: Site, crowd: Path, tmp_path: Path
) -> None:
    process = site.begin(crowd)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    job = site.newest()
    assert (job.state, job.is_abandoned) == (operations_pb2.JOB_STATE_RUNNING, True)
    assert site.index("jobs", "list")[0]["is_abandoned"]
    people = subprocess.run(site.command("jobs"), capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert "abandoned" in people
    by_the_server(site, job.id)
    assert site.job(job.id).state == operations_pb2.JOB_STATE_CANCELLED
    assert site.job(job.id).done_count == job.done_count


def test_a_job_outlives_a_restart_of_the_server(site: Site, crowd: Path) -> None:
    process = site.begin(crowd)
    number = site.newest().id
    site.server.stop()
    site.server.start()
    with Wire(site.server.address) as wire:
        beside = Site(site.server, wire, site.database_url)
        before = beside.job(number).done_count
        wait_until(lambda: beside.job(number).done_count > before, within_seconds=UNDER_WAY_SECONDS)
        by_the_server(beside, number)
        assert ended(process)[0] == 130
        assert beside.job(number).state == operations_pb2.JOB_STATE_CANCELLED


def test_work_of_the_server_shows_beside_it_too(site: Site) -> None:
    site.wire.galleries.CreateGallery(gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name=GALLERY)))
    number = site.wire.calibration.Calibrate(calibration_pb2.CalibrateRequest(gallery=GALLERY)).job.id
    wait_until(lambda: site.job(number).state == operations_pb2.JOB_STATE_FAILED)
    told = site.index("jobs", "show", number)
    assert (told["kind"], told["state"], told["findings"]) == ("calibrate", "failed", [])
    assert told["error"] == site.job(number).error != ""


def test_a_job_that_there_is_not_is_one_line_and_exit_code_1(site: Site) -> None:
    missing = refusal(lambda: site.job(7))
    assert missing.code is grpc.StatusCode.NOT_FOUND
    for command in ("show", "cancel"):
        done = subprocess.run(site.command("jobs", command, 7), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.strip()) == (1, f"facedex-index: {missing.message}")
