"""A snapshot is a cache with a keyed checksum (invariant 7)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.indexer.search.oracle import DIMENSION, unit_vectors

from facedex.indexer.search import snapshot as snapshots
from facedex.indexer.search.fast import FastIndex
from facedex.indexer.search.snapshot import Snapshot, SnapshotKey, SnapshotRejected, read_snapshot, write_snapshot
from facedex.indexer.search.template_index import TemplateIndex

SECRET = bytes(32)


def filled() -> FastIndex:
    index = FastIndex(DIMENSION)
    for start in (0, 10_000):
        numbers = list(range(start + 1, start + 10_001))
        index.add(numbers, [number // 3 for number in numbers], unit_vectors(10_000, seed=start))
    index.add([20_001, 20_002], [77_777, 77_778], unit_vectors(2, seed=5))
    index.erase([5, 15_000, 20_001])
    return index


def taken(index: FastIndex) -> Snapshot:
    key = SnapshotKey(3, "ab" * 32, DIMENSION, index.codebook_digest)
    return Snapshot(key, 17, "2026-01-01", index.digest, index.state())


@pytest.fixture(scope="module")
def index() -> FastIndex:
    return filled()


@pytest.fixture
def path(tmp_path: Path, index: FastIndex) -> Path:
    path = tmp_path / "index" / "gallery-3.snapshot"
    write_snapshot(path, taken(index), secret=SECRET)
    return path


def restored_from(snapshot: Snapshot) -> FastIndex:
    index = FastIndex(DIMENSION)
    index.restore(snapshot)
    return index


def answers(index: TemplateIndex) -> object:
    return index.search(unit_vectors(5, seed=99), limit=20)


def test_an_index_comes_back_as_it_was(index: FastIndex, path: Path) -> None:
    read = read_snapshot(path, taken(index).key, secret=SECRET)
    restored = restored_from(read)
    assert (read.revision, read.revision_time) == (17, "2026-01-01")
    assert len(restored) == len(index) == 19_999
    assert answers(restored) == answers(index)


def test_a_restored_index_goes_on_changing(index: FastIndex, path: Path) -> None:
    restored = restored_from(read_snapshot(path, taken(index).key, secret=SECRET))
    probe = unit_vectors(1, seed=1234)
    restored.add([20_003], [9], probe)
    assert restored.search(probe, limit=1)[0][0].template_id == 20_003
    restored.erase([20_003, 7])
    assert len(restored) == 19_998
    assert restored.search(probe, limit=1)[0][0].template_id != 20_003


@pytest.mark.parametrize("place", [0, 25, 200, 1_000, -40, -1])
def test_a_changed_byte_is_noticed(index: FastIndex, path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(SnapshotRejected):
        read_snapshot(path, taken(index).key, secret=SECRET)


@pytest.mark.parametrize("length", [0, 10, 100, 100_000, -1])
def test_a_truncated_file_is_noticed(index: FastIndex, path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(SnapshotRejected):
        read_snapshot(path, taken(index).key, secret=SECRET)


def test_a_file_of_another_installation_is_not_read(index: FastIndex, path: Path) -> None:
    with pytest.raises(SnapshotRejected, match="another installation"):
        read_snapshot(path, taken(index).key, secret=bytes(31) + b"x")


@pytest.mark.parametrize(
    "other",
    [{"gallery_id": 4}, {"model_digest": "cd" * 32}, {"codebook_digest": "ef" * 32}, {"dimension": 128}],
    ids=str,
)
def test_a_file_of_another_gallery_model_or_codebook_is_not_read(
    index: FastIndex, path: Path, other: dict[str, int]
) -> None:
    with pytest.raises(SnapshotRejected, match="another gallery"):
        read_snapshot(path, replace(taken(index).key, **other), secret=SECRET)  # type: ignore[arg-type]


def test_a_file_of_an_older_format_is_not_read(index: FastIndex, path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(snapshots.MAGIC, b"facedex snapshot 0\n", 1))
    with pytest.raises(SnapshotRejected, match="no snapshot of this version"):
        read_snapshot(path, taken(index).key, secret=SECRET)


def test_only_its_owner_can_read_the_file(path: Path) -> None:
    assert path.stat().st_mode & 0o077 == 0
    assert [each.name for each in path.parent.iterdir()] == ["gallery-3.snapshot"]


def test_codes_of_the_erased_go_when_they_are_to_be_forgotten_and_answers_stay() -> None:
    index = filled()
    assert any(segment.live_count < len(segment) for segment in index.segments if segment.codes)
    before = answers(index)
    index.forget_erased()
    assert all(segment.live_count == len(segment) for segment in index.segments if segment.codes)
    assert answers(index) == before
    assert [index.holds(number) for number in (5, 6, 20_001, 20_002)] == [False, True, False, True]
