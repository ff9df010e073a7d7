"""Fail-points: a process dies exactly where a crash test says, and nowhere otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from tests.indexer.conftest import House
from tests.indexer.doubles import MODEL, Person, person_vector

from facedex.indexer.failpoints import VARIABLE, FailPointInvalid, Step, fail_point, nothing_fails
from facedex.indexer.gallery import Gallery
from facedex.indexer.indexes import Indexes
from facedex.indexer.store.records import IdentityDetails, NewEnrolment, NewTemplate
from facedex.indexer.store.store import Store

PROGRAM = """
import os
from facedex.indexer.failpoints import Step, fail_point
reached = fail_point(os.environ)
for number in range(1, 5):
    reached(Step.AFTER_COMMIT)
    print(number, flush=True)
    reached(Step.AFTER_APPLY)
"""


def test_a_process_dies_the_time_that_the_environment_says() -> None:
    environment = {**os.environ, VARIABLE: "after-commit:3"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["1", "2"])


def test_a_command_of_the_indexer_dies_there_too(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "facedex-index"), "--data", str(tmp_path), "rebuild"]
    environment = {**os.environ, VARIABLE: "before-commit:1"}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    done = subprocess.run(command, env={**environment, VARIABLE: "x"}, capture_output=True, timeout=60, check=False)
    assert (done.returncode, b"is no fail-point" in done.stderr) == (1, True)


def test_without_a_word_in_the_environment_nothing_fails() -> None:
    assert fail_point({}) is nothing_fails
    assert fail_point({VARIABLE: ""}) is nothing_fails


@pytest.mark.parametrize("text", ["before-commit", "before-commit:0", "before-commit:x", "nowhere:1", ":1"])
def test_a_fail_point_that_there_is_not_is_refused_with_those_that_there_are(text: str) -> None:
    with pytest.raises(FailPointInvalid, match="snapshot-renamed"):
        fail_point({VARIABLE: text})


def test_a_change_is_committed_then_applied(house: House, tmp_path: Path) -> None:
    reached: list[Step] = []
    store = Store.open(house.url, reached=reached.append)
    gallery = Gallery(store.gallery("staff"), store=store, indexes=Indexes(store, tmp_path, least_rows=1))
    reached.clear()
    template = NewTemplate(person_vector(Person(1)), "00" * 32)
    gallery.enrol(NewEnrolment(IdentityDetails("ada"), MODEL.digest, (template,)), answer_for=lambda _: None)
    assert reached == [Step.BEFORE_COMMIT, Step.AFTER_COMMIT, Step.AFTER_APPLY]
    reached.clear()
    gallery.request_rebuild()
    gallery.save_snapshot()
    wanted = [
        *[Step.BEFORE_COMMIT, Step.AFTER_COMMIT, Step.AFTER_APPLY, Step.BEFORE_REBUILD_SWAP, Step.AFTER_REBUILD_SWAP],
        *[Step.SNAPSHOT_WRITTEN, Step.SNAPSHOT_RENAMED],
    ]
    # The snapshot is written in several parts, and its key is made in a transaction.
    told = [each for each, after in pairwise([*reached, None]) if each is not after]
    assert told[:5] == wanted[:5]
    assert told[-3:] == [Step.SNAPSHOT_BEGUN, *wanted[5:]]
    store.close()
