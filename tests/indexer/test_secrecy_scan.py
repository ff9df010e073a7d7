"""Whoever has every file of an installation but the data keys finds no vector and no crop in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.indexer.erasure_scan import Traces
from tests.indexer.erasure_site import ErasureSite, faces_of
from tests.indexer.test_data_keys import embed_everybody, traces_of
from typer.testing import CliRunner

from facedex.indexer.archive.exporting import Exporter
from facedex.indexer.audit import AuditEvent
from facedex.indexer.cli import app
from facedex.indexer.jobs.key_rotation import KeyRotation
from facedex.indexer.sealed_stream import StreamCipher
from facedex.indexer.search.snapshot import SnapshotSeal
from facedex.indexer.store.encryption import Encryption
from facedex.indexer.store.sealing import Sealed

PEOPLE = [f"person-{number}" for number in range(12)]
ERASED = PEOPLE[0]
MakeSite = Callable[..., ErasureSite]


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[MakeSite]:
    made: list[ErasureSite] = []

    def make(*, has_keys: bool = True) -> ErasureSite:
        keys = str(tmp_path / "keys") if has_keys else None
        made.append(ErasureSite(tmp_path / "stolen", data_keys=keys))
        return made[-1]

    yield make
    for each in made:
        each.close()


def fill(site: ErasureSite, *, passphrase: str | None = "correct horse battery staple") -> Traces:  # noqa: S107
    """Everything that there can be on disk: rows, log, snapshot, journal, receipt, audit, archives, both models."""
    for name in PEOPLE:
        site.enrol(name)
    by_new_model = embed_everybody(site)
    site.settle()
    receipt = site.gallery.delete_identity(ERASED).receipt
    (site.data / "receipt.json").write_text(receipt)
    site.store.audit.append([AuditEvent(datetime(2026, 1, 1, tzinfo=UTC), "", "Identify", "staff")])
    exporter = Exporter(site.store, passphrase=passphrase)
    exporter.gallery("staff", site.data / "staff.facedex", lambda _share: None)
    exporter.person("staff", PEOPLE[1], site.data / "person.facedex")
    exporter.erasures(site.data / "erasures.facedex")
    site.galleries.save_snapshots(least_changes=1)
    return everybody(by_new_model=traces_of(by_new_model))


def everybody(*, by_new_model: Traces) -> Traces:
    traces = Traces(dict(by_new_model.needles))
    for name in PEOPLE:
        traces.needles.update({f"{name}: {what}": each for what, each in faces_of(name, range(2)).needles.items()})
    return traces


def files_with_traces(site: ErasureSite, traces: Traces) -> set[str]:
    return {each.partition(": ")[0] for each in traces.found_in(site.data)}


def test_no_file_but_the_keys_holds_a_vector_or_a_crop(make_site: MakeSite) -> None:
    site = make_site()
    traces = fill(site)
    names = {each.name for each in site.data.rglob("*") if each.is_file() and each.stat().st_size}
    assert {"facedex.db", "facedex.db-wal", "gallery-1.snapshot", "receipt.json", "staff.facedex"} <= names
    assert files_with_traces(site, traces) == set()


def test_neither_does_any_while_keys_are_changed_and_afterwards(make_site: MakeSite) -> None:
    site = make_site()
    traces = fill(site)
    rotation = KeyRotation(site.store, rest=0)
    for _ in rotation.run(rotation.begin()):
        assert files_with_traces(site, traces) == set()
    site.store.encryption.retire()
    site.settle()
    assert files_with_traces(site, traces) == set()


# The scan finds them where a part of the sealing is switched off


def test_the_scan_finds_them_everywhere_where_there_are_no_keys(make_site: MakeSite) -> None:
    site = make_site(has_keys=False)
    traces = fill(site, passphrase=None)
    found = files_with_traces(site, traces)
    assert {"facedex.db-wal", "index/gallery-1.snapshot", "staff.facedex", "person.facedex"} <= found


def _as_it_is(_self: object, content: bytes, *_place: object, **_options: object) -> bytes:
    return content


def _no_key(*_arguments: object, **_options: object) -> None:
    return None


def leave_rows_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sealed, "seal", _as_it_is)
    monkeypatch.setattr(Sealed, "opened", _as_it_is)


def leave_snapshots_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Encryption, "new_snapshot_key", _no_key)


def leave_streams_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StreamCipher, "sealed", _as_it_is)


OMISSIONS = {
    "facedex.db-wal": leave_rows_open,
    "index/gallery-1.snapshot": leave_snapshots_open,
    "staff.facedex": leave_streams_open,
}


@pytest.mark.parametrize(("place", "omit"), OMISSIONS.items(), ids=OMISSIONS.keys())
def test_the_scan_finds_what_is_not_sealed(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch, place: str, omit: Callable[[pytest.MonkeyPatch], None]
) -> None:
    site = make_site()
    omit(monkeypatch)
    assert place in files_with_traces(site, fill(site))


def test_the_key_of_a_snapshot_is_shown_nowhere() -> None:
    assert "secret" not in repr(SnapshotSeal("ab" * 16, b"secret"))


def test_a_thief_without_the_keys_is_told_what_is_missing(make_site: MakeSite) -> None:
    site = make_site()
    fill(site)
    site.close()
    done = CliRunner().invoke(app, ["--data", str(site.data), "data-keys", "show"])
    assert done.exit_code == 1
    assert "--data-keys" in done.output
