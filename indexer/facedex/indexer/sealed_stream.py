"""Content of any length under AES-256-GCM, in chunks none of which can be left out, moved, repeated or cut off.

A chunk's nonce is its number and whether it is the last one (the STREAM construction: Hoang, Reyhanitabar, Rogaway and
Vizár, Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance, 2015). So a key seals one stream, never two.
"""

from __future__ import annotations

import struct
from typing import Protocol

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CHUNK_BYTES = 2**20
TAG_BYTES = 16
MAX_CHUNKS = 2**32
NONCE = struct.Struct(">7xI?")


class Sink(Protocol):
    """Where bytes are written to."""

    def write(self, content: bytes, /) -> int: ...


class StreamCipher:
    """Seals and opens the chunks of one stream. `header` stands before it in the open, and is authenticated with it."""

    def __init__(self, key: bytes, header: bytes) -> None:
        self._cipher = AESGCM(key)
        self._header = header

    def sealed(self, chunk: bytes, number: int, *, is_last: bool) -> bytes:
        if number >= MAX_CHUNKS:
            raise OverflowError("an encrypted file holds 4 PiB at most")
        return self._cipher.encrypt(NONCE.pack(number, is_last), chunk, self._header)

    def opened(self, stored: bytes, number: int, *, is_last: bool) -> bytes:
        """Raises InvalidTag or ValueError where it is not that chunk."""
        return self._cipher.decrypt(NONCE.pack(number, is_last), stored, self._header)


class SealingWriter:
    """Encrypts what is written to it; what it wrote is whole only after `finish`."""

    def __init__(self, sink: Sink, cipher: StreamCipher) -> None:
        self._sink = sink
        self._cipher = cipher
        self._held = bytearray()
        self._number = 0

    def write(self, content: bytes, /) -> int:
        self._held += content
        # One chunk is always held back: the last one has to be known for it.
        start = 0
        while len(self._held) - start > CHUNK_BYTES:
            self._put(bytes(self._held[start : start + CHUNK_BYTES]), is_last=False)
            start += CHUNK_BYTES
        del self._held[:start]
        return len(content)

    def finish(self) -> None:
        self._put(bytes(self._held), is_last=True)
        self._held.clear()

    def _put(self, chunk: bytes, *, is_last: bool) -> None:
        self._sink.write(self._cipher.sealed(chunk, self._number, is_last=is_last))
        self._number += 1


def last_chunk(sealed_bytes: int) -> int:
    """The number of the last chunk of so many bytes of chunks."""
    return max(0, -(-sealed_bytes // (CHUNK_BYTES + TAG_BYTES)) - 1)
