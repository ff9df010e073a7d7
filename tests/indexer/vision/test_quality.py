"""Sharpness, brightness and pose."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from facedex.indexer.vision import quality
from facedex.indexer.vision.face import Landmarks
from facedex.indexer.vision.pipeline import FacePipeline

FRONTAL: Landmarks = ((40, 50), (72, 50), (56, 68.65), (44, 83.6), (68, 83.6))


def true_landmarks(row: dict[str, str]) -> Landmarks:
    names = ("eye_r", "eye_l", "nose", "mouth_r", "mouth_l")
    a, b, c, d, e = ((float(row[f"{name}_x"]), float(row[f"{name}_y"])) for name in names)
    return a, b, c, d, e


@pytest.fixture(scope="module")
def posed(people: Path) -> list[dict[str, str]]:
    with (people / "faces.csv").open(encoding="utf-8") as rows:
        return [row for row in csv.DictReader(rows) if row["yaw_deg"] and row["kind"] != "blurred"]


def with_nose(x: float, y: float) -> Landmarks:
    left_eye, right_eye, _, left_mouth, right_mouth = FRONTAL
    return left_eye, right_eye, (x, y), left_mouth, right_mouth


def test_a_frontal_face_is_turned_nowhere() -> None:
    angles = [
        quality.yaw_degrees(FRONTAL),
        quality.pitch_degrees(FRONTAL),
        quality.roll_degrees(FRONTAL),
    ]
    assert angles == pytest.approx([0, 0, 0], abs=0.1)


def test_yaw_is_positive_where_the_nose_points_to_the_right_edge() -> None:
    assert quality.yaw_degrees(with_nose(66, 68.65)) > 10
    assert quality.yaw_degrees(with_nose(46, 68.65)) < -10


def test_pitch_is_positive_where_the_nose_points_up() -> None:
    assert quality.pitch_degrees(with_nose(56, 62)) > 10
    assert quality.pitch_degrees(with_nose(56, 75)) < -10


@pytest.mark.parametrize("angle", [-40.0, 25.0, 90.0])
def test_turning_the_picture_changes_roll_alone(angle: float) -> None:
    turn = np.exp(1j * np.radians(angle))
    a, b, c, d, e = ((z.real, z.imag) for z in (complex(x, y) * turn for x, y in with_nose(60, 70)))
    turned: Landmarks = (a, b, c, d, e)
    assert quality.roll_degrees(turned) == pytest.approx(angle)
    assert quality.yaw_degrees(turned) == pytest.approx(quality.yaw_degrees(with_nose(60, 70)))
    assert quality.pitch_degrees(turned) == pytest.approx(quality.pitch_degrees(with_nose(60, 70)))


def test_yaw_and_roll_of_rendered_heads_are_within_a_few_degrees_of_the_truth(posed: list[dict[str, str]]) -> None:
    yaw = [quality.yaw_degrees(true_landmarks(row)) + float(row["yaw_deg"]) for row in posed]
    roll = [quality.roll_degrees(true_landmarks(row)) - float(row["roll_deg"]) for row in posed]
    assert np.abs(yaw).mean() < 1.5
    assert np.abs(roll).mean() < 1


def test_pitch_of_rendered_heads_follows_the_truth(posed: list[dict[str, str]]) -> None:
    estimates = [quality.pitch_degrees(true_landmarks(row)) for row in posed]
    truth = [-float(row["pitch_deg"]) for row in posed]
    assert np.corrcoef(estimates, truth)[0, 1] > 0.75


def test_a_blurred_face_is_less_sharp_and_just_as_bright(pipeline: FacePipeline, portrait: bytes) -> None:
    sharp = cv2.imdecode(np.frombuffer(portrait, np.uint8), cv2.IMREAD_COLOR)
    blurred = cv2.imencode(".png", cv2.GaussianBlur(np.asarray(sharp), (0, 0), 4))[1].tobytes()
    before, after = (pipeline.detect(photograph).faces[0].face.quality for photograph in (portrait, blurred))
    assert after.sharpness < before.sharpness / 5
    assert after.brightness == pytest.approx(before.brightness, rel=0.05)


def test_size_is_the_shorter_side_of_the_box(pipeline: FacePipeline, portrait: bytes) -> None:
    face = pipeline.detect(portrait).faces[0].face
    assert face.quality.size_px == min(face.box.width, face.box.height)
