"""A secret orthogonal transform: inner products stay, the stored vector comes back bit for bit, and nobody is linked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from facedex.indexer.store.orthogonal import COUNT, Transform

SECRET, SEED = bytes(range(32)), bytes(range(32, 64))
DIMENSION = 128
HALF_FLOATS = st.floats(width=16, allow_nan=False, allow_infinity=False, min_value=-1, max_value=1)


@pytest.fixture(scope="module")
def transform() -> Transform:
    return Transform(SECRET, SEED)


def units(count: int, *, seed: int, dimension: int = DIMENSION) -> np.ndarray:
    """Unit vectors (count, dimension) in half precision."""
    drawn = np.random.default_rng(seed).standard_normal((count, dimension))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), "<f2")


def turned_all(transform: Transform, vectors: np.ndarray) -> np.ndarray:
    """As they are stored (count, dimension), without corrections."""
    dimension = vectors.shape[1]
    stored = [transform.turned(each.tobytes()) for each in vectors]
    return np.stack([np.frombuffer(each[-4 * dimension :], "<f4") for each in stored]).astype(np.float64)


def test_inner_products_stay(transform: Transform) -> None:
    vectors = units(60, seed=1)
    turned = turned_all(transform, vectors)
    plain = vectors.astype(np.float64)
    assert np.abs(turned @ turned.T - plain @ plain.T).max() < 1e-6


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40).flatmap(lambda size: arrays(np.float16, size, elements=HALF_FLOATS)))
def test_every_vector_comes_back_bit_for_bit(vector: np.ndarray) -> None:
    """Also one with zeros of both signs, and with numbers that are smaller than half precision has digits for."""
    transform = Transform(SECRET, SEED)
    content = vector.astype("<f2").tobytes()
    assert transform.restored(transform.turned(content)) == content


def test_vectors_of_models_hardly_ever_need_a_correction(transform: Transform) -> None:
    stored = [transform.turned(each.tobytes()) for each in units(500, seed=2, dimension=512)]
    assert sum(COUNT.unpack_from(each)[0] for each in stored) == 0


def test_the_same_person_cannot_be_told_in_two_galleries() -> None:
    vectors = units(400, seed=3)
    first = turned_all(Transform(SECRET, SEED), vectors)
    second = turned_all(Transform(SECRET, SEED[::-1]), vectors)
    other_secret = turned_all(Transform(SECRET[::-1], SEED), vectors)
    for one, two in ((first, second), (first, other_secret), (first, vectors.astype(np.float64))):
        cosines = (one * two).sum(axis=1)
        # Of directions that have nothing to do with each other: 0 ± 1/√128 each.
        assert abs(cosines.mean()) < 4 / np.sqrt(DIMENSION * len(vectors))
        assert abs(cosines.std() * np.sqrt(DIMENSION) - 1) < 0.2
        assert rank_of_sizes(one, two) < 0.1


def rank_of_sizes(one: np.ndarray, two: np.ndarray) -> float:
    """How often the nearest by sorted sizes of components is the same person: moves and signs alone would not hide it."""
    first, second = np.sort(np.abs(one)), np.sort(np.abs(two))
    distances = ((first[:, None] - second[None]) ** 2).sum(axis=2)
    return float((distances.argmin(axis=1) == np.arange(len(one))).mean())


def test_the_comparison_of_sizes_links_vectors_whose_components_are_only_moved() -> None:
    vectors = units(100, seed=4).astype(np.float64)
    assert rank_of_sizes(vectors, -vectors[:, ::-1]) == 1


def test_the_matrix_is_the_same_in_every_process_and_drawn_evenly(transform: Transform) -> None:
    vectors = units(3, seed=5)
    assert (turned_all(transform, vectors) == turned_all(Transform(SECRET, SEED), vectors)).all()
    matrix = turned_all(transform, np.eye(DIMENSION, dtype="<f2"))
    assert np.abs(matrix @ matrix.T - np.eye(DIMENSION)).max() < 1e-5
    # Without the right signs, QR factors of random matrices have diagonals that lean to one side.
    diagonals = [
        np.diagonal(turned_all(Transform(SECRET, bytes([n]) * 32), np.eye(16, dtype="<f2"))) for n in range(200)
    ]
    assert abs(np.mean(diagonals)) < 4 * 0.25 / np.sqrt(200 * 16)
