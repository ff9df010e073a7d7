"""Overlapping boxes, and boxes that cannot be faces."""

from __future__ import annotations

import numpy as np
import pytest

from facedex.indexer.vision.findings import Findings, suppress_overlaps
from facedex.indexer.vision.pipeline import prominence


def findings(*rows: tuple[float, float, float, float, float]) -> Findings:
    """Rows of score, left, top, right, bottom, with eyes at a quarter and three quarters of the width."""
    values = np.array(rows, np.float32).reshape(-1, 5)
    left, top, right, bottom = values[:, 1:].T
    eye_heights, landmarks = (2 * top + bottom) / 3, np.empty((len(values), 5, 2), np.float32)
    landmarks[:, :, 0] = np.stack([(3 * left + right) / 4, (left + 3 * right) / 4, *[(left + right) / 2] * 3], axis=1)
    landmarks[:, :, 1] = eye_heights[:, None]
    return Findings(values[:, 0], values[:, 1:], landmarks)


def test_of_two_boxes_on_one_face_the_better_stays() -> None:
    kept = suppress_overlaps(findings((0.7, 0, 0, 100, 100), (0.9, 5, 5, 105, 105)), max_iou=0.3)
    assert kept.scores.tolist() == pytest.approx([0.9])


def test_faces_side_by_side_stay_in_descending_score() -> None:
    kept = suppress_overlaps(findings((0.7, 0, 0, 100, 100), (0.9, 90, 0, 190, 100)), max_iou=0.3)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.7])


def test_an_eye_taken_for_a_face_goes_with_the_face_that_it_lies_in() -> None:
    kept = suppress_overlaps(findings((0.9, 0, 0, 300, 300), (0.7, 20, 40, 120, 140)), max_iou=0.3)
    assert kept.scores.tolist() == pytest.approx([0.9])


def test_a_small_face_beside_a_large_one_stays() -> None:
    kept = suppress_overlaps(findings((0.9, 0, 0, 300, 300), (0.7, 260, 200, 360, 300)), max_iou=0.3)
    assert len(kept) == 2


def test_nothing_found_stays_nothing() -> None:
    assert len(suppress_overlaps(findings(), max_iou=0.3)) == 0


@pytest.mark.parametrize(
    "row", [(0.9, 10, 10, 10, 50), (0.9, 50, 10, 10, 50), (0.9, np.nan, 0, 10, 10), (0.9, 0, 0, np.inf, 10)]
)
def test_a_box_without_area_or_with_infinite_sides_is_not_plausible(
    row: tuple[float, float, float, float, float],
) -> None:
    assert not findings(row).are_plausible.any()


def test_eyes_in_one_spot_are_not_plausible() -> None:
    found = findings((0.9, 0, 0, 100, 100))
    found.landmarks[:] = 50
    assert not found.are_plausible.any()


def test_somebody_cut_off_at_the_edge_is_less_prominent_than_the_subject() -> None:
    weights = prominence(findings((0.9, 80, 60, 170, 190), (0.9, -20, 40, 80, 180)), 250, 250)
    assert weights[0] > weights[1]


def test_of_two_faces_equally_far_from_the_middle_the_larger_is_more_prominent() -> None:
    weights = prominence(findings((0.9, 40, 85, 120, 165), (0.9, 150, 105, 190, 145)), 250, 250)
    assert weights[0] > weights[1]
