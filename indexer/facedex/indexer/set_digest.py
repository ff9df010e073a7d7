"""Keyed digests of templates, and of sets of them in any order (docs/decisions/0302-consistency.md)."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

DIGEST_BYTES = 32
MODULUS = 2 ** (8 * DIGEST_BYTES)
SEAL, MEMBER = b"facedex seal", b"facedex member"
NUMBER = struct.Struct("<q")


class TemplateDigester:
    """Digests of the templates of one model, keyed BLAKE2b.

    A template's *seal* covers its model, its identity's number and its vector in half precision, as store and index both
    hold it: it is known before the template has a number, and stands in its row. The *member* digest binds a seal to the
    template's number, and is what a set's digest is the sum of.
    """

    def __init__(self, key: bytes, *, model_digest: str) -> None:
        self._seal = hashlib.blake2b(key=key, digest_size=DIGEST_BYTES, person=SEAL)
        self._member = hashlib.blake2b(key=key, digest_size=DIGEST_BYTES, person=MEMBER)
        encoded = model_digest.encode()
        self._seal.update(NUMBER.pack(len(encoded)) + encoded)

    def seal(self, identity_id: int, vector: bytes) -> bytes:
        """Of a template's content; `vector` is little-endian fp16. 1.5 µs for 512 components."""
        begun = self._seal.copy()
        begun.update(NUMBER.pack(identity_id))
        begun.update(vector)
        return begun.digest()

    def member(self, template_id: int, seal: bytes) -> bytes:
        begun = self._member.copy()
        begun.update(NUMBER.pack(template_id))
        begun.update(seal)
        return begun.digest()

    def of(self, template_id: int, identity_id: int, vector: bytes) -> bytes:
        """The member digest of a template."""
        return self.member(template_id, self.seal(identity_id, vector))


@dataclass(frozen=True, slots=True)
class SetDigest:
    """The sum of the digests of a set's members, modulo 2²⁵⁶.

    It is the same in whatever order members came and went, and nobody without the key finds two sets that share it
    (MSet-Add-Hash: Clarke et al., Incremental Multiset Hash Functions, 2003).
    """

    value: int = 0

    def plus(self, digests: Iterable[bytes]) -> SetDigest:
        return SetDigest((self.value + _sum(digests)) % MODULUS)

    def minus(self, digests: Iterable[bytes]) -> SetDigest:
        return SetDigest((self.value - _sum(digests)) % MODULUS)

    def to_bytes(self) -> bytes:
        return self.value.to_bytes(DIGEST_BYTES, "little")

    @classmethod
    def from_bytes(cls, stored: bytes) -> SetDigest:
        return cls(int.from_bytes(stored, "little"))


EMPTY = SetDigest()


def _sum(digests: Iterable[bytes]) -> int:
    return sum(int.from_bytes(each, "little") for each in digests)
