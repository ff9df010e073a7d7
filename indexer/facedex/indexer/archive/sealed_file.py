"""A file under a pass phrase: AES-256-GCM in chunks, none of which can be left out, moved, repeated or cut off.

    15 bytes   "facedex sealed "
     1 byte    version, 1
     3 bytes   scrypt: log2 N, r, p (RFC 7914)
    16 bytes   salt
    32 bytes   HMAC-SHA256 of what stands before, which tells a wrong pass phrase from a damaged file
    chunks     1 MiB of content each, the last one shorter or as long, each with a tag of 16 bytes

The chunks are those of `facedex.indexer.sealed_stream`; the salt makes a key for each file.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import secrets
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from facedex.indexer import sealed_stream
from facedex.indexer.archive.errors import ArchiveDamaged, ArchiveTooNew, PassphraseWrong
from facedex.indexer.sealed_stream import TAG_BYTES, SealingWriter, StreamCipher, last_chunk

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAGIC = b"facedex sealed "
VERSION = 1
BEGINNING = struct.Struct("<15sBBBB16s")
CHECK_BYTES = 32
HEADER_BYTES = BEGINNING.size + CHECK_BYTES
SALT_BYTES = 16
# A header may not ask for more than this of whoever opens the file.
MAX_MEMORY_BYTES = 2**30
MAX_PASSES = 16


@dataclass(frozen=True, slots=True)
class ScryptCost:
    """How dear a guess at the pass phrase is: 128·r·2^log_n bytes, p times. The default takes 128 MiB and half a second."""

    log_n: int = 17
    r: int = 8
    p: int = 1

    @property
    def is_bearable(self) -> bool:
        return (
            1 <= self.log_n <= 30 and 1 <= self.p <= MAX_PASSES and 0 < 128 * self.r * 2**self.log_n <= MAX_MEMORY_BYTES
        )


@dataclass(frozen=True, slots=True)
class _Keys:
    """What a pass phrase and a header give."""

    key: bytes
    check: bytes

    @classmethod
    def of(cls, passphrase: str, beginning: bytes) -> _Keys:
        _, _, log_n, r, p, salt = BEGINNING.unpack(beginning)
        derived = Scrypt(salt=salt, length=64, n=2**log_n, r=r, p=p).derive(passphrase.encode())
        return cls(derived[:32], hmac.new(derived[32:], beginning, hashlib.sha256).digest())


class SealingSink:
    """Encrypts what is written to it; the file is whole only after `finish`."""

    def __init__(self, sink: BinaryIO, passphrase: str, *, cost: ScryptCost | None = None) -> None:
        cost = cost or ScryptCost()
        beginning = BEGINNING.pack(MAGIC, VERSION, cost.log_n, cost.r, cost.p, secrets.token_bytes(SALT_BYTES))
        keys = _Keys.of(passphrase, beginning)
        header = beginning + keys.check
        sink.write(header)
        self._writer = SealingWriter(sink, StreamCipher(keys.key, header))

    def write(self, content: bytes, /) -> int:
        return self._writer.write(content)

    def finish(self) -> None:
        self._writer.finish()


class SealedFile(io.RawIOBase):
    """The content of an encrypted file, at any place; what was not authenticated is never given.

    Raises ArchiveTooNew, PassphraseWrong, and ArchiveDamaged, the last one also from reading.
    """

    def __init__(self, file: BinaryIO, passphrase: str) -> None:
        super().__init__()
        self._file = file
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        self._header = file.read(HEADER_BYTES)
        self._cipher = _cipher(self._header, passphrase)
        self._last = last_chunk(size - HEADER_BYTES)
        self._chunk: tuple[int, bytes] = (-1, b"")
        self._position = 0
        # Opened at once, so that a file that was cut off is known before anything of it is used.
        self._size = self._last * sealed_stream.CHUNK_BYTES + len(self._opened(self._last))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer).cast("B")
        number, begin = divmod(self._position, sealed_stream.CHUNK_BYTES)
        if self._position >= self._size:
            return 0
        part = self._opened(number)[begin : begin + len(target)]
        target[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _opened(self, number: int) -> bytes:
        if self._chunk[0] != number:
            self._file.seek(HEADER_BYTES + number * (sealed_stream.CHUNK_BYTES + TAG_BYTES))
            stored = self._file.read(sealed_stream.CHUNK_BYTES + TAG_BYTES)
            self._chunk = (number, self._decrypted(stored, number))
        return self._chunk[1]

    def _decrypted(self, stored: bytes, number: int) -> bytes:
        try:
            return self._cipher.opened(stored, number, is_last=number == self._last)
        except (InvalidTag, ValueError):
            raise ArchiveDamaged(
                f"chunk {number + 1} of {self._last + 1} was changed or moved, or the file was cut off"
            ) from None


def is_sealed(beginning: bytes) -> bool:
    """Whether a file that begins so is encrypted."""
    return beginning.startswith(MAGIC)


def _cipher(header: bytes, passphrase: str) -> StreamCipher:
    if len(header) < HEADER_BYTES:
        raise ArchiveDamaged("it ends in its first line")
    beginning, check = header[: BEGINNING.size], header[BEGINNING.size :]
    _, version, *cost, _ = BEGINNING.unpack(beginning)
    if version != VERSION:
        raise ArchiveTooNew(f"of encryption {version}")
    if not ScryptCost(*cost).is_bearable:
        raise ArchiveDamaged("it asks for more memory to open than any that facedex makes")
    keys = _Keys.of(passphrase, beginning)
    if not hmac.compare_digest(keys.check, check):
        raise PassphraseWrong
    return StreamCipher(keys.key, header)
