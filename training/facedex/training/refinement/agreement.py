"""What a teacher says of a picture's faces when it is asked several times.

A detector puts its landmarks somewhere else when the same picture is moved by a few pixels: YuNet by 2 to 3 % of the
face's side (docs/decisions/0503). The mean over several looks is nearer to what it means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facedex.indexer.vision.findings import Findings
from facedex.indexer.vision.pipeline import unhurried
from facedex.indexer.vision.scan import Scan
from facedex.training.augmentation import MIRRORED_LANDMARKS
from facedex.training.held_out import SAME_FACE, overlap

_LONGER_SIDES: Final = (200.0, 640.0)
_MOST_SHIFT_PX: Final = 32


@dataclass(frozen=True, slots=True)
class _Move:
    """x → across · x + shift x, y → scale · y + shift y; a negative `across` mirrors."""

    across: float
    scale: float
    shift: NDArray[np.float64]

    def back(self, points: NDArray[np.float32]) -> NDArray[np.float64]:
        """Points (…, 2) of the moved picture in the picture."""
        return np.asarray((points - self.shift) / (self.across, self.scale), np.float64)


def look(scan: Scan, picture: NDArray[np.uint8]) -> Findings:
    """All faces, best first."""
    return scan.find(picture, shrunk_by=1, checkpoint=unhurried)


def agreed_faces(teacher: Scan, picture: NDArray[np.uint8], views: int, chance: np.random.Generator) -> Findings:
    """The faces that the teacher finds on the picture and on most of its moved views, with the mean of their landmarks."""
    first = look(teacher, picture)
    if not len(first) or not views:
        return first
    sightings: list[list[NDArray[np.float64]]] = [[] for _ in range(len(first))]
    for _ in range(views):
        corners, landmarks = _seen_moved(teacher, picture, chance)
        for row, own in enumerate(first.corners):
            overlaps = [overlap(own, other) for other in corners]
            if overlaps and max(overlaps) >= SAME_FACE:
                sightings[row].append(landmarks[int(np.argmax(overlaps))])
    often = np.array([len(each) > views / 2 for each in sightings])
    means = [np.mean(each, axis=0) for each in sightings if len(each) > views / 2]
    kept = first.select(often)
    return kept if not means else Findings(kept.scores, kept.corners, np.stack(means).astype(np.float32))


def _seen_moved(
    teacher: Scan, picture: NDArray[np.uint8], chance: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Boxes and landmarks of one moved view, in the picture."""
    move, moved = _moved(picture, chance)
    found = look(teacher, moved)
    edges = move.back(found.corners.reshape(-1, 2, 2))
    corners = np.concatenate([edges.min(axis=1), edges.max(axis=1)], axis=1).astype(np.float32)
    landmarks = move.back(found.landmarks)
    return corners, landmarks[:, MIRRORED_LANDMARKS] if move.across < 0 else landmarks


def _moved(picture: NDArray[np.uint8], chance: np.random.Generator) -> tuple[_Move, NDArray[np.uint8]]:
    height, width = picture.shape[:2]
    scale = float(np.exp(chance.uniform(*np.log(_LONGER_SIDES)))) / max(height, width)
    size = round(width * scale), round(height * scale)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)
    across, down = (int(each) for each in chance.integers(0, _MOST_SHIFT_PX, 2))
    framed = np.asarray(cv2.copyMakeBorder(scaled, down, 0, across, 0, cv2.BORDER_CONSTANT), np.uint8)
    # In whole pixels, whose centres are half a pixel from their edges.
    along, upright = size[0] / width, size[1] / height
    shift = np.array([across + (along - 1) / 2, down + (upright - 1) / 2])
    if chance.random() < 0.5:
        return _Move(along, upright, shift), framed
    mirrored = np.ascontiguousarray(framed[:, ::-1])
    return _Move(-along, upright, np.array([framed.shape[1] - 1 - shift[0], shift[1]])), mirrored
