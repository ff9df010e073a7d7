"""A short, seeded run of every fuzz target, without atheris; and for each kind of target, one that is broken is caught."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.fuzz.mutation import mutations
from tests.fuzz.seeds import makers
from tests.fuzz.services import SERVICES, ServerFailed, ServiceTarget
from tests.fuzz.targets import CORPUS, TARGETS, Run, Target, WrongAnswer, snapshot_target

from facedex.indexer.search import snapshot
from facedex.indexer.search.fast import FastIndex
from facedex.indexer.search.snapshot import Snapshot, SnapshotKey, SnapshotRejected

INPUTS = 300
SEED = 20_260_101
BY_NAME = {target.name: target for target in TARGETS}


def tried(run: Run, target: Target, *, inputs: int = INPUTS) -> None:
    for content in itertools.islice(mutations(target.seeds, seed=SEED), inputs):
        run(content)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in SERVICES])
def test_hostile_bytes_are_refused_by_name_or_read_rightly(name: str, tmp_path: Path) -> None:
    tried(BY_NAME[name].make(tmp_path), BY_NAME[name])


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceTarget]:
    target = ServiceTarget(tmp_path, request.param)
    yield target
    target.stop()


def test_hostile_requests_have_a_proper_status_and_the_server_answers_as_before(
    service: ServiceTarget, request: pytest.FixtureRequest
) -> None:
    tried(service.run, BY_NAME[request.node.callspec.params["service"]])
    service.look()


def test_a_decoder_that_lets_errors_through_is_caught(tmp_path: Path) -> None:
    def broken(content: bytes) -> None:
        (tmp_path / "picture").write_bytes(content)
        Image.open(tmp_path / "picture").load()

    with pytest.raises(OSError, match="image"):
        tried(broken, BY_NAME["image"])


def test_a_loader_that_trusts_what_was_not_authenticated_is_caught(tmp_path: Path) -> None:
    def trusting(path: Path, key: SnapshotKey, *, secret: bytes) -> Snapshot:
        content = path.read_bytes()
        if not content.startswith(snapshot.MAGIC):
            raise SnapshotRejected("is no snapshot")
        header, _ = snapshot._header(np.frombuffer(content, np.uint8))
        assert header["key"] == asdict(key), secret
        return header  # type: ignore[return-value]

    with pytest.raises((WrongAnswer, ValueError, AssertionError, KeyError)):
        tried(snapshot_target(tmp_path, read=trusting), BY_NAME["snapshot"])


@pytest.fixture
def galleries(tmp_path: Path) -> Iterator[ServiceTarget]:
    target = ServiceTarget(tmp_path, "galleries")
    yield target
    target.stop()


def test_a_server_that_fails_unforeseen_is_caught(galleries: ServiceTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_name: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(galleries._app._galleries, "record", failing)
    with pytest.raises(ServerFailed, match="INTERNAL"):
        tried(galleries.run, BY_NAME["galleries"])


def test_a_server_that_answers_wrongly_is_caught(galleries: ServiceTarget) -> None:
    galleries._app._galleries.get("kept-by-the-witness")._index.erase([1])
    with pytest.raises(ServerFailed, match="face 0"):
        galleries.look()


def test_a_server_whose_index_disagrees_is_caught(galleries: ServiceTarget) -> None:
    index = galleries._app._galleries.get("staff")._index
    assert isinstance(index, FastIndex)
    index._count += 1
    with pytest.raises(ServerFailed, match="differ"):
        galleries.look()


def test_every_target_and_every_method_has_a_corpus() -> None:
    for name, make in makers().items():
        files = {path.name for path in (CORPUS / name).iterdir()}
        assert {file for file, _ in make()} <= files
        assert name in BY_NAME


def test_the_same_seed_gives_the_same_inputs() -> None:
    first, second = (list(itertools.islice(mutations([b"abc", b"def"], seed=1), 50)) for _ in range(2))
    assert first == second
    assert len(set(first)) > 25
