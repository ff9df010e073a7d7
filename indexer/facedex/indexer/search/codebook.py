"""How vectors become 4-bit codes for the fast scan."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import faiss
import numpy as np

TRAINING_ROWS = 8_192
SEED = 20_260_101


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


@lru_cache(maxsize=8)
def codebook(dimension: int, code_bytes: int) -> Codebook:
    """The codebook of a dimension: a constant, computed on first use in under a second."""
    return Codebook(dimension, code_bytes)


def code_bytes_of(dimension: int) -> int | None:
    """One bit a component, which loses no face down to cosine 0.3 (docs/decisions/0006); None: no code fits."""
    return dimension // 8 if dimension % 8 == 0 and dimension >= 64 else None
