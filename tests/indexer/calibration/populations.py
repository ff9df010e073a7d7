"""People of known error rates: galleries and strangers are drawn from them as often as a test likes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from facedex.indexer.calibration.scores import NonMatedSearches, searches_of, searches_of_gallery

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

DIMENSION = 96
TEMPLATES = 300

Draw = Callable[[np.random.Generator, int], "Vectors"]
"""Photographs of so many people, one each."""
Calibrate = Callable[[np.random.Generator], NonMatedSearches]
"""The non-mated searches of one calibration, in a gallery of `TEMPLATES` templates."""
Tops = Callable[[np.random.Generator, int, int], "NDArray[np.float64]"]
"""Top scores of so many strangers in a gallery of so many templates."""


@dataclass(frozen=True, slots=True)
class Population:
    """What a calibration sees, and what is true: scores of many strangers in many galleries of two sizes, sorted."""

    calibrate: Calibrate
    tops: NDArray[np.float64]
    tops_in_ten_times: NDArray[np.float64]

    def fpir(self, threshold: float) -> float:
        return true_share(self.tops, threshold)

    def fpir_in_ten_times(self, threshold: float) -> float:
        return true_share(self.tops_in_ten_times, threshold)


def population(calibrate: Calibrate, tops: Tops) -> Population:
    rng = np.random.default_rng(99)
    return Population(
        calibrate,
        np.sort(np.concatenate([tops(rng, TEMPLATES, 1_000) for _ in range(150)])),
        np.sort(np.concatenate([tops(rng, 10 * TEMPLATES, 500) for _ in range(40)])),
    )


def true_share(scores: NDArray[np.float64], threshold: float) -> float:
    return 1 - float(np.searchsorted(scores, threshold)) / len(scores)


def unit(vectors: NDArray[np.floating]) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def unrelated(rng: np.random.Generator, people: int) -> Vectors:
    return unit(rng.standard_normal((people, DIMENSION), np.float32))


def of_families(rng: np.random.Generator, people: int, *, families: int = 600) -> Vectors:
    """Everybody has about as many brothers as there are people to a family; brothers have a cosine of about 0.45."""
    parents = unrelated(np.random.default_rng(7), families)
    return unit(np.sqrt(0.45) * parents[rng.integers(families, size=people)] + np.sqrt(0.55) * unrelated(rng, people))


def with_duplicates(rng: np.random.Generator, people: int, *, draw: Draw = unrelated) -> Vectors:
    """Two of a hundred are enrolled twice, under two identities, by photographs with a cosine of about 0.86."""
    vectors = draw(rng, people)
    twice = people // 50
    vectors[:twice] = unit(vectors[twice : 2 * twice] + 0.6 * unrelated(rng, twice))
    return vectors


def strangers(
    rng: np.random.Generator, *, gallery: Draw, probes: Draw, people: int, photographs: int
) -> NonMatedSearches:
    enrolled, faces = gallery(rng, TEMPLATES), probes(rng, people)
    faces = np.repeat(faces, photographs, axis=0)
    if photographs > 1:
        faces = unit(faces + 0.3 * unrelated(rng, len(faces)))
    who = TEMPLATES + np.repeat(np.arange(people), photographs)
    return searches_of(enrolled, np.arange(TEMPLATES), faces, who).non_mated


def gallery_itself(rng: np.random.Generator, *, gallery: Draw) -> NonMatedSearches:
    return searches_of_gallery(gallery(rng, TEMPLATES), np.arange(TEMPLATES)).non_mated


def tops_of(gallery: Draw, probes: Draw) -> Tops:
    def tops(rng: np.random.Generator, templates: int, searches: int) -> NDArray[np.float64]:
        return np.asarray((probes(rng, searches) @ gallery(rng, templates).T).max(axis=1), np.float64)

    return tops


def heavy_tops(rng: np.random.Generator, templates: int, searches: int) -> NDArray[np.float64]:
    """The best of many comparisons that follow Student's t with 4 degrees of freedom, wider for poor photographs."""
    widths = 0.02 * rng.lognormal(0.0, 0.3, searches)
    return np.asarray(widths * stdtrit(4, rng.random(searches) ** (1 / templates)), np.float64)


def heavy_strangers(rng: np.random.Generator) -> NonMatedSearches:
    count = 1_000
    nearest = rng.integers(TEMPLATES, size=count)
    return NonMatedSearches(heavy_tops(rng, TEMPLATES, count), TEMPLATES + np.arange(count), nearest, TEMPLATES)
