"""How vectors become 4-bit codes for the fast scan."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import faiss
import numpy as np

TRAINING_ROWS = 8_192
SEED = 20_260_101
LEAST_DIMENSION = 64
# Components of a vector that one byte of code stands for: one bit a component, and half a bit (docs/decisions/0006).
FULL_RATE = 8
HALF_RATE = 16


class Codebook:
    """A product quantiser of 4-bit codes for unit vectors of one dimension.

    It is trained on random directions, not on faces: measured, that loses no more than training on real embeddings, needs
    no data, holds nobody's biometrics, and is the same on every machine. `digest` pins it: codes of another codebook are
    never read.
    """

    def __init__(self, dimension: int, code_bytes: int) -> None:
        faiss.omp_set_num_threads(1)  # with OpenMP's threads, training took 50 times as long on a busy machine
        self.dimension = dimension
        self.code_bytes = code_bytes
        self._coarse = faiss.IndexFlatIP(dimension)
        self._coarse.add(np.zeros((1, dimension), np.float32))
        self._empty = _trained(self._coarse, dimension, code_bytes)
        self.digest = hashlib.sha256(faiss.vector_to_array(self._empty.pq.centroids).tobytes()).hexdigest()

    @property
    def quantiser(self) -> Any:
        """FAISS's product quantiser; nobody may change it."""
        return self._empty.pq

    def empty_index(self) -> Any:
        """An index without rows. It takes its own row numbers, an IDSelector, and is only ever appended to."""
        return faiss.clone_index(self._empty)


def _trained(coarse: Any, dimension: int, code_bytes: int) -> Any:
    api: Any = faiss
    # One list and no residuals: the exhaustive scan, in the one class of FAISS whose fast scan takes selectors.
    index = api.IndexIVFPQFastScan(coarse, dimension, 1, 2 * code_bytes, 4, faiss.METRIC_INNER_PRODUCT)
    index.by_residual = False
    rows = np.random.default_rng(SEED).standard_normal((TRAINING_ROWS, dimension))
    index.train((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    return index


@lru_cache(maxsize=16)
def codebook(dimension: int, code_bytes: int) -> Codebook:
    """The codebook of a dimension: a constant, computed on first use in under a second."""
    return Codebook(dimension, code_bytes)


def codebooks(dimension: int, rates: tuple[int, ...]) -> tuple[Codebook, ...]:
    """The codebooks of a dimension at these rates, in components a byte; none where no code fits."""
    fitting = [rate for rate in rates if dimension >= LEAST_DIMENSION and dimension % rate == 0]
    return tuple(codebook(dimension, dimension // rate) for rate in fitting)


def joint_digest(books: tuple[Codebook, ...]) -> str:
    """One digest for several codebooks; empty for none."""
    return hashlib.sha256("".join(book.digest for book in books).encode()).hexdigest() if books else ""
