"""Face-like unit vectors in any number, fitted to real embeddings.

Fitted to 29 685 embeddings of 512 components (MobileFaceNet trained with ArcFace): the spectrum of their covariance, whose
effective dimension is 163, and the cosines of 680 mated pairs of LFW (mean 0.572, standard deviation 0.122). Non-mated
cosines then have a standard deviation of 0.066 to 0.08, as the real ones do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Share of the variance of the n-th principal component, for some n out of 512.
SPECTRUM_KNOTS = {
    1: 0.0332,
    2: 0.0237,
    3: 0.0151,
    6: 0.0092,
    11: 0.0084,
    21: 0.0071,
    51: 0.0052,
    101: 0.0035,
    151: 0.0025,
    201: 0.0017,
    301: 0.0006,
    401: 0.00002,
    512: 0.00001,
}
MATED_MEAN, MATED_DEVIATION = 0.572, 0.122
CHUNK_ROWS = 50_000


@dataclass(frozen=True, slots=True)
class Faces:
    """Templates (n, dimension) in half precision, and mated probes (p, dimension) with the row each one belongs to."""

    templates: NDArray[np.float16]
    probes: NDArray[np.float32]
    mates: NDArray[np.int64]

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        return self.templates[start:stop].astype(np.float32)


def make_faces(template_count: int, probe_count: int, *, dimension: int = 512, seed: int = 1) -> Faces:
    """Seeded, so that every index and every run sees the same faces."""
    rng = np.random.default_rng(seed)
    spread = _spread(dimension)
    turn = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0].astype(np.float32)
    templates = np.empty((template_count, dimension), np.float16)
    for start in range(0, template_count, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, template_count)
        templates[start:stop] = _directions(rng, stop - start, spread, turn)
    mates = rng.choice(template_count, probe_count, replace=probe_count > template_count)
    return Faces(templates, _mated(rng, templates[mates].astype(np.float32), spread, turn), mates)


def _spread(dimension: int) -> NDArray[np.float32]:
    places = np.linspace(1, 512, dimension)
    shares = np.interp(places, list(SPECTRUM_KNOTS), list(SPECTRUM_KNOTS.values()))
    return np.asarray(np.sqrt(shares / shares.sum()), np.float32)


def _directions(
    rng: np.random.Generator, count: int, spread: NDArray[np.float32], turn: NDArray[np.float32]
) -> NDArray[np.float32]:
    return unit((rng.standard_normal((count, len(spread)), dtype=np.float32) * spread) @ turn)


def _mated(
    rng: np.random.Generator, templates: NDArray[np.float32], spread: NDArray[np.float32], turn: NDArray[np.float32]
) -> NDArray[np.float32]:
    cosines = np.clip(rng.normal(MATED_MEAN, MATED_DEVIATION, len(templates)), 0.05, 0.95).astype(np.float32)[:, None]
    other = _directions(rng, len(templates), spread, turn)
    across = unit(other - (other * templates).sum(axis=1, keepdims=True) * templates)
    return unit(cosines * templates + np.sqrt(1 - cosines**2) * across)


def unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    """The rows (n, dimension) at length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
