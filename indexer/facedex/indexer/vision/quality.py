"""How usable a face is: size, sharpness, brightness and the pose of the head, from the picture and five landmarks.

Sharpness and brightness are measured on a grey crop of 112 × 112 in the ArcFace alignment, whatever the embedder takes,
so that the figures of two embedders can be compared. The pose is an estimate. With the face turned upright in the
picture, the origin in the middle of the eyes and the distance between the eyes as the unit,

    yaw   = atan(nose_x / _NOSE_DEPTH)
    pitch = atan((_NOSE_LEVEL − nose_y / mouth_y) / _NOSE_SWING)

since the tip of the nose stands out before the eyes, and so moves to the side, or between eyes and mouth, when the head
turns.
"""

from math import atan, atan2, degrees
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facedex.indexer.vision.alignment import ARCFACE_LANDMARKS, ARCFACE_SIDE, align, fit_similarity, from_reduced
from facedex.indexer.vision.face import Landmarks
from facedex.indexer.vision.manifest import Border

_NOSE_DEPTH: Final = 0.615
"""Fitted, with `_NOSE_SWING`, to the known pose and landmarks of the rendered faces in tests/data/people."""
_NOSE_SWING: Final = 0.70
_NOSE_LEVEL: Final = 0.555
"""Median of photographs of the press (LFW): how far down between eyes and mouth the nose of a level head is."""


def grey_crop(picture: NDArray[np.uint8], landmarks: Landmarks, reduction: int) -> NDArray[np.uint8]:
    """The face in the ArcFace alignment, 112 × 112, grey; the photograph's sides were divided by `reduction`."""
    similarity = from_reduced(fit_similarity(landmarks, ARCFACE_LANDMARKS), reduction)
    crop = align(picture, similarity, size=(ARCFACE_SIDE, ARCFACE_SIDE), border=Border.REPLICATE)
    return np.asarray(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), dtype=np.uint8)


def sharpness(grey: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian, squared grey levels (Pech-Pacheco et al., ICPR 2000)."""
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


def brightness(grey: NDArray[np.uint8]) -> float:
    """Mean grey level, 0 to 255."""
    return float(grey.mean())


def roll_degrees(landmarks: Landmarks) -> float:
    """Angle of the line from the left to the right eye; positive is clockwise."""
    (left_x, left_y), (right_x, right_y), *_ = landmarks
    return degrees(atan2(right_y - left_y, right_x - left_x))


def yaw_degrees(landmarks: Landmarks) -> float:
    """Turn of the head; positive where the nose points to the right edge of the picture."""
    nose, _ = _upright(landmarks)
    return degrees(atan(nose.real / _NOSE_DEPTH))


def pitch_degrees(landmarks: Landmarks) -> float:
    """Nod of the head; positive where the nose points up."""
    nose, mouth = _upright(landmarks)
    drop = max(mouth.imag, 1e-3)
    return degrees(atan((_NOSE_LEVEL - nose.imag / drop) / _NOSE_SWING))


def _upright(landmarks: Landmarks) -> tuple[complex, complex]:
    """Nose and middle of the mouth, in eye distances from the middle of the eyes, with the eyes level."""
    left_eye, right_eye, nose, left_mouth, right_mouth = (complex(x, y) for x, y in landmarks)
    middle, across = (left_eye + right_eye) / 2, right_eye - left_eye
    return (nose - middle) / across, ((left_mouth + right_mouth) / 2 - middle) / across
