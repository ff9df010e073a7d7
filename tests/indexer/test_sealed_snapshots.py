"""With data keys a snapshot is encrypted under a key of its own, which goes when another snapshot takes its place."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select
from tests.indexer.erasure_site import ErasureSite, faces_of
from tests.indexer.test_erasures import ADA, Death, finds

from facedex.indexer import sealed_stream
from facedex.indexer.failpoints import Step
from facedex.indexer.search.snapshot import SnapshotRejected, seal_of
from facedex.indexer.store.key_store import DESTROYED, KeyStore, snapshot_keys


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ErasureSite]:
    monkeypatch.setattr(sealed_stream, "CHUNK_BYTES", 1_024)  # several chunks of a small gallery
    site = ErasureSite(tmp_path / "data", data_keys=str(tmp_path / "keys"))
    for number in range(20):
        site.enrol(f"person-{number}")
    site.enrol(ADA)
    site.settle()
    yield site
    site.close()


def snapshot_of(site: ErasureSite) -> Path:
    return site.data / "index" / f"gallery-{site.gallery.record.id}.snapshot"


def keys_left(site: ErasureSite) -> set[str]:
    with site.keys._engine.connect() as connection:
        left = connection.execute(select(snapshot_keys.c.key_id).where(snapshot_keys.c.key != DESTROYED))
        return set(left.scalars())


def rejection(site: ErasureSite) -> str:
    with pytest.raises(SnapshotRejected) as rejected:
        site.galleries._indexes.saved(site.store.gallery("staff"))
    return str(rejected.value)


def test_a_start_reads_the_snapshot_and_a_thief_cannot(site: ErasureSite, caplog: pytest.LogCaptureFixture) -> None:
    assert seal_of(snapshot_of(site))
    assert faces_of(ADA, range(2)).found_in(site.data) == set()
    reopened = site.reopened()
    opened = reopened.galleries._indexes.opened(reopened.store.gallery("staff"))
    assert (len(opened.index), opened.revision) == (42, 42)
    assert finds(reopened, ADA)
    assert "dropped" not in caplog.text


def test_an_old_copy_of_a_snapshot_cannot_be_read_any_more(site: ErasureSite, tmp_path: Path) -> None:
    """It would tell of somebody who was erased since."""
    copy = shutil.copy(snapshot_of(site), tmp_path / "copy")
    site.gallery.delete_identity(ADA)
    site.pass_horizon()
    assert keys_left(site) == {seal_of(snapshot_of(site))}
    shutil.copy(copy, snapshot_of(site))
    assert rejection(site) == "is under a key that is gone"


def test_with_a_gallery_goes_the_key_of_its_snapshot(site: ErasureSite) -> None:
    site.galleries.delete("staff")
    assert keys_left(site) == set()


@pytest.mark.parametrize("step", [Step.SNAPSHOT_WRITTEN, Step.SNAPSHOT_RENAMED])
def test_after_a_death_while_one_is_written_there_is_a_snapshot_and_the_one_before_it_is_lost(
    site: ErasureSite, step: Step, tmp_path: Path
) -> None:
    copy = shutil.copy(snapshot_of(site), tmp_path / "copy")
    site.enrol("somebody else")

    def die(reached: Step) -> None:
        if reached is step:
            raise Death

    site.store.reached = die
    with pytest.raises(Death):
        site.galleries.save_snapshots(least_changes=1)
    site = site.reopened()
    assert finds(site, ADA)
    assert site.galleries._indexes.saved(site.store.gallery("staff")) is not None
    assert (seal_of(Path(copy)) in keys_left(site)) == (step is Step.SNAPSHOT_WRITTEN)
    site.close()


def test_a_snapshot_whose_key_is_retired_is_built_anew_and_that_is_no_error(
    site: ErasureSite, caplog: pytest.LogCaptureFixture
) -> None:
    site.store.encryption.retire()
    assert keys_left(site) == set()
    site = site.reopened()
    assert finds(site, ADA)
    assert "snapshot of gallery 1 dropped, building from the store: it is under a key that is gone" in caplog.text
    site.galleries.save_snapshots(least_changes=0)
    assert keys_left(site) == {seal_of(snapshot_of(site))}
    site.close()


def test_the_row_of_a_destroyed_key_is_used_again(site: ErasureSite) -> None:
    for number in range(5):
        site.enrol(f"another-{number}")
        site.settle()
    with site.keys._engine.connect() as connection:
        assert len(connection.execute(select(snapshot_keys)).all()) <= 2


def damaged(content: bytes, kind: str) -> bytes:
    first = len(content) - len(content) % (sealed_stream.CHUNK_BYTES + sealed_stream.TAG_BYTES) - 2_080
    return {
        "changed": content[:500] + bytes([content[500] ^ 1]) + content[501:],
        "cut off": content[:-1],
        "cut off after a chunk": content[: 58 + 1_040],
        "longer": content + b"\0",
        "swapped": content[:58] + content[1_098:2_138] + content[58:1_098] + content[2_138:],
        "empty": b"",
        "short": content[:30],
        "key's name": content[:40] + b"00" + content[42:],
        "middle": content[:first] + content[first + 1_040 :],
    }[kind]


KINDS = ["changed", "cut off", "cut off after a chunk", "longer", "swapped", "empty", "short", "key's name", "middle"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_changed_is_never_read(site: ErasureSite, kind: str) -> None:
    path = snapshot_of(site)
    path.write_bytes(damaged(path.read_bytes(), kind))
    assert rejection(site)
    reopened = site.reopened()
    assert finds(reopened, ADA)
    reopened.close()


def test_a_snapshot_from_before_there_were_keys_goes_at_the_start(tmp_path: Path) -> None:
    open_site = ErasureSite(tmp_path / "data")
    open_site.enrol(ADA)
    open_site.settle()
    path = snapshot_of(open_site)
    assert path.exists()
    assert seal_of(path) == ""
    site = open_site.reopened(data_keys=str(tmp_path / "keys"))
    assert not path.exists()
    assert finds(site, ADA)
    site.close()


def test_an_unencrypted_snapshot_is_not_taken_where_there_are_keys(site: ErasureSite) -> None:
    snapshot_of(site).write_bytes(b"facedex snapshot 3\n" + bytes(1_000))
    assert rejection(site) == "is not encrypted, or is damaged"


def test_every_snapshot_has_a_key_of_its_own(site: ErasureSite) -> None:
    """A stream's nonces are the numbers of its chunks, so two streams under one key would tell of each other."""
    seen = {seal_of(snapshot_of(site))}
    keys: KeyStore = site.keys
    values = {keys.snapshot_key(each) for each in seen}
    for number in range(3):
        site.enrol(f"another-{number}")
        site.settle()
        seen.add(seal_of(snapshot_of(site)))
        values.add(keys.snapshot_key(seal_of(snapshot_of(site))))
    assert len(seen) == len(values - {None}) == 4
    assert np.all([len(each or b"") == 32 for each in values])
