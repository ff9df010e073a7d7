"""The file of an archive: a ZIP file of plain members, whose comment is the digest of all that stands before it."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import struct
import tempfile
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from facedex.indexer.archive import manifest as manifest_file
from facedex.indexer.archive.errors import ArchiveDamaged, ArchiveForeign
from facedex.indexer.archive.manifest import Manifest, Member
from facedex.indexer.archive.sealed_file import SealedFile, SealingSink, is_sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

ZIP_BEGINNING = b"PK\x03\x04"
# The last record of a ZIP file; its last two bytes are the length of the comment.
END_BYTES = 22
COMMENT_LENGTH = struct.Struct("<H")
DIGEST = b"sha256:"
COMMENT_BYTES = len(DIGEST) + 64
READ_BYTES = 2**20
# More than any member that facedex writes; what is read of a foreign file stays bounded.
MAX_MEMBER_BYTES = 2**28


class Sink(Protocol):
    """Takes bytes, one after the other."""

    def write(self, content: bytes, /) -> int: ...


class ArchiveWriter:
    """Writes members one after the other; the archive is whole only after `finish`."""

    def __init__(self, sink: Sink) -> None:
        self._sink = _DigestedSink(sink)
        # It has no positions to go back to, so sizes stand behind the members.
        self._zip = zipfile.ZipFile(cast("Any", self._sink), "w", zipfile.ZIP_STORED)
        self._members: list[Member] = []

    def add(self, name: str, content: bytes, *, rows: int = 0) -> None:
        self._put(name, content)
        self._members.append(Member(name, rows, len(content), hashlib.sha256(content).hexdigest()))

    def finish(self, manifest: Manifest) -> None:
        """With a manifest in which the members are filled in here."""
        self._put(manifest_file.NAME, replace(manifest, members=tuple(self._members)).to_bytes())
        self._zip.close()
        self._sink.finish()

    def abandon(self) -> None:
        """It will never be whole, and nothing more is written."""
        self._zip.fp = None

    def _put(self, name: str, content: bytes) -> None:
        # Always the same moment: what is in an archive depends on the gallery alone.
        self._zip.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)


class _DigestedSink:
    """Hands on what a ZIP file is made of, with the digest of it as its comment."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._digest = hashlib.sha256()
        # Held back, because the record at the end has to say how long the comment is.
        self._held = b""

    def write(self, content: bytes | bytearray | memoryview, /) -> int:
        held = self._held + bytes(content)
        self._put(held[:-END_BYTES])
        self._held = held[-END_BYTES:]
        return len(content)

    def flush(self) -> None:
        """Nothing is kept that could be handed on."""

    def finish(self) -> None:
        self._put(self._held[: -COMMENT_LENGTH.size] + COMMENT_LENGTH.pack(COMMENT_BYTES))
        self._sink.write(DIGEST + self._digest.hexdigest().encode())

    def _put(self, content: bytes) -> None:
        self._digest.update(content)
        self._sink.write(content)


@contextmanager
def written(target: Path, passphrase: str | None) -> Generator[ArchiveWriter]:
    """An archive that has its name only when it is whole and on disk; only its owner may read it.

    A process that is killed leaves a hidden file beside it that ends with .part.
    """
    with tempfile.NamedTemporaryFile(
        dir=target.parent, prefix=f".{target.name}.", suffix=".part", delete=False
    ) as file:
        try:
            yield from _written(cast("BinaryIO", file), passphrase)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(target)
        except BaseException:
            with suppress(OSError):
                Path(file.name).unlink()
            raise
    _sync_folder(target.parent)


def _written(file: BinaryIO, passphrase: str | None) -> Generator[ArchiveWriter]:
    sealing = None if passphrase is None else SealingSink(file, passphrase)
    writer = ArchiveWriter(sealing or file)
    try:
        yield writer
    except BaseException:
        writer.abandon()
        raise
    if sealing is not None:
        sealing.finish()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ArchiveReader:
    """An archive whose manifest is read. What it gives of a member has the digest that the manifest names."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._zip = _opened_zip(file)
        content = self._content(self._info(manifest_file.NAME))
        self.manifest = Manifest.from_bytes(content)
        # Names the archive: every digest of its members is in it.
        self.digest = hashlib.sha256(content).hexdigest()
        names = [manifest_file.NAME, *(each.name for each in self.manifest.members)]
        if sorted(names) != sorted(self._zip.namelist()):
            raise ArchiveDamaged("its members are not those that its manifest names")

    @classmethod
    @contextmanager
    def open(cls, path: Path, passphrase: Callable[[], str]) -> Generator[ArchiveReader]:
        """`passphrase` is asked for only where the archive is encrypted.

        Raises:
            ArchiveForeign, ArchiveTooNew, ArchiveDamaged, PassphraseWrong: it cannot be read.

        """
        with path.open("rb") as file:
            beginning = file.read(READ_BYTES)
            if not is_sealed(beginning):
                yield cls(_plain(file, beginning))
                return
            with io.BufferedReader(SealedFile(file, passphrase()), READ_BYTES) as opened:
                yield cls(cast("BinaryIO", opened))

    def check(self, report: Callable[[float], None]) -> None:
        """Reads every byte, and every member; `report` is told which share is done. Raises ArchiveDamaged."""
        size = self._file.seek(0, io.SEEK_END) - COMMENT_BYTES
        self._file.seek(0)
        digest = hashlib.sha256()
        for start in range(0, size, READ_BYTES):
            digest.update(self._file.read(min(READ_BYTES, size - start)))
            report(start / size / 2)
        if self._file.read() != DIGEST + digest.hexdigest().encode():
            raise ArchiveDamaged("its content is not what its digest says")
        for place, each in enumerate(self.manifest.members):
            self.content(each)
            report(0.5 + place / len(self.manifest.members) / 2)

    def members(self, folder: str) -> list[Member]:
        """Those of a folder, in order."""
        return [each for each in self.manifest.members if each.name.startswith(f"{folder}/")]

    def content(self, member: Member) -> bytes:
        """Raises ArchiveDamaged."""
        content = self._content(self._info(member.name))
        if len(content) != member.size_bytes or hashlib.sha256(content).hexdigest() != member.sha256:
            raise ArchiveDamaged(f"{member.name} is not what its digest says")
        return content

    def _info(self, name: str) -> zipfile.ZipInfo:
        try:
            return self._zip.getinfo(name)
        except KeyError:
            raise ArchiveForeign(f"it has no {name}") from None

    def _content(self, info: zipfile.ZipInfo) -> bytes:
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > MAX_MEMBER_BYTES:
            raise ArchiveDamaged(f"{info.filename} is compressed or larger than any that facedex writes")
        with _damage_named(f"{info.filename} cannot be read"):
            return self._zip.read(info)


def _plain(file: BinaryIO, beginning: bytes) -> BinaryIO:
    if not beginning.startswith(ZIP_BEGINNING):
        raise ArchiveForeign("it does not begin like one")
    return file


def _opened_zip(file: BinaryIO) -> zipfile.ZipFile:
    with _damage_named("its list of members is missing: it was cut off, or is no whole file"):
        return zipfile.ZipFile(file)


@contextmanager
def _damage_named(problem: str) -> Generator[None]:
    """What the library says of files that are none; trouble with the disk stays what it is."""
    try:
        yield
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError, struct.error):
        raise ArchiveDamaged(problem) from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place before the beginning
            raise
        raise ArchiveDamaged(problem) from None
