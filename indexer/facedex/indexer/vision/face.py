"""What the detector says about one face."""

from dataclasses import dataclass

Point = tuple[float, float]
Landmarks = tuple[Point, Point, Point, Point, Point]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the upright, full-size photograph; it may reach beyond the picture's edges."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Quality:
    """How usable a face is; how each figure is measured is in `quality.py`."""

    detector_score: float
    """0 to 1: whether this is a face at all; it says nothing about who it is."""
    size_px: float
    """Shorter side of the box, in pixels of the full-size photograph."""
    sharpness: float
    """Variance of the Laplacian of the aligned grey crop of 112 × 112, squared grey levels."""
    brightness: float
    """Mean grey level of that crop, 0 to 255."""
    yaw_degrees: float
    """Turn to the side; positive where the nose points to the right edge of the picture. An estimate."""
    pitch_degrees: float
    """Nod; positive where the nose points up. An estimate."""
    roll_degrees: float
    """Rotation in the picture, of the line between the eyes; positive is clockwise."""


@dataclass(frozen=True, slots=True)
class Face:
    """One face on a photograph, in pixels of the upright, full-size photograph."""

    box: Box
    landmarks: Landmarks
    """Left eye, right eye, nose tip, left and right corner of the mouth; left and right as seen in the picture."""
    quality: Quality
