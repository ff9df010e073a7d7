"""Sources that are damaged in any way are refused by name; no reader lets anything else through."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.indexer.doubles import MODEL, Person, person_vector, photograph
from tests.indexer.jobs.compreface_dump import Face, dump

from facedex.indexer.enrolment import VectorItem
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.jobs.bulk_item import BulkSource
from facedex.indexer.jobs.sources import bulk_source

MAX_IMAGE_BYTES = 2_000
PEOPLE = 4


def a_list() -> bytes:
    rows = "".join(f'p{number}/1.jpg,p{number},"Ada ""A"" {number}",red\n' for number in range(PEOPLE))
    return f"path,identity,display_name,team\n{rows}".encode()


def a_list_in_parquet() -> bytes:
    table = pa.table({"path": ["a.jpg", "b.jpg"], "identity": ["ada", "eve"], "team": ["red", None]})
    target = io.BytesIO()
    pq.write_table(table, target)
    return target.getvalue()


def a_tar() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(PEOPLE):
            content = photograph(Person(number))
            member = tarfile.TarInfo(f"people/Éve {number}/1.jpg")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return target.getvalue()


def some_vectors() -> tuple[np.ndarray, list[str]]:
    return np.stack([person_vector(Person(number)) for number in range(PEOPLE)]), [f"p{each}" for each in range(PEOPLE)]


def an_npz() -> bytes:
    vectors, identities = some_vectors()
    target = io.BytesIO()
    np.savez(target, vectors=vectors, identities=np.array(identities))
    return target.getvalue()


def a_compressed_npz() -> bytes:
    vectors, identities = some_vectors()
    target = io.BytesIO()
    np.savez_compressed(target, vectors=vectors, identities=np.array(identities))
    return target.getvalue()


def vectors_in_parquet() -> bytes:
    vectors, identities = some_vectors()
    target = io.BytesIO()
    pq.write_table(pa.table({"vectors": list(vectors), "identities": identities}), target)
    return target.getvalue()


def a_dump() -> bytes:
    vectors, identities = some_vectors()
    faces = [
        Face(name, vector.astype(np.float64), photograph(Person(number)))
        for number, (name, vector) in enumerate(zip(identities, vectors, strict=True))
    ]
    return dump(faces, collections={"door": faces[0].key})


def a_compressed_dump() -> bytes:
    return gzip.compress(a_dump(), mtime=0)


@dataclass(frozen=True)
class Kind:
    """A kind of source: the name of its file, what a good one holds, and whether that is vectors."""

    file: str
    make: Callable[[], bytes]
    has_vectors: bool = False

    def source(self, folder: Path, content: bytes) -> BulkSource:
        (folder / self.file).write_bytes(content)
        model = MODEL.digest if self.has_vectors else None
        return bulk_source(folder / self.file, model_digest=model, max_image_bytes=MAX_IMAGE_BYTES)


KINDS = {
    "csv": Kind("list.csv", a_list),
    "list parquet": Kind("list.parquet", a_list_in_parquet),
    "tar": Kind("people.tar", a_tar),
    "tar.gz": Kind("people.tar.gz", lambda: gzip.compress(a_tar(), mtime=0)),
    "npz": Kind("vectors.npz", an_npz, has_vectors=True),
    "compressed npz": Kind("vectors.npz", a_compressed_npz, has_vectors=True),
    "vector parquet": Kind("vectors.parquet", vectors_in_parquet, has_vectors=True),
    "dump": Kind("faces.sql", a_dump),
    "dump of vectors": Kind("faces.sql", a_dump, has_vectors=True),
    "compressed dump": Kind("faces.sql.gz", a_compressed_dump),
}
# Bytes with a meaning in one of the formats, beside any others.
TELLING = st.sampled_from([b"\0", b"\xff", b"\n", b"\t", b"\\", b'"', b",", b"{", b"9", b"-", b"\xff\xff\xff\x7f"])
PIECE = st.one_of(TELLING, st.binary(min_size=1, max_size=4))
# Where (as a share of the length), how many bytes go away, and what comes instead.
EDIT = st.tuples(st.floats(0, 1), st.integers(0, 8), st.one_of(st.just(b""), PIECE))
EDITS = st.lists(EDIT, min_size=1, max_size=4)


def edited(content: bytes, edits: list[tuple[float, int, bytes]], kept: float) -> bytes:
    for share, gone, new in edits:
        place = int(share * len(content))
        content = content[:place] + new + content[place + gone :]
    return content[: int(kept * len(content))]


def read(source: BulkSource) -> int:
    """Everything that an enrolment asks of a source; how many items were read."""
    count = 0
    source.survey()
    for item in source.items():
        try:
            content = item.read()
        except (OSError, InvalidArgument):
            continue
        assert isinstance(content, bytes | VectorItem)
        count += 1
    return count


def tried(kind: Kind, folder: Path, content: bytes) -> int:
    try:
        return read(kind.source(folder, content))
    except InvalidArgument:
        return 0


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_a_source_that_nobody_damaged_is_read_to_its_end(tmp_path: Path, kind: Kind) -> None:
    wanted = 0 if "list" in kind.file else PEOPLE  # the photographs of a list are not there
    assert read(kind.source(tmp_path, kind.make())) == wanted


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_a_damaged_source_is_refused_by_name_or_read(tmp_path: Path, kind: Kind) -> None:
    whole = kind.make()

    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(edits=EDITS, kept=st.one_of(st.just(1.0), st.floats(0, 1)))
    def damage(edits: list[tuple[float, int, bytes]], kept: float) -> None:
        tried(kind, tmp_path, edited(whole, edits, kept))

    damage()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_any_bytes_are_refused_by_name(tmp_path: Path, kind: Kind) -> None:
    @settings(max_examples=20, deadline=None, derandomize=True, database=None)
    @given(content=st.binary(max_size=200))
    def anything(content: bytes) -> None:
        assert tried(kind, tmp_path, content) == 0

    anything()


HEADERS = st.fixed_dictionaries(
    {
        "descr": st.sampled_from(["<f4", "<U8", "|O", "<U999999999", "|V0", "<M8[s]", "nonsense", [("a", "<f4")]]),
        "fortran_order": st.sampled_from([False, True, "maybe"]),
        "shape": st.sampled_from([(), (4,), (-4,), (4, 32), (2**62,), (4, 2**62), (4, 0), "4", (4.0,)]),
    }
)


@pytest.mark.filterwarnings("ignore")
def test_an_npz_that_claims_anything_is_refused_before_so_much_is_read(tmp_path: Path) -> None:
    kind = KINDS["npz"]

    def array(header: dict[str, object], content: bytes) -> bytes:
        text = repr(header).encode() + b"\n"
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content

    @settings(max_examples=80, deadline=None, derandomize=True, database=None)
    @given(vectors=HEADERS, identities=HEADERS)
    def claim(vectors: dict[str, object], identities: dict[str, object]) -> None:
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("vectors.npy", array(vectors, bytes(4 * 32 * 4)))
            archive.writestr("identities.npy", array(identities, "p".encode("utf-32-le") * 32))
        tried(kind, tmp_path, target.getvalue())

    claim()


# What chance hardly finds: each of these was once a traceback, or never ended.


def npz_of(header: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in ("vectors.npy", "identities.npy"):
            archive.writestr(name, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64))
    return target.getvalue()


def npz_with(place_in_entry: int, value: int) -> bytes:
    """With a field of each entry of the archive's directory set."""
    content = bytearray(an_npz())
    for entry in re.finditer(b"PK\x01\x02", bytes(content)):
        content[entry.start() + place_in_entry] = value
    return bytes(content)


def tar_with(**headers: str) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("ada/1.jpg")
        member.size, member.pax_headers = 3, {name.replace("_", "."): value for name, value in headers.items()}
        tar.addfile(member, io.BytesIO(b"abc"))
    return target.getvalue()


def parquet_of_no_text(*columns: str) -> bytes:
    offsets, letters = np.array([0, 2, 4], np.int32), b"a\xff\xfeb"
    broken = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(offsets), pa.py_buffer(letters)])
    target = io.BytesIO()
    pq.write_table(pa.table({name: [[1.0], [2.0]] if name == "vectors" else broken for name in columns}), target)
    return target.getvalue()


RARE = {
    "an encrypted NPZ": ("npz", npz_with(8, 1)),
    "an NPZ of an unknown compression": ("npz", npz_with(10, 99)),
    "a header that never ends": ("npz", npz_of(b"{'descr': '<f4', 'shape': (4,32")),
    "a header that is no text": ("npz", npz_of(b"'''")),
    "a sparse tar of no numbers": ("tar", tar_with(GNU_sparse_map="1,2,x")),
    "a sparse tar of no size": ("tar", tar_with(GNU_sparse_size="x")),
    "a tar whose member has no end": ("tar", tar_with(size="9" * 30)),
    "a list of texts that are none": ("list parquet", parquet_of_no_text("path", "identity")),
    "identities that are no texts": ("vector parquet", parquet_of_no_text("vectors", "identities")),
    "a path that no file can have": ("csv", b"path,identity\na\0.jpg,ada\n"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "content"), RARE.values(), ids=RARE.keys())
def test_what_chance_hardly_finds_is_refused_by_name(tmp_path: Path, kind: str, content: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"plain arrays|damaged|no tar|no Parquet|no file can have|no CSV"):
        read(KINDS[kind].source(tmp_path, content))


def test_a_reader_that_lets_errors_through_is_caught(tmp_path: Path) -> None:
    """The check itself can fail."""

    def trusting(file: Path) -> object:
        return np.load(file, allow_pickle=False)["vectors"]

    (tmp_path / "vectors.npz").write_bytes(an_npz()[:-40])
    with pytest.raises((zipfile.BadZipFile, ValueError, OSError)):
        trusting(tmp_path / "vectors.npz")
