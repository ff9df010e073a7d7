"""`kill -9` of an import: whoever goes on leaves what an undisturbed import leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, delete
from tests.indexer.archive.moving import held
from tests.indexer.doubles import MODEL
from tests.indexer.erasure_site import made_template

from facedex.indexer.archive.exporting import Exporter
from facedex.indexer.archive.importing import GROUP_PEOPLE
from facedex.indexer.policy import GalleryPolicy, policy_to_json
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.enrolling import EnrolmentEntry
from facedex.indexer.store.records import IdentityDetails, JobState, NewEnrolment
from facedex.indexer.store.schema import template
from facedex.indexer.store.store import Store

PROGRAM = Path(sys.executable).parent / "facedex-index"
PEOPLE = 5 * GROUP_PEOPLE + 7
# Each a commit of a run of its own: of the gallery; of the first group; of the third, twice; and of the end of the job.
STEPS = ("before-commit:4", "after-commit:4", "before-commit:4", "after-commit:3", "before-commit:6")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    with closing(Store.open(sqlite_url(folder / "facedex.db"))) as store:
        gallery = store.create_gallery("staff", model=MODEL, policy=policy_to_json(GalleryPolicy()))
        templates = [replace(made_template(str(number), 0), crop=None) for number in range(PEOPLE)]
        store.enrol_all(
            gallery,
            [
                EnrolmentEntry(NewEnrolment(IdentityDetails(f"person {number}"), MODEL.digest, (each,)))
                for number, each in enumerate(templates)
            ],
        )
        Exporter(store, passphrase=None).gallery("staff", folder / "staff.zip", lambda _share: None)
    return folder / "staff.zip"


def begin(archive: Path, database_url: str, data: Path, *, failpoint: str = "") -> subprocess.Popen[bytes]:
    command: list[str | Path] = [PROGRAM, "--data", data, "--database", database_url, "import", archive, "--json"]
    environment = {**os.environ, "FACEDEX_FAILPOINT": failpoint}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def finish(process: subprocess.Popen[bytes]) -> Any:
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors.decode()
    return json.loads(output)


def written(database_url: str) -> list[Any]:
    """People and templates in their order, and how the jobs ended; PostgreSQL leaves out the numbers of what was killed."""
    with closing(Store.open(database_url)) as store:
        jobs = [(each.state, each.position, each.result) for each in store.jobs()]
        assert store.gallery("staff").revision == PEOPLE
        return [*held(store), *jobs]


@pytest.fixture(scope="module")
def undisturbed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    data = tmp_path_factory.mktemp("undisturbed")
    url = sqlite_url(data / "facedex.db")
    assert finish(begin(archive, url, data))["new"] == PEOPLE
    return written(url)


@pytest.mark.timeout(240)
def test_a_killed_import_goes_on_to_what_an_undisturbed_one_leaves(
    archive: Path, undisturbed: list[Any], database_url: str, tmp_path: Path
) -> None:
    for step in STEPS:
        process = begin(archive, database_url, tmp_path, failpoint=step)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    document = finish(begin(archive, database_url, tmp_path))
    assert (document["new"], document["unchanged"]) == (PEOPLE, 0)
    assert written(database_url) == undisturbed
    assert undisturbed[-1][:2] == (JobState.DONE, PEOPLE)


def test_the_comparison_notices_a_template_that_is_missing(
    archive: Path, undisturbed: list[Any], tmp_path: Path
) -> None:
    url = sqlite_url(tmp_path / "facedex.db")
    finish(begin(archive, url, tmp_path))
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(delete(template).where(template.c.id == 300))
    engine.dispose()
    assert written(url) != undisturbed
