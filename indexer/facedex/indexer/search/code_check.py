"""Whether the codes of a segment still stand for its vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from facedex.indexer.search.codebook import codebook

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facedex.indexer.search.segment import Codes, Rows

ROWS_AT_ONCE = 16_384
# Two processors may round a tie to different codes, which stand for the vector equally well.
TOLERANCE = 1e-4


def unfit_slots(rows: Rows, codes: Codes) -> NDArray[np.int64]:
    """The slots whose code is not the one that their vector has, as with erased rows; who is alive is to be asked after."""
    dimension = rows.vectors.shape[1]
    quantiser: Any = codebook(dimension, codes.code_bytes).quantiser
    packed = _Packed(codes.index)
    if packed.count != len(rows):
        return np.arange(len(rows))
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        vectors = rows.vectors[start : start + ROWS_AT_ONCE].astype(np.float32)
        unfit = _unfit(quantiser, vectors, packed.codes(start, start + len(vectors)))
        found.append(start + unfit)
    return np.concatenate(found)


def _unfit(quantiser: Any, vectors: NDArray[np.float32], stored: NDArray[np.uint8]) -> NDArray[np.int64]:
    own = quantiser.compute_codes(vectors)
    suspect = np.flatnonzero((own != stored).any(axis=1))
    if not len(suspect):
        return suspect
    excess = _error(quantiser, vectors[suspect], stored[suspect]) - _error(quantiser, vectors[suspect], own[suspect])
    return suspect[~(excess <= TOLERANCE)]


def _error(quantiser: Any, vectors: NDArray[np.float32], codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    decoded = np.asarray(quantiser.decode(np.ascontiguousarray(codes)), np.float32)
    return np.asarray(((vectors - decoded) ** 2).sum(axis=1), np.float32)


class _Packed:
    """The codes of a fast-scan index, which stand in blocks of 32 rows."""

    def __init__(self, index: Any) -> None:
        self._packer = index.get_CodePacker()
        self.count = int(index.invlists.list_size(0))
        blocks = -(-self.count // self._packer.nvec)
        size = blocks * self._packer.block_size
        api: Any = faiss
        self._bytes = api.rev_swig_ptr(index.invlists.get_codes(0), size) if size else np.zeros(0, np.uint8)

    def codes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Of the rows from `start`, which begins a block, to `stop`, a row each."""
        api: Any = faiss
        size, rows = self._packer.block_size, self._packer.nvec
        first, last = start // rows, -(-stop // rows)
        flat = np.zeros(((last - first) * rows, self._packer.code_size), np.uint8)
        for block in range(first, last):
            packed = np.ascontiguousarray(self._bytes[block * size : (block + 1) * size])
            target = flat[(block - first) * rows : (block - first + 1) * rows]
            self._packer.unpack_all(api.swig_ptr(packed), api.swig_ptr(target))
        return flat[: stop - start]
