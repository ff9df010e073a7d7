from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from facedex.indexer.errors import VectorInvalid, WrongModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from facedex.indexer.store.records import ModelRecord

UNIT_LENGTH_TOLERANCE = 1e-3


def checked_vector(vector: NDArray[np.float32], *, model_digest: str, model: ModelRecord) -> NDArray[np.float32]:
    """The vector (dimension,) at exactly unit length (invariants 4 and 5).

    Raises:
        WrongModel: it was made by another model.
        VectorInvalid: it has another length, is not finite, or is not of unit length.

    """
    if model_digest != model.digest:
        raise WrongModel(expected=model.digest, received=model_digest)
    if vector.shape != (model.dimension,):
        raise VectorInvalid("vector", f"has {vector.size} components, model {model.name} makes {model.dimension}")
    if not np.isfinite(vector).all():
        raise VectorInvalid("vector", "holds NaN or infinity")
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if abs(length - 1) > UNIT_LENGTH_TOLERANCE:
        raise VectorInvalid("vector", f"has Euclidean length {length:.4g}; divide it by its length to make it 1")
    return (vector / length).astype(np.float32)


def cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Of two unit vectors (dimension,)."""
    return float(np.clip(np.dot(first.astype(np.float64), second.astype(np.float64)), -1.0, 1.0))
