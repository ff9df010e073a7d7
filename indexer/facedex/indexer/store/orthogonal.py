"""A secret orthogonal transform of vectors, which can be changed like a password (ISO/IEC 24745: renewable references)."""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

if TYPE_CHECKING:
    from numpy.typing import NDArray

SECRET_BYTES = 32
SEED_BYTES = 32
COUNT = struct.Struct("<H")
# Component, and what it is.
CORRECTIONS = np.dtype([("component", "<u2"), ("value", "<f2")])


class Transform:
    """Turns the space of vectors about: inner products stay, and who has not the secret cannot tell whose vectors they are.

    The matrix is drawn evenly among all orthogonal ones (Haar measure: Stewart, SIAM J. Numer. Anal. 17, 1980). Turned
    vectors are 32-bit floats, so that what comes back is the stored vector, bit for bit; the few components that would
    not come back, such as a negative zero, are noted beside them.
    """

    def __init__(self, secret: bytes, seed: bytes) -> None:
        self._key = hmac.new(secret, b"facedex transform" + seed, hashlib.sha256).digest()
        # Of 512 components: 2 MB.
        self._matrices: dict[int, NDArray[np.float64]] = {}

    def turned(self, vector: bytes) -> bytes:
        """`vector` is little-endian fp16 (dimension,), at most 65 535 components."""
        plain = np.frombuffer(vector, "<f2")
        turned = (self._matrix(len(plain)) @ plain.astype(np.float64)).astype("<f4")
        wrong = np.flatnonzero(_bits(self._turned_back(turned)) != _bits(plain))
        corrections = np.empty(len(wrong), CORRECTIONS)
        corrections["component"], corrections["value"] = wrong, plain[wrong]
        return COUNT.pack(len(wrong)) + corrections.tobytes() + turned.tobytes()

    def restored(self, turned: bytes) -> bytes:
        """The vector that `turned` was made of."""
        (count,) = COUNT.unpack_from(turned)
        corrections = np.frombuffer(turned, CORRECTIONS, count, COUNT.size)
        vector = self._turned_back(np.frombuffer(turned, "<f4", offset=COUNT.size + corrections.nbytes))
        vector[corrections["component"]] = corrections["value"]
        return vector.tobytes()

    def _turned_back(self, turned: NDArray[np.float32]) -> NDArray[np.float16]:
        # A zero added makes all zeros positive.
        return (turned.astype(np.float64) @ self._matrix(len(turned))).astype("<f2") + np.float16(0)

    def _matrix(self, dimension: int) -> NDArray[np.float64]:
        known = self._matrices.get(dimension)
        return self._matrices.setdefault(dimension, _drawn(self._key, dimension)) if known is None else known


def _bits(vector: NDArray[np.float16]) -> NDArray[np.uint16]:
    return vector.view("<u2")


def _drawn(key: bytes, dimension: int) -> NDArray[np.float64]:
    stream = hashlib.shake_256(key + COUNT.pack(dimension)).digest(8 * dimension**2)
    # The middle of one of 2⁵³ parts of (0, 1): neither end is ever met.
    uniform = ((np.frombuffer(stream, "<u8") >> 11) + 0.5) / 2**53
    factor, triangle = np.linalg.qr(ndtri(uniform).reshape(dimension, dimension))
    return np.asarray(factor * np.sign(np.diagonal(triangle)))
