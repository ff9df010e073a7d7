"""`kill -9` of a bulk enrolment: whoever goes on leaves what an undisturbed run leaves."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, delete, select
from sqlalchemy.exc import DBAPIError
from tests.waiting import wait_until

from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.records import JobState
from facedex.indexer.store.schema import identity, job, job_finding, template

PROGRAM = Path(sys.executable).parent / "facedex-index"
KILLS = int(os.environ.get("FACEDEX_KILLS", "3"))
GALLERY = "staff"
# Everything that a bulk enrolment writes, in the order in which it was written.
Written = list[tuple[object, ...]]


def folder_of(people: Path, folder: Path) -> Path:
    """Some of the sample people under several names each, so that it takes longer than all kills, and no photographs."""
    for copy in range(max(4, KILLS)):
        for person in sorted(each for each in people.iterdir() if each.is_dir())[:12]:
            (folder / f"{copy}_{person.name}").symlink_to(person)
    (folder / "nobody").mkdir()
    for number in range(5):
        (folder / "nobody" / f"{number}.jpg").write_bytes(b"no photograph")
    return folder


def begin(source: Path, database_url: str, data: Path) -> subprocess.Popen[bytes]:
    command: list[str | Path] = [
        PROGRAM,
        "--data",
        data,
        "--database",
        database_url,
        "enrol",
        source,
        "--gallery",
        GALLERY,
        "--json",
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors.decode()


def written(database_url: str) -> Written:
    people = (
        select(identity.c.external_id, template.c.source_digest, template.c.quality)
        .join(identity, identity.c.id == template.c.identity_id)
        .order_by(template.c.id)
    )
    findings = select(job_finding.c.position, job_finding.c.is_refusal, job_finding.c.reason, job_finding.c.message)
    ended = select(job.c.state, job.c.position, job.c.result)
    engine = create_engine(database_url)
    with engine.connect() as connection:
        rows = [
            tuple(row)
            for query in (people, findings.order_by(job_finding.c.position, job_finding.c.place), ended)
            for row in connection.execute(query)
        ]
    engine.dispose()
    return rows


def position(database_url: str) -> int:
    engine = create_engine(database_url)
    with engine.connect() as connection:
        number = connection.execute(select(job.c.position)).scalar() or 0
    engine.dispose()
    return int(number)


def progress(database_url: str) -> int:
    """The position, also before there is a table."""
    try:
        return position(database_url)
    except DBAPIError:
        return 0


def is_done(database_url: str) -> bool:
    engine = create_engine(database_url)
    with engine.connect() as connection:
        states = set(connection.execute(select(job.c.state)).scalars())
    engine.dispose()
    return JobState.DONE.value in states


def kill_while_starting(source: Path, database_url: str, data: Path, *, seconds: float) -> None:
    process = begin(source, database_url, data)
    time.sleep(seconds)
    _kill(process)


def kill_under_way(source: Path, database_url: str, data: Path, *, seconds: float) -> None:
    """So long after something more was written."""
    before = progress(database_url)
    process = begin(source, database_url, data)
    wait_until(lambda: progress(database_url) > before, within_seconds=60)
    time.sleep(seconds)
    _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    assert process.poll() is None  # it was not done before
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture(scope="module")
def source(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(people, tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    data = tmp_path_factory.mktemp("undisturbed")
    url = sqlite_url(data / "facedex.db")
    finish(begin(source, url, data))
    return written(url)


@pytest.mark.timeout(120 + 30 * KILLS)
def test_a_killed_enrolment_goes_on_to_what_an_undisturbed_one_leaves(
    source: Path, undisturbed: Written, database_url: str, tmp_path: Path
) -> None:
    moments = random.Random(11)
    for number in range(KILLS):
        if number % 2:
            kill_while_starting(source, database_url, tmp_path, seconds=moments.uniform(0.2, 1))
        else:
            kill_under_way(source, database_url, tmp_path, seconds=moments.uniform(0, 0.1))
        assert not is_done(database_url)  # else the next one would begin anew, and the source is too small
    finish(begin(source, database_url, tmp_path))
    assert written(database_url) == undisturbed
    assert is_done(database_url)


def test_the_comparison_notices_a_template_that_is_missing(source: Path, undisturbed: Written, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "facedex.db")
    finish(begin(source, url, tmp_path))
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(delete(template).where(template.c.id == 7))
    engine.dispose()
    assert written(url) != undisturbed


def test_ctrl_c_ends_in_good_order_and_the_same_command_goes_on(
    source: Path, undisturbed: Written, tmp_path: Path
) -> None:
    url = sqlite_url(tmp_path / "facedex.db")
    process = begin(source, url, tmp_path)
    wait_until(lambda: progress(url) > 0, within_seconds=30)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert 0 < position(url) < len(undisturbed)
    finish(begin(source, url, tmp_path))
    assert written(url) == undisturbed
