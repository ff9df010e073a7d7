"""Whatever was changed, cut off, swapped or made by somebody else is refused, with nothing written."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from tests.indexer.archive.moving import ADA, PASSPHRASE, export, import_into
from tests.indexer.erasure_site import ErasureSite

from facedex.indexer import sealed_stream
from facedex.indexer.archive.container import ArchiveReader, ArchiveWriter
from facedex.indexer.archive.errors import (
    ArchiveDamaged,
    ArchiveError,
    ArchiveForeign,
    ArchiveTooNew,
    PassphraseWrong,
)
from facedex.indexer.archive.importing import ArchiveImport
from facedex.indexer.archive.manifest import Manifest, Member
from facedex.indexer.archive.rows import Rows
from facedex.indexer.archive.sealed_file import (
    BEGINNING,
    HEADER_BYTES,
    MAGIC,
    ScryptCost,
    SealedFile,
    SealingSink,
)
from facedex.indexer.sealed_stream import TAG_BYTES
from facedex.indexer.store.store import Store

CHUNK_BYTES = 4_096
STEP = HEADER_BYTES, CHUNK_BYTES + TAG_BYTES
QUICK = ScryptCost(log_n=4)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> ErasureSite:
    site = ErasureSite(tmp_path_factory.mktemp("source") / "data")
    for name in (ADA, "grace"):
        site.enrol(name)
    site.gallery.delete_identity("grace")
    return site


@pytest.fixture(scope="module")
def plain(site: ErasureSite, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    archive = tmp_path_factory.mktemp("plain") / "a.zip"
    export(site, archive)
    return archive.read_bytes()


@pytest.fixture(scope="module")
def sealed(plain: bytes) -> bytes:
    """In small chunks, under a pass phrase that is cheap to try."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealed_stream, "CHUNK_BYTES", CHUNK_BYTES)
        return sealed_of(plain)


def sealed_of(content: bytes, passphrase: str = PASSPHRASE) -> bytes:
    target = io.BytesIO()
    sink = SealingSink(target, passphrase, cost=QUICK)
    sink.write(content)
    sink.finish()
    return target.getvalue()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_stream, "CHUNK_BYTES", CHUNK_BYTES)


def check(content: bytes, folder: Path, *, passphrase: str = PASSPHRASE) -> None:
    """As an import looks at it."""
    file = folder / "changed.zip"
    file.write_bytes(content)
    with ArchiveReader.open(file, lambda: passphrase) as reader:
        reader.check(lambda _share: None)


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def places(content: bytes) -> list[int]:
    """Some in the middle, and all where the structure of a ZIP file stands."""
    chosen = random.Random(3).sample(range(len(content)), 300)
    return sorted({*chosen, *range(60), *range(len(content) - 900, len(content))})


@pytest.mark.usefixtures("small_chunks")
def test_what_was_not_changed_is_read(plain: bytes, sealed: bytes, tmp_path: Path) -> None:
    check(plain, tmp_path)
    check(sealed, tmp_path)


def test_one_flipped_bit_anywhere_is_noticed(plain: bytes, tmp_path: Path) -> None:
    for place in places(plain):
        with pytest.raises(ArchiveError):
            check(flipped(plain, place), tmp_path)


@pytest.mark.usefixtures("small_chunks")
def test_one_flipped_bit_anywhere_is_noticed_under_a_pass_phrase(sealed: bytes, tmp_path: Path) -> None:
    for place in places(sealed):
        # The cost of scrypt stands in the clear; a dearer one is tried, and gives another key.
        with pytest.raises(ArchiveError):
            check(flipped(sealed, place), tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_file_that_was_cut_off_is_refused(plain: bytes, tmp_path: Path, share: float) -> None:
    with pytest.raises((ArchiveDamaged, ArchiveForeign)):
        check(plain[: int(share * len(plain))], tmp_path)


def test_nothing_is_written_of_a_damaged_archive(plain: bytes, tmp_path: Path) -> None:
    file = tmp_path / "changed.zip"
    file.write_bytes(flipped(plain, len(plain) // 2))
    store = Store.open(f"sqlite:///{tmp_path / 'target.db'}")
    with pytest.raises(ArchiveDamaged):
        import_into(store, file)
    assert (store.revisions(), store.jobs()) == ({}, [])
    store.close()


# Under a pass phrase


def chunks(content: bytes) -> list[bytes]:
    begin, step = STEP
    return [content[:begin], *(content[start : start + step] for start in range(begin, len(content), step))]


MIXED_UP: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "two chunks are swapped": lambda parts: [*parts[:2], parts[3], parts[2], *parts[4:]],
    "the first and the last are swapped": lambda parts: [parts[0], parts[-1], *parts[2:-1], parts[1]],
    "a chunk is missing": lambda parts: [*parts[:2], *parts[3:]],
    "a chunk is there twice": lambda parts: [*parts[:3], *parts[2:]],
    "the last chunk is missing": lambda parts: parts[:-1],
    "all but the first are missing": lambda parts: parts[:2],
    "all chunks are missing": lambda parts: parts[:1],
    "a chunk is added": lambda parts: [*parts, parts[-1]],
    "half a header": lambda parts: [parts[0][:40]],
}


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("mix", MIXED_UP.values(), ids=MIXED_UP.keys())
def test_chunks_that_are_not_all_in_their_places_are_noticed(
    sealed: bytes, tmp_path: Path, mix: Callable[[list[bytes]], list[bytes]]
) -> None:
    with pytest.raises(ArchiveDamaged):
        check(b"".join(mix(chunks(sealed))), tmp_path)


@pytest.mark.usefixtures("small_chunks")
def test_chunks_of_another_file_with_the_same_pass_phrase_are_noticed(
    plain: bytes, sealed: bytes, tmp_path: Path
) -> None:
    other = chunks(sealed_of(plain))
    with pytest.raises(ArchiveDamaged):
        check(b"".join([*chunks(sealed)[:2], *other[2:]]), tmp_path)


@pytest.mark.usefixtures("small_chunks")
def test_another_pass_phrase_is_told_from_damage(sealed: bytes, tmp_path: Path) -> None:
    with pytest.raises(PassphraseWrong, match="not the pass phrase"):
        check(sealed, tmp_path, passphrase=f"{PASSPHRASE} ")


def test_a_newer_encryption_is_named(sealed: bytes, tmp_path: Path) -> None:
    with pytest.raises(ArchiveTooNew, match="encryption 2"):
        check(MAGIC + b"\x02" + sealed[len(MAGIC) + 1 :], tmp_path)


@pytest.mark.parametrize(("log_n", "r", "p"), [(40, 8, 1), (20, 255, 1), (17, 8, 255), (0, 8, 1), (17, 0, 1)])
def test_a_file_may_not_ask_for_any_amount_of_memory(sealed: bytes, tmp_path: Path, log_n: int, r: int, p: int) -> None:
    beginning = BEGINNING.pack(MAGIC, 1, log_n, r, p, bytes(16))
    with pytest.raises(ArchiveDamaged, match="memory"):
        check(beginning + sealed[BEGINNING.size :], tmp_path)


def test_no_vector_and_no_name_can_be_read_without_the_pass_phrase(plain: bytes, sealed: bytes) -> None:
    assert ADA.encode() in plain
    assert ADA.encode() not in sealed
    assert b"manifest" not in sealed


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([0, 1, 15, 16, 17, 31, 32, 33, 100]),
    cuts=st.lists(st.integers(0, 40), max_size=8),
    reads=st.lists(st.tuples(st.integers(0, 110), st.integers(0, 60)), max_size=8),
)
def test_an_encrypted_file_is_read_like_a_plain_one(size: int, cuts: list[int], reads: list[tuple[int, int]]) -> None:
    content = bytes(range(size))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealed_stream, "CHUNK_BYTES", 16)
        target = io.BytesIO()
        sink = SealingSink(target, PASSPHRASE, cost=ScryptCost(log_n=2))
        start = 0
        for cut in [*cuts, size]:
            sink.write(content[start : start + cut])
            start += cut
        sink.finish()
        opened = io.BufferedReader(SealedFile(target, PASSPHRASE), 8)
        plain = io.BytesIO(content)
        for place, count in reads:
            assert opened.seek(place) == plain.seek(place)
            assert opened.read(count) == plain.read(count)
        assert opened.seek(0, io.SEEK_END) == size


# Made by others


def made(plain: bytes, change: Callable[[dict[str, Any]], None] | None, **replaced: bytes) -> bytes:
    """The same archive with another manifest or members, each digest made to fit."""
    with zipfile.ZipFile(io.BytesIO(plain)) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    document = json.loads(contents.pop("manifest.json"))
    target = io.BytesIO()
    writer = ArchiveWriter(target)
    rows = {each["name"]: each["rows"] for each in document["members"]}
    for name, content in contents.items():
        writer.add(name, replaced.get(name.partition("/")[0], content), rows=rows[name])
    if change is None:
        writer.finish(Manifest.from_bytes(json.dumps(document).encode()))
        return target.getvalue()
    document["members"] = [
        {"name": each.name, "rows": each.rows, "size_bytes": each.size_bytes, "sha256": each.sha256}
        for each in writer._members
    ]
    change(document)
    writer._put("manifest.json", json.dumps(document).encode())
    writer._zip.close()
    writer._sink.finish()
    return target.getvalue()


CHANGED_MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], None], type[ArchiveError]]] = {
    "a newer format": (lambda each: each.update(version=2), ArchiveTooNew),
    "another program's": (lambda each: each.update(format="elsewhere"), ArchiveForeign),
    "no kind": (lambda each: each.update(kind="album"), ArchiveDamaged),
    "no members": (lambda each: each.pop("members"), ArchiveDamaged),
    "a member less": (lambda each: each["members"].pop(), ArchiveDamaged),
    "another digest": (lambda each: each["members"][0].update(sha256="00" * 32), ArchiveDamaged),
    "another size": (lambda each: each["members"][0].update(size_bytes=7), ArchiveDamaged),
    "a number that is none": (lambda each: each["gallery"].update(number="seven"), ArchiveDamaged),
    "a member without rows": (lambda each: each["members"][0].update(rows=None), ArchiveDamaged),
    "a model without a name": (lambda each: each["gallery"]["model"].update(name=None), ArchiveDamaged),
    "a threshold that is no number": (
        lambda each: each["gallery"]["model"].update(default_threshold="0.4"),
        ArchiveDamaged,
    ),
    "a threshold that is no cosine": (
        lambda each: each["gallery"]["model"].update(default_threshold=-2),
        ArchiveDamaged,
    ),
    "a threshold that is NaN": (
        lambda each: each["gallery"]["model"].update(default_threshold=float("nan")),
        ArchiveDamaged,
    ),
    "a moment of no time zone": (lambda each: each.update(made_at="2024-01-01T00:00:00"), ArchiveDamaged),
    "a gallery made in no time zone": (
        lambda each: each["gallery"].update(created_at="2024-01-01T00:00:00"),
        ArchiveDamaged,
    ),
    "a field more": (lambda each: each["gallery"].update(note="all is well"), ArchiveDamaged),
}


@pytest.mark.parametrize(("change", "error"), CHANGED_MANIFESTS.values(), ids=CHANGED_MANIFESTS.keys())
def test_a_manifest_that_is_not_as_facedex_writes_it_is_refused(
    plain: bytes, tmp_path: Path, change: Callable[[dict[str, Any]], None], error: type[ArchiveError]
) -> None:
    check(made(plain, lambda _document: None), tmp_path)
    with pytest.raises(error):
        check(made(plain, change), tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK", b"vectors", b"\x93NUMPY" + bytes(100), b"PAR1" + bytes(100)])
def test_a_file_of_another_kind_is_told_so(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ArchiveForeign, match="facedex-index enrol"):
        check(content, tmp_path)


def test_a_zip_file_of_another_kind_is_told_so(tmp_path: Path) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        file.writestr("person.json", "{}")
    with pytest.raises(ArchiveForeign):
        check(target.getvalue(), tmp_path)


def test_compressed_members_are_refused(plain: bytes, tmp_path: Path) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(plain)) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ArchiveDamaged, match="compressed"):
        check(target.getvalue(), tmp_path)


def test_a_part_that_is_no_parquet_file_is_refused_at_import(plain: bytes, tmp_path: Path) -> None:
    for name in ("identities", "templates"):
        changed = made(plain, None, **{name: b"PAR1" + bytes(200)})
        assert import_fails(changed, tmp_path, name) == "FAILED"


def import_fails(content: bytes, folder: Path, name: str) -> str:
    file = folder / f"{name}.zip"
    file.write_bytes(content)
    store = Store.open(f"sqlite:///{folder / name}.db")
    with ArchiveReader.open(file, str) as reader:
        work = ArchiveImport(store, reader)
        work.check(lambda _share: None)
        running = work.run(work.begin("staff"))
        with pytest.raises(ArchiveDamaged):
            list(running)
    (job,) = store.jobs()
    assert store.gallery("staff").identity_count == 0
    store.close()
    return job.state.name


PERSON_FAULTS: dict[str, dict[str, Any]] = {
    "a name with a line break": {"display_name": "Ada\nLovelace"},
    "no id": {"external_id": ""},
    "a hold that is too long": {"hold_reason": "x" * 256},
    "too many attributes": {"attributes": {f"a{number}": "" for number in range(65)}},
}
TEMPLATE_FAULTS: dict[str, dict[str, Any]] = {
    "a vector that is too short": {"vector": struct.pack("<e", 0.5) * 32},
    "a vector with NaN": {"vector": struct.pack("<e", float("nan")) * 32},
    "a source that is no digest": {"source_digest": "photograph of Ada"},
    "a crop that is too large": {"crop": bytes(2**20 + 1)},
}


@pytest.mark.parametrize("fault", [*PERSON_FAULTS.values(), *TEMPLATE_FAULTS.values()])
def test_what_no_gallery_holds_is_refused(site: ErasureSite, fault: dict[str, Any]) -> None:
    with site.store.exporting() as moment:
        gallery = moment.gallery("staff")
        (person,) = moment.people(gallery, now=site.clock.now)
    assert person is not None
    rows = Rows(gallery.model)
    if set(fault) <= {"vector", "source_digest", "crop"}:
        changed = replace(person, templates=(replace(person.templates[0], **fault), person.templates[1]))
    else:
        changed = replace(person, **fault)
    assert read_back(rows, [person]) == [person]
    with pytest.raises(ArchiveDamaged):
        read_back(rows, [changed])
    with pytest.raises(ArchiveDamaged, match="twice"):
        read_back(rows, [person, replace(person, number=77)])
    same = replace(person.templates[1], source_digest=person.templates[0].source_digest)
    with pytest.raises(ArchiveDamaged, match="twice"):
        read_back(rows, [replace(person, templates=(person.templates[0], same))])


def test_a_moment_beyond_all_calendars_is_refused(site: ErasureSite) -> None:
    with site.store.exporting() as moment:
        gallery = moment.gallery("staff")
        people = list(moment.people(gallery, now=site.clock.now))
    rows = Rows(gallery.model)
    templates = rows.templates_file([each for each in people if each])
    table = parquet.read_table(io.BytesIO(rows.people_file([each for each in people if each])))
    place = table.schema.get_field_index("created_at")
    far = pa.array([2**60] * len(table), pa.int64()).cast(pa.timestamp("us", "UTC"))
    sink = io.BytesIO()
    parquet.write_table(table.set_column(place, table.schema.field(place), far), sink)
    members = Member("people", 1, len(sink.getvalue()), ""), Member("templates", 2, len(templates), "")
    with pytest.raises(ArchiveDamaged, match="a value that is none"):
        rows.people(members[0], sink.getvalue(), members[1], templates)


def read_back(rows: Rows, people: list[Any]) -> list[Any]:
    contents = rows.people_file(people), rows.templates_file(people)
    counts = len(people), sum(len(each.templates) for each in people)
    members = [
        Member(name, count, len(content), "")
        for name, count, content in zip(("people", "templates"), counts, contents, strict=True)
    ]
    return rows.people(members[0], contents[0], members[1], contents[1])
