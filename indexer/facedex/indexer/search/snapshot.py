"""An index as a file: a cache with a keyed checksum (invariant 7).

Layout: magic, length of the header (8 bytes), header (JSON), arrays one after the other, HMAC-SHA256 of everything before
it. The key is kept in the database, so only a file that this installation wrote is ever read: index files of untrusted
origin can corrupt memory.

With data keys the whole of it is encrypted: magic, the key's name (32 bytes), chunks of `facedex.indexer.sealed_stream`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import struct
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from cryptography.exceptions import InvalidTag

from facedex.indexer import sealed_stream
from facedex.indexer.failpoints import Reached, Step, nothing_fails
from facedex.indexer.sealed_stream import TAG_BYTES, SealingWriter, Sink, StreamCipher, last_chunk
from facedex.indexer.search.code_fit import CodeFit
from facedex.indexer.search.segment import Codes, Rows, Segment
from facedex.indexer.set_digest import SetDigest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

MAGIC = b"facedex snapshot 3\n"
SEALED_MAGIC = b"facedex sealed snapshot 1\n"
KEY_ID_BYTES = 32
LENGTH = struct.Struct("<Q")
DIGEST_BYTES = 32
SCRATCH_SUFFIX = ".partial"
CHUNK_BYTES = 16 * 2**20


class SnapshotRejected(Exception):
    """The file is damaged, foreign, or of another format, model or history."""


@dataclass(frozen=True, slots=True)
class SnapshotKey:
    """What a snapshot must agree with to be read."""

    gallery_id: int
    model_digest: str
    dimension: int
    codebook_digest: str


@dataclass(frozen=True, slots=True)
class PartState:
    """One part of an index at a moment: its rows, who is alive, and the codes of a segment."""

    rows: Rows
    alive: NDArray[np.bool_]
    codes: Codes | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An index at a revision. `revision_time` tells that revision from the same number in another history."""

    key: SnapshotKey
    revision: int
    revision_time: str
    digest: SetDigest
    parts: tuple[PartState, ...]


@dataclass(frozen=True, slots=True)
class SnapshotSeal:
    """An AES-256 key for one snapshot, and its name of 32 characters."""

    key_id: str
    key: bytes = field(repr=False)

    @property
    def header(self) -> bytes:
        return SEALED_MAGIC + self.key_id.encode()


def write_snapshot(
    path: Path,
    snapshot: Snapshot,
    *,
    secret: bytes,
    seal: SnapshotSeal | None = None,
    reached: Reached = nothing_fails,
) -> None:
    """Writes under a temporary name, then renames: there is always a whole file, the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = path.with_suffix(f".{os.getpid()}{SCRATCH_SUFFIX}")
    try:
        _write(scratch, snapshot, secret, seal, reached)
        reached(Step.SNAPSHOT_WRITTEN)
        scratch.replace(path)
        reached(Step.SNAPSHOT_RENAMED)
    finally:
        scratch.unlink(missing_ok=True)  # what is left where the disk was full
    _sync_folder(path.parent)


def dead_scratch(folder: Path) -> list[Path]:
    """What processes that are dead were writing: it holds vectors, and nobody else would ever delete it.

    Call it in the thread that writes snapshots: a file of this process's own number is that of a dead one before it.
    """
    return [path for path in folder.glob(f"*{SCRATCH_SUFFIX}") if not _has_writer(path)]


def _has_writer(path: Path) -> bool:
    writer = path.suffixes[-2][1:] if len(path.suffixes) > 1 else ""
    return writer.isdecimal() and int(writer) != os.getpid() and _is_alive(int(writer))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


def _write(path: Path, snapshot: Snapshot, secret: bytes, seal: SnapshotSeal | None, reached: Reached) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        if seal is None:
            _write_authenticated(file, snapshot, secret, reached)
        else:
            file.write(seal.header)
            writer = SealingWriter(file, StreamCipher(seal.key, seal.header))
            _write_authenticated(writer, snapshot, secret, reached)
            writer.finish()
        file.flush()
        os.fsync(file.fileno())


def _write_authenticated(sink: Sink, snapshot: Snapshot, secret: bytes, reached: Reached) -> None:
    digest = hmac.new(secret, digestmod=hashlib.sha256)
    for chunk in _chunks(snapshot):
        digest.update(chunk)
        sink.write(chunk)
        reached(Step.SNAPSHOT_BEGUN)
    sink.write(digest.digest())


def read_snapshot(
    path: Path, key: SnapshotKey, *, secret: bytes, seal_key: Callable[[str], bytes | None] | None = None
) -> Snapshot:
    """Raises SnapshotRejected with the reason, before anything of the file is interpreted that was not authenticated.

    `seal_key` gives the key of that name, or None where it is destroyed; without it, nothing encrypted is read, and with
    it nothing else.
    """
    try:
        content = np.fromfile(path, np.uint8) if seal_key is None else _opened(path, seal_key)
    except OSError as error:
        raise SnapshotRejected(f"cannot be read: {error.strerror}") from None
    body = _authenticated(content, secret)
    header, offset = _header(body)
    if header["key"] != asdict(key):
        raise SnapshotRejected("is of another gallery, model or codebook")
    parts: list[PartState] = []
    for each in header["parts"]:
        part, offset = _part(body, offset, each, dimension=key.dimension)
        parts.append(part)
    digest = SetDigest.from_bytes(bytes.fromhex(header["digest"]))
    return Snapshot(key, header["revision"], header["revision_time"], digest, tuple(parts))


def seal_of(path: Path) -> str:
    """The name of the key that a snapshot is encrypted with; empty where it is not, or is no snapshot, or not there."""
    try:
        with path.open("rb") as file:
            beginning = file.read(len(SEALED_MAGIC) + KEY_ID_BYTES)
    except OSError:
        return ""
    if len(beginning) < len(SEALED_MAGIC) + KEY_ID_BYTES or not beginning.startswith(SEALED_MAGIC):
        return ""
    return beginning[len(SEALED_MAGIC) :].decode("ascii", "replace")


def _opened(path: Path, seal_key: Callable[[str], bytes | None]) -> NDArray[np.uint8]:
    key_id = seal_of(path)
    key = seal_key(key_id) if key_id else None
    if key is None:
        raise SnapshotRejected("is under a key that is gone" if key_id else "is not encrypted, or is damaged")
    header = SnapshotSeal(key_id, key).header
    try:
        return _decrypted(path, StreamCipher(key, header), start=len(header))
    except (InvalidTag, ValueError):
        raise SnapshotRejected("is damaged") from None


def _decrypted(path: Path, cipher: StreamCipher, *, start: int) -> NDArray[np.uint8]:
    size = path.stat().st_size - start
    last = last_chunk(size)
    content = np.empty(max(0, size - (last + 1) * TAG_BYTES), np.uint8)
    with path.open("rb") as file:
        file.seek(start)
        for number in range(last + 1):
            chunk = cipher.opened(file.read(sealed_stream.CHUNK_BYTES + TAG_BYTES), number, is_last=number == last)
            begin = number * sealed_stream.CHUNK_BYTES
            content[begin : begin + len(chunk)] = np.frombuffer(chunk, np.uint8)
    return content


def restored_segments(snapshot: Snapshot) -> tuple[list[Segment], list[Rows]]:
    """The segments, ready to search, and the rows that had no codes yet."""
    segments: list[Segment] = []
    loose: list[Rows] = []
    for part in snapshot.parts:
        if part.codes is None:
            loose.append(part.rows.taken(np.flatnonzero(part.alive)))
        else:
            segment = Segment(part.rows, part.codes)
            segment.keep_only(part.alive)
            segments.append(segment)
    return segments, loose


def _chunks(snapshot: Snapshot) -> Iterator[bytes]:
    codes = [None if part.codes is None else faiss.serialize_index(part.codes.index) for part in snapshot.parts]
    header = {
        "key": asdict(snapshot.key),
        "revision": snapshot.revision,
        "revision_time": snapshot.revision_time,
        "digest": snapshot.digest.to_bytes().hex(),
        "parts": [
            {
                "rows": len(part.rows),
                "code_bytes": 0 if code is None else len(code),
                "fit": None if part.codes is None else asdict(part.codes.fit),
            }
            for part, code in zip(snapshot.parts, codes, strict=True)
        ],
    }
    encoded = json.dumps(header).encode()
    yield MAGIC + LENGTH.pack(len(encoded)) + encoded
    for part, code in zip(snapshot.parts, codes, strict=True):
        rows = part.rows
        arrays = (rows.template_ids, rows.identity_ids, part.alive, rows.vectors, code)
        for array in arrays:
            if array is not None:
                yield from _bytes_of(array)


def _bytes_of(array: NDArray[Any]) -> Iterator[bytes]:
    # Copied once, so that what is written is what was hashed, even if a row is erased meanwhile.
    row_bytes = max(1, array.nbytes // max(1, len(array)))
    step = max(1, CHUNK_BYTES // row_bytes)
    for start in range(0, len(array), step):
        yield np.ascontiguousarray(array[start : start + step]).tobytes()


def _authenticated(content: NDArray[np.uint8], secret: bytes) -> NDArray[np.uint8]:
    if len(content) < len(MAGIC) + LENGTH.size + DIGEST_BYTES or content[: len(MAGIC)].tobytes() != MAGIC:
        raise SnapshotRejected("is no snapshot of this version")
    body = content[:-DIGEST_BYTES]
    digest = hmac.new(secret, body.data, hashlib.sha256).digest()
    if not hmac.compare_digest(digest, content[-DIGEST_BYTES:].tobytes()):
        raise SnapshotRejected("is damaged, or was written by another installation")
    return body


def _header(body: NDArray[np.uint8]) -> tuple[dict[str, Any], int]:
    start = len(MAGIC) + LENGTH.size
    (length,) = LENGTH.unpack(body[len(MAGIC) : start].tobytes())
    return json.loads(body[start : start + length].tobytes()), start + length


def _part(
    body: NDArray[np.uint8], offset: int, description: dict[str, Any], *, dimension: int
) -> tuple[PartState, int]:
    count = description["rows"]
    reader = _Reader(body, offset)
    templates, identities = reader.take(np.int64, count), reader.take(np.int64, count)
    alive = reader.take(np.bool_, count)
    vectors = reader.take(np.float16, count * dimension).reshape(count, dimension)
    code_bytes = description["code_bytes"]
    codes = _codes(reader.take(np.uint8, code_bytes), description["fit"]) if code_bytes else None
    return PartState(Rows(templates, identities, vectors), alive, codes), reader.offset


def _codes(serialized: NDArray[np.uint8], fit: dict[str, Any]) -> Codes:
    return Codes(faiss.deserialize_index(serialized), CodeFit(**fit))


class _Reader:
    """Takes arrays from a body one after the other, each as memory of its own."""

    def __init__(self, body: NDArray[np.uint8], offset: int) -> None:
        self._body = body
        self.offset = offset

    def take(self, dtype: Any, count: int) -> NDArray[Any]:
        size = np.dtype(dtype).itemsize * count
        taken = self._body[self.offset : self.offset + size].copy().view(dtype)
        self.offset += size
        return np.asarray(taken)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
