"""What each cell of the detector's maps should say about a canvas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from facedex.indexer.vision.findings import Floats
from facedex.training.detection.mosaics import Canvas
from facedex.training.detection.network import STRIDES

_SIDES_PX: Final = ((0.0, 40.0), (26.0, 90.0), (60.0, np.inf))
"""Sides of the faces that each stride's cells answer for; they overlap, so that no size falls between."""
_CORE: Final = 0.45
"""A cell within this part of a face's side from its centre answers for it."""


@dataclass(frozen=True, slots=True)
class CellTargets:
    """Of all cells of a canvas, stride after stride, row after row.

    is_face (cells,); is_ignored (cells,): neither face nor something else. boxes (cells, 4): centre and logarithms of the
    sides; landmarks (cells, 10). Both in strides and relative to the cell, and only of meaning where a face is.
    """

    is_face: NDArray[np.bool_]
    is_ignored: NDArray[np.bool_]
    boxes: Floats
    landmarks: Floats


def targets_of(canvas: Canvas) -> CellTargets:
    """The canvas's side is a multiple of 32."""
    parts = [_of_stride(canvas, stride, sides) for stride, sides in zip(STRIDES, _SIDES_PX, strict=True)]
    return CellTargets(
        np.concatenate([each.is_face for each in parts]),
        np.concatenate([each.is_ignored for each in parts]),
        np.concatenate([each.boxes for each in parts]),
        np.concatenate([each.landmarks for each in parts]),
    )


def _of_stride(canvas: Canvas, stride: int, sides_px: tuple[float, float]) -> CellTargets:
    across = len(canvas.pixels) // stride
    places = np.stack(np.meshgrid(np.arange(across), np.arange(across)), axis=-1).reshape(-1, 2) * np.float32(stride)
    targets = CellTargets(
        np.zeros(len(places), np.bool_),
        _cells_touching(canvas.ignored, stride).reshape(-1),
        np.zeros((len(places), 4), np.float32),
        np.zeros((len(places), 10), np.float32),
    )
    sides = np.sqrt(np.maximum((canvas.corners[:, 2:] - canvas.corners[:, :2]).prod(axis=1), 0))
    for face in np.argsort(-sides):
        _mark(targets, places, canvas, int(face), stride, answers=sides_px[0] <= sides[face] < sides_px[1])
    return targets


def _mark(targets: CellTargets, places: Floats, canvas: Canvas, face: int, stride: int, *, answers: bool) -> None:
    """Smaller faces come later and win. Around the core, and on strides that do not answer, a face is ignored."""
    first, last = canvas.corners[face, :2], canvas.corners[face, 2:]
    centre, size = (first + last) / 2, last - first
    distances = np.abs(places - centre).max(axis=1)
    side = float(np.sqrt(size.prod()))
    near = distances < max(0.5 * side, 0.5 * stride)
    targets.is_ignored[near & ~targets.is_face] = True
    if not answers:
        return
    core = distances < min(1.5 * stride, max(_CORE * side, 0.71 * stride))
    targets.is_face[core], targets.is_ignored[core] = True, False
    targets.boxes[core, :2] = (centre - places[core]) / stride
    targets.boxes[core, 2:] = np.log(size / stride)
    targets.landmarks[core] = ((canvas.landmarks[face] - places[core][:, None]) / stride).reshape(-1, 10)


def _cells_touching(ignored: NDArray[np.bool_], stride: int) -> NDArray[np.bool_]:
    across = len(ignored) // stride
    return np.asarray(ignored.reshape(across, stride, across, stride).any(axis=(1, 3)), np.bool_)
