"""Where and how closely a detector looks at a picture, so that no face is too small, too large or cut by an edge.

A detector sees faces from about 15 to 300 px. So the picture is looked at in two or more sizes: coarsely, with a margin
around it, for faces that fill it; and so finely that the smallest face to be found is large enough for the detector, in
overlapping tiles if need be.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facedex.indexer.vision.detector import Detector
from facedex.indexer.vision.findings import Findings, join, suppress_overlaps

SMALLEST_FACE_PX: Final = 20.0
"""Shorter side of the smallest face that is looked for, unless somebody says otherwise."""
_COARSE_SIDE: Final = 256
"""Longer side of the coarsest look: a face that fills the picture is then as large as the detectors know faces."""
_FINE_SIDE: Final = 640
"""Up to here a finer look costs little, and places the landmarks better."""
_FINEST_SIDE: Final = 2000
"""Beyond, the finest look would take a tenth of a second and more: the smallest face grows with the picture instead."""
_STEP: Final = 6
"""From one look to the next coarser one; a face too large for the tiles' overlap is still 21 px there."""
_OVERLAP_PX: Final = 128
_LARGEST_TILE_PX: Final = 1280
_COARSE_TOLERANCE: Final = 1.7
"""A look at up to 435 px serves as the coarsest one."""
_MARGIN: Final = 0.25
"""Width of the margin around the coarsest look, as a part of each side."""


Checkpoint = Callable[[], None]
"""Called before each costly step; it may raise, to stop work that nobody waits for any more."""


@dataclass(frozen=True, slots=True)
class Scan:
    """All the looks of one detector at a picture, joined into faces."""

    detector: Detector
    smallest_face_px: float = SMALLEST_FACE_PX
    """Shorter side of the smallest face to be found, in pixels of the full-size photograph."""

    def find(self, picture: NDArray[np.uint8], *, shrunk_by: int, checkpoint: Checkpoint) -> Findings:
        """The faces, best first, in pixels of `picture`: the photograph with its sides divided by `shrunk_by`."""
        scales = looking_scales(
            max(picture.shape[:2]), finest_side=self.finest_side(max(picture.shape[:2]) * shrunk_by)
        )
        looks = [look for scale in scales[:-1] for look in self._look_in_tiles(picture, scale, checkpoint)]
        found = join([*looks, self._look_with_margin(picture, scales[-1], checkpoint)])
        faces = suppress_overlaps(found.select(found.are_plausible), max_iou=self.detector.contract.nms_iou)
        return self.detector.refine(picture, faces)

    def finest_side(self, longer_side: int) -> int:
        """Longer side of the finest look at a photograph, in pixels."""
        wanted = longer_side * self.detector.contract.smallest_face_px / self.smallest_face_px
        return ceil(min(longer_side, max(_FINE_SIDE, min(wanted, _FINEST_SIDE))))

    def _look_with_margin(self, picture: NDArray[np.uint8], scale: float, checkpoint: Checkpoint) -> Findings:
        checkpoint()
        shrunk = shrink(picture, scale)
        right, down = round(_MARGIN * shrunk.shape[1]), round(_MARGIN * shrunk.shape[0])
        framed = cv2.copyMakeBorder(shrunk, down, down, right, right, cv2.BORDER_CONSTANT)
        found = self.detector.look(np.asarray(framed, dtype=np.uint8))
        return found.placed(scale=1, left=-right, top=-down).placed(scale=_widening(shrunk, picture), left=0, top=0)

    def _look_in_tiles(self, picture: NDArray[np.uint8], scale: float, checkpoint: Checkpoint) -> Iterator[Findings]:
        shrunk = shrink(picture, scale)
        widening = _widening(shrunk, picture)
        for tile in self._tiles(shrunk):
            checkpoint()
            found = self.detector.look(np.ascontiguousarray(tile.cut(shrunk)))
            yield found.select(tile.holds(found)).placed(
                scale=widening, left=tile.left * widening, top=tile.top * widening
            )

    def _tiles(self, picture: NDArray[np.uint8]) -> "list[Tile]":
        largest_width, largest_height = self.detector.fixed_size or (_LARGEST_TILE_PX, _LARGEST_TILE_PX)
        height, width = picture.shape[:2]
        columns, rows = cut_in_tiles(width, largest_width), cut_in_tiles(height, largest_height)
        return [
            Tile(*column, *row, picture_width=width, picture_height=height) for row, column in product(rows, columns)
        ]


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of a picture that one look takes in; it overlaps its neighbours."""

    left: int
    right: int
    top: int
    bottom: int
    picture_width: int
    picture_height: int

    def cut(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return picture[self.top : self.bottom, self.left : self.right]

    def holds(self, found: Findings) -> NDArray[np.bool_]:
        """Which findings are whole. Those on the border of a neighbour are whole there, or in a coarser look."""
        left, top, right, bottom = found.corners.T
        whole = (
            ((left > 0) | (self.left == 0))
            & ((top > 0) | (self.top == 0))
            & ((right < self.right - self.left) | (self.right == self.picture_width))
            & ((bottom < self.bottom - self.top) | (self.bottom == self.picture_height))
        )
        return np.asarray(whole, dtype=np.bool_)


def looking_scales(longer_side: int, *, finest_side: int) -> list[float]:
    """By how much a picture is scaled for each look, finest first; never up."""
    coarsest = min(1.0, _COARSE_SIDE / longer_side)
    scales = [min(1.0, finest_side / longer_side)]
    while scales[-1] > coarsest * _COARSE_TOLERANCE:
        scales.append(max(scales[-1] / _STEP, coarsest))
    return scales


def cut_in_tiles(length: int, largest: int) -> list[tuple[int, int]]:
    """First and beyond-last pixel of equal tiles that cover the length and overlap by 128 px or more."""
    count = max(1, ceil((length - _OVERLAP_PX) / (largest - _OVERLAP_PX)))
    tile = min(length, ceil((length + (count - 1) * _OVERLAP_PX) / count))
    starts = [round(number * (length - tile) / max(1, count - 1)) for number in range(count)]
    return [(start, start + tile) for start in starts]


def shrink(picture: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """The picture scaled down: by halves as often as that fits, which averages every pixel, then bilinearly."""
    height, width = picture.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    while picture.shape[1] >= 2 * size[0] and picture.shape[0] >= 2 * size[1]:
        picture = _halve(picture)
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _halve(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    even = picture[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _widening(shrunk: NDArray[np.uint8], picture: NDArray[np.uint8]) -> float:
    return float(max(picture.shape[:2]) / max(shrunk.shape[:2]))
