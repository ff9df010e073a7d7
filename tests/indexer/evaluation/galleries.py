"""Galleries of vectors in which it is known who is who, and what is wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tests.indexer.calibration.populations import unit

from facedex.indexer.evaluation.neighbours import Enrolled, Neighbours

DIMENSION = 64
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Gallery:
    """Vectors (N, DIMENSION) and the identities (N,) that they are filed under."""

    vectors: NDArray[np.float32]
    identities: Rows

    @property
    def enrolled(self) -> Enrolled:
        return Enrolled.of(self.vectors, self.identities)

    @property
    def neighbours(self) -> Neighbours:
        return Neighbours.of(self.enrolled)

    def relabelled(self, templates: list[int], identity: int) -> Gallery:
        identities = self.identities.copy()
        identities[templates] = identity
        return Gallery(self.vectors, identities)


def gallery_of(*, people: int, templates: int, away: float = 0.8, seed: int = 0) -> Gallery:
    """Unrelated people with so many templates each, in mixed order; `away` is how far a template lies from its person."""
    rng = np.random.default_rng(seed)
    persons = unit(rng.standard_normal((people, DIMENSION), np.float32))
    order = rng.permutation(people * templates)
    identities = np.repeat(np.arange(people, dtype=np.int64), templates)[order]
    noise = unit(rng.standard_normal((people * templates, DIMENSION), np.float32))
    return Gallery(unit(persons[identities] + away * noise), identities)


def cosines_of(gallery: Gallery) -> NDArray[np.float64]:
    """All cosines (N, N), that of a template with itself −∞: what a brute force sees."""
    cosines = gallery.vectors.astype(np.float64) @ gallery.vectors.T.astype(np.float64)
    np.fill_diagonal(cosines, -np.inf)
    return cosines
