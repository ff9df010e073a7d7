"""Faces on photographs, and their vectors."""

import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Point:
    """A position in pixels of the upright photograph (EXIF orientation applied)."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle around a face, in pixels of the upright photograph.

    It may reach beyond the picture for a face that is cut off.
    """

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Quality:
    """How usable a face is.

    `detector_score` is 0 to 1, `size_px` the shorter side of the box, `sharpness` the variance of the Laplacian of the
    aligned crop in squared grey levels, `brightness` its mean grey level from 0 to 255. The angles are 0 for an upright
    frontal face.
    """

    detector_score: float
    size_px: float
    sharpness: float
    brightness: float
    yaw_degrees: float
    pitch_degrees: float
    roll_degrees: float


@dataclass(frozen=True, slots=True)
class Face:
    """A face found on a photograph.

    The landmarks are left eye, right eye, nose tip, left and right corner of the mouth, left and right as seen in the
    picture.
    """

    box: Box
    landmarks: tuple[Point, ...]
    quality: Quality


@dataclass(frozen=True, slots=True)
class Vector:
    """One face as a unit vector of one embedder.

    `values` are little-endian float32 components, four bytes each; `model_digest` is the SHA-256 of the embedder that
    made them. A gallery refuses vectors of another model.
    """

    values: bytes
    model_digest: str

    def __post_init__(self) -> None:
        if not self.values or len(self.values) % 4:
            raise ValueError(f"a vector is float32 components of 4 bytes each; got {len(self.values)} bytes")

    @classmethod
    def from_floats(cls, components: Iterable[float], *, model_digest: str) -> Self:
        return cls(_little_endian(array("f", components)).tobytes(), model_digest)

    def to_floats(self) -> tuple[float, ...]:
        return tuple(_little_endian(array("f", self.values)))


def _little_endian(components: "array[float]") -> "array[float]":
    if sys.byteorder == "big":
        components.byteswap()
    return components
