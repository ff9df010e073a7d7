"""Alignment: a face turned, scaled and moved so that its landmarks lie where the embedder learnt to expect them.

The transform is the 4-parameter similarity that minimises the sum of squared landmark distances (Umeyama, IEEE TPAMI
13(4), 1991). In two dimensions and without reflection it has a closed form in complex numbers: with both point sets
centred, w ≈ a·z with a = Σ z̄w / Σ |z|².
"""

from dataclasses import dataclass
from math import ceil, floor
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facedex.indexer.vision.face import Landmarks
from facedex.indexer.vision.manifest import Border

ARCFACE_SIDE: Final = 112
ARCFACE_LANDMARKS: Final[Landmarks] = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""Where ArcFace nets expect the landmarks on a crop of 112 × 112 (Deng et al., arXiv 1801.07698)."""

_ALIASING_LIMIT: Final = 0.5
"""Bilinear interpolation reads two pixels a side: below half the size it would skip pixels."""

_BORDER_MODES: Final = {Border.CONSTANT: cv2.BORDER_CONSTANT, Border.REPLICATE: cv2.BORDER_REPLICATE}


@dataclass(frozen=True, slots=True)
class Similarity:
    """The map z → turn·z + shift of points x + iy: |turn| is the scale, the angle of turn the rotation."""

    turn: complex
    shift: complex

    @property
    def scale(self) -> float:
        return abs(self.turn)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """2 × 3, for column vectors (x, y, 1)."""
        return np.array(
            [[self.turn.real, -self.turn.imag, self.shift.real], [self.turn.imag, self.turn.real, self.shift.imag]]
        )

    def inverse(self, point: complex) -> complex:
        return (point - self.shift) / self.turn


def fit_similarity(landmarks: Landmarks, template: Landmarks) -> Similarity:
    """The least-squares similarity that moves `landmarks` to `template`. The landmarks must not all coincide."""
    source, target = _complex(landmarks), _complex(template)
    source_centre, target_centre = complex(source.mean()), complex(target.mean())
    centred = source - source_centre
    turn = complex(np.vdot(centred, target - target_centre) / np.vdot(centred, centred).real)
    return Similarity(turn, target_centre - turn * source_centre)


def _complex(points: Landmarks) -> NDArray[np.complex128]:
    return np.array([complex(x, y) for x, y in points])


def align(
    picture: NDArray[np.uint8], similarity: Similarity, *, size: tuple[int, int], border: Border
) -> NDArray[np.uint8]:
    """The crop of width × height `size` that the similarity maps the picture to; large faces are averaged down."""
    if similarity.scale < _ALIASING_LIMIT:
        picture, similarity = _shrink_around(picture, similarity, size)
    return np.asarray(
        cv2.warpAffine(picture, similarity.matrix, size, flags=cv2.INTER_LINEAR, borderMode=_BORDER_MODES[border]),
        dtype=np.uint8,
    )


def _shrink_around(
    picture: NDArray[np.uint8], similarity: Similarity, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], Similarity]:
    """Cut out what the crop shows and average squares of pixels, until the rest is within the aliasing limit."""
    square = min(ceil(_ALIASING_LIMIT / similarity.scale), *picture.shape[:2])
    corners = [similarity.inverse(complex(x, y)) for x in (0, size[0]) for y in (0, size[1])]
    left, columns = _whole_squares([corner.real for corner in corners], picture.shape[1], square)
    top, rows = _whole_squares([corner.imag for corner in corners], picture.shape[0], square)
    cut = picture[top : top + rows * square, left : left + columns * square]
    shrunk = np.asarray(cv2.resize(cut, (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return shrunk, from_reduced(_from_corner(similarity, complex(left, top)), square)


def from_reduced(similarity: Similarity, reduction: int) -> Similarity:
    """The same map from the picture with its sides divided by `reduction`, each pixel the mean of a square."""
    first_centre = complex(reduction - 1, reduction - 1) / 2
    return Similarity(similarity.turn * reduction, similarity.shift + similarity.turn * first_centre)


def _from_corner(similarity: Similarity, corner: complex) -> Similarity:
    return Similarity(similarity.turn, similarity.shift + similarity.turn * corner)


def _whole_squares(positions: list[float], length: int, square: int) -> tuple[int, int]:
    """First pixel and number of whole squares that cover the positions with a margin, within 0 to length."""
    first = min(max(floor(min(positions)) - square, 0), length - square)
    beyond_last = min(max(ceil(max(positions)) + 2 * square, first + square), length)
    return first, (beyond_last - first) // square
