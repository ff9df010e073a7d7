"""The similarity transform and the crop that it makes."""

from __future__ import annotations

from math import cos, radians, sin

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from facedex.indexer.vision.alignment import ARCFACE_LANDMARKS, align, fit_similarity, from_reduced
from facedex.indexer.vision.face import Landmarks
from facedex.indexer.vision.manifest import Border

SIZE = (112, 112)


def moved(points: Landmarks, *, scale: float, angle_degrees: float, shift: tuple[float, float]) -> Landmarks:
    cosine, sine = scale * cos(radians(angle_degrees)), scale * sin(radians(angle_degrees))
    dx, dy = shift
    a, b, c, d, e = ((cosine * x - sine * y + dx, sine * x + cosine * y + dy) for x, y in points)
    return a, b, c, d, e


def applied(matrix: NDArray[np.float64], points: Landmarks) -> NDArray[np.float64]:
    return np.column_stack([np.array(points), np.ones(5)]) @ matrix.T


@given(
    scale=st.floats(0.05, 20),
    angle_degrees=st.floats(-180, 180),
    shift=st.tuples(st.floats(-1000, 1000), st.floats(-1000, 1000)),
)
def test_a_scaled_turned_and_moved_template_is_moved_back_exactly(
    scale: float, angle_degrees: float, shift: tuple[float, float]
) -> None:
    landmarks = moved(ARCFACE_LANDMARKS, scale=scale, angle_degrees=angle_degrees, shift=shift)
    similarity = fit_similarity(landmarks, ARCFACE_LANDMARKS)
    assert np.allclose(applied(similarity.matrix, landmarks), ARCFACE_LANDMARKS, atol=1e-6)
    assert similarity.scale == pytest.approx(1 / scale)


def test_noisy_landmarks_are_fitted_as_linear_least_squares_does() -> None:
    noise = np.random.default_rng(1).normal(0, 3, (5, 2))
    points = np.array(ARCFACE_LANDMARKS) * 2 + noise
    a, b, c, d, e = ((float(x), float(y)) for x, y in points)
    rows = np.concatenate([[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in points])
    (cosine, sine, dx, dy), *_ = np.linalg.lstsq(rows, np.array(ARCFACE_LANDMARKS).ravel(), rcond=None)
    expected = [[cosine, -sine, dx], [sine, cosine, dy]]
    assert np.allclose(fit_similarity((a, b, c, d, e), ARCFACE_LANDMARKS).matrix, expected)


def test_a_mirrored_face_is_not_mirrored_back() -> None:
    right, left, nose, right_mouth, left_mouth = ((112 - x, y) for x, y in ARCFACE_LANDMARKS)
    mirrored: Landmarks = (right, left, nose, right_mouth, left_mouth)
    assert np.linalg.det(fit_similarity(mirrored, ARCFACE_LANDMARKS).matrix[:, :2]) > 0


def waves(width: int, height: int, *, period_px: float) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:height, :width] + 0.5
    grey = 127 + 100 * np.sin(2 * np.pi * columns / period_px) * np.cos(2 * np.pi * rows / period_px)
    return np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8)


def test_a_face_in_place_is_cut_out_unchanged() -> None:
    picture = waves(200, 200, period_px=40)
    landmarks = moved(ARCFACE_LANDMARKS, scale=1, angle_degrees=0, shift=(30, 50))
    crop = align(picture, fit_similarity(landmarks, ARCFACE_LANDMARKS), size=SIZE, border=Border.CONSTANT)
    assert np.abs(crop.astype(int) - picture[50:162, 30:142]).max() <= 1


@pytest.mark.parametrize("scale", [2.5, 5, 12])
def test_a_large_face_is_cut_out_like_the_same_face_in_small(scale: float) -> None:
    large = waves(1800, 1800, period_px=30 * scale)
    landmarks = moved(ARCFACE_LANDMARKS, scale=scale, angle_degrees=0, shift=((scale - 1) / 2, (scale - 1) / 2))
    crop = align(large, fit_similarity(landmarks, ARCFACE_LANDMARKS), size=SIZE, border=Border.REPLICATE)
    assert np.abs(crop.astype(int) - waves(*SIZE, period_px=30)).mean() < 2


def test_detail_too_fine_for_the_crop_is_averaged_and_makes_no_pattern() -> None:
    stripes = waves(1200, 1200, period_px=2.3)
    landmarks = moved(ARCFACE_LANDMARKS, scale=8, angle_degrees=11, shift=(100, 100))
    crop = align(stripes, fit_similarity(landmarks, ARCFACE_LANDMARKS), size=SIZE, border=Border.REPLICATE)
    assert crop.std() < 5


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_a_reduced_picture_gives_the_crop_of_the_full_one(reduction: int) -> None:
    picture = waves(1600, 1600, period_px=300)
    side = 1600 // reduction
    reduced = np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    landmarks = moved(ARCFACE_LANDMARKS, scale=9, angle_degrees=20, shift=(500, 100))
    similarity = fit_similarity(landmarks, ARCFACE_LANDMARKS)
    full = align(picture, similarity, size=SIZE, border=Border.REPLICATE)
    quick = align(reduced, from_reduced(similarity, reduction), size=SIZE, border=Border.REPLICATE)
    assert np.abs(full.astype(int) - quick).max() <= 3


def test_beyond_the_picture_the_crop_is_black_or_repeats_the_edge() -> None:
    white = np.full((60, 60, 3), 255, np.uint8)
    landmarks = moved(ARCFACE_LANDMARKS, scale=1, angle_degrees=0, shift=(-60, -60))
    similarity = fit_similarity(landmarks, ARCFACE_LANDMARKS)
    assert align(white, similarity, size=SIZE, border=Border.CONSTANT).min() == 0
    assert align(white, similarity, size=SIZE, border=Border.REPLICATE).min() == 255


@pytest.mark.parametrize("shift", [(-5000, 0), (5000, 5000), (0, -300)])
def test_a_large_face_far_outside_the_picture_still_gives_a_crop(shift: tuple[float, float]) -> None:
    landmarks = moved(ARCFACE_LANDMARKS, scale=10, angle_degrees=0, shift=shift)
    similarity = fit_similarity(landmarks, ARCFACE_LANDMARKS)
    crop = align(waves(40, 30, period_px=10), similarity, size=SIZE, border=Border.REPLICATE)
    assert crop.shape == (112, 112, 3)
