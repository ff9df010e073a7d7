"""Canvases to learn detection from: photographs side by side, each scaled so that faces of all sizes are seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facedex.indexer.vision.findings import Floats
from facedex.training.augmentation import MIRRORED_LANDMARKS
from facedex.training.detection.labelled import LabelledPhotograph, LabelledPhotographs

_LEAST_VISIBLE: Final = 0.55
"""A face of which less is on its tile is neither learnt as a face nor as something else."""
_LEAST_SCORE: Final = 0.6
_LEAST_SIDE_PX: Final = 8.0
_LEAST_GROUND_PX: Final = 24


@dataclass(frozen=True, slots=True)
class MosaicSettings:
    """The canvas's side in pixels, and how often what happens."""

    side: int = 256
    smallest_face_px: float = 10.0
    whole_share: float = 0.25
    """Canvases of one photograph; the others have four."""
    emptied_share: float = 0.12
    """Photographs placed so that chance decides whether their faces are seen."""
    ground_share: float = 0.6
    """Photographs that lie on a part of another one without faces; the others on one colour or their own edge drawn out."""
    faceless_share: float = 0.15
    """Tiles that show nothing but such a part: what a detector has never seen it takes for faces."""
    turn_degrees: float = 25.0
    blurred_share: float = 0.1
    compressed_share: float = 0.1
    grey_share: float = 0.15


@dataclass(frozen=True, slots=True)
class Canvas:
    """A picture of side × side × 3, BGR, and the faces on it.

    corners (n, 4), landmarks (n, 5, 2). ignored (side, side): where nothing is learnt.
    """

    pixels: NDArray[np.uint8]
    corners: Floats
    landmarks: Floats
    ignored: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Tile:
    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> NDArray[np.float64]:
        return np.array([self.right - self.left, self.bottom - self.top], np.float64)

    @property
    def corner(self) -> NDArray[np.float64]:
        return np.array([self.left, self.top], np.float64)


@dataclass(frozen=True, slots=True)
class _Faces:
    corners: Floats
    landmarks: Floats
    is_learnt: NDArray[np.bool_]


_NO_FACES: Final = _Faces(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.bool_))


def draw_canvas(photographs: LabelledPhotographs, settings: MosaicSettings, chance: np.random.Generator) -> Canvas:
    """One canvas; the same chance gives the same."""
    side = settings.side
    pixels = np.full((side, side, 3), chance.integers(0, 256, 3), np.uint8)
    parts = [_draw_tile(pixels, tile, photographs, settings, chance) for tile in _tiles(settings, chance)]
    corners = np.concatenate([each.corners for each in parts])
    landmarks = np.concatenate([each.landmarks for each in parts])
    learnt = np.concatenate([each.is_learnt for each in parts])
    ignored = _covered(corners[~learnt], side)
    return Canvas(_weathered(pixels, settings, chance), corners[learnt], landmarks[learnt], ignored)


def _tiles(settings: MosaicSettings, chance: np.random.Generator) -> list[_Tile]:
    side = settings.side
    if chance.random() < settings.whole_share:
        return [_Tile(0, 0, side, side)]
    across, down = (chance.uniform(0.3, 0.7, 2) * side).astype(int).tolist()
    return [
        _Tile(left, top, right, bottom)
        for left, right in ((0, across), (across, side))
        for top, bottom in ((0, down), (down, side))
    ]


def _draw_tile(
    pixels: NDArray[np.uint8],
    tile: _Tile,
    photographs: LabelledPhotographs,
    settings: MosaicSettings,
    chance: np.random.Generator,
) -> _Faces:
    faceless = bool(chance.random() < settings.faceless_share)
    has_ground = faceless or bool(chance.random() < settings.ground_share)
    has_ground = has_ground and _lay_ground(pixels, tile, photographs, chance)
    if faceless and has_ground:
        return _NO_FACES
    photograph = photographs[int(chance.integers(len(photographs)))]
    matrix, mirrored = _placement(photograph, tile, settings, chance)
    _paint(pixels, tile, photograph.pixels, matrix, chance, border=cv2.BORDER_TRANSPARENT if has_ground else None)
    return _placed_faces(photograph, tile, matrix, mirrored=mirrored)


def _lay_ground(
    pixels: NDArray[np.uint8], tile: _Tile, photographs: LabelledPhotographs, chance: np.random.Generator
) -> bool:
    """A part without faces of some photograph, stretched over the tile; False where the drawn one has none."""
    part = _faceless_part(photographs[int(chance.integers(len(photographs)))], chance)
    if part is None:
        return False
    height = int(chance.uniform(0.3, 1.0) * len(part))
    top = int(chance.integers(0, len(part) - height + 1))
    cut = part[top : top + height, :: int(chance.choice([1, -1]))]
    size = (tile.right - tile.left, tile.bottom - tile.top)
    pixels[tile.top : tile.bottom, tile.left : tile.right] = cv2.resize(np.ascontiguousarray(cut), size)
    return True


def _faceless_part(photograph: LabelledPhotograph, chance: np.random.Generator) -> NDArray[np.uint8] | None:
    """All columns to the left or to the right of the faces, as far as they are wide enough."""
    width, corners = photograph.pixels.shape[1], photograph.faces.corners
    if not len(corners):
        return photograph.pixels
    sides = [(0, int(corners[:, 0].min())), (int(corners[:, 2].max()) + 1, width)]
    wide = [(first, last) for first, last in sides if last - first >= _LEAST_GROUND_PX]
    if not wide:
        return None
    first, last = wide[int(chance.integers(len(wide)))]
    return photograph.pixels[:, first:last]


def _placement(
    photograph: LabelledPhotograph, tile: _Tile, settings: MosaicSettings, chance: np.random.Generator
) -> tuple[NDArray[np.float64], bool]:
    """The map (2, 3) from photograph to canvas that brings its largest face to a drawn size and place."""
    centre, face_side = _main_face(photograph)
    if chance.random() < settings.emptied_share:
        centre = chance.uniform(0, 1, 2) * photograph.pixels.shape[1::-1]
    wanted = np.exp(chance.uniform(np.log(settings.smallest_face_px), np.log(tile.size.max())))
    turn = np.deg2rad(chance.uniform(-settings.turn_degrees, settings.turn_degrees)) * (chance.random() < 0.7)
    mirrored = bool(chance.random() < 0.5)
    cosine, sine = np.cos(turn) * wanted / face_side, np.sin(turn) * wanted / face_side
    linear = np.array([[-cosine if mirrored else cosine, -sine], [-sine if mirrored else sine, cosine]])
    place = tile.corner + chance.uniform(0.15, 0.85, 2) * tile.size
    return np.column_stack([linear, place - linear @ centre]), mirrored


def _main_face(photograph: LabelledPhotograph) -> tuple[NDArray[np.float64], float]:
    """Centre and side of the largest face; of the whole photograph where there is none."""
    if not len(photograph.faces):
        height, width = photograph.pixels.shape[:2]
        return np.array([width / 2, height / 2]), max(height, width) / 2
    sides = np.sqrt(photograph.faces.sides.prod(axis=1))
    corners = photograph.faces.corners[sides.argmax()].astype(np.float64)
    return (corners[:2] + corners[2:]) / 2, float(sides.max())


def _paint(
    pixels: NDArray[np.uint8],
    tile: _Tile,
    source: NDArray[np.uint8],
    matrix: NDArray[np.float64],
    chance: np.random.Generator,
    *,
    border: int | None,
) -> None:
    """Small copies are averaged before they are moved, so that no pixel is skipped. Without a border, chance names one."""
    linear, shift = matrix[:, :2], matrix[:, 2] - tile.corner
    scale = float(np.hypot(linear[0, 1], linear[1, 1]))
    square = int(0.5 / scale)
    if square > 1:
        size = max(1, source.shape[1] // square), max(1, source.shape[0] // square)
        reduced = np.array([source.shape[1] / size[0], source.shape[0] / size[1]])
        source = np.asarray(cv2.resize(source, size, interpolation=cv2.INTER_AREA), np.uint8)
        shift, linear = shift + linear @ ((reduced - 1) / 2), linear * reduced
    if border is None:
        border = cv2.BORDER_REPLICATE if chance.random() < 0.5 else cv2.BORDER_CONSTANT
    ground = np.ascontiguousarray(pixels[tile.top : tile.bottom, tile.left : tile.right])
    pixels[tile.top : tile.bottom, tile.left : tile.right] = cv2.warpAffine(
        np.ascontiguousarray(source),
        np.column_stack([linear, shift]),
        (tile.right - tile.left, tile.bottom - tile.top),
        dst=ground,
        flags=cv2.INTER_LINEAR,
        borderMode=border,
        borderValue=chance.integers(0, 256, 3).tolist(),
    )


def _placed_faces(
    photograph: LabelledPhotograph, tile: _Tile, matrix: NDArray[np.float64], *, mirrored: bool
) -> _Faces:
    """Boxes stay upright, as the teacher would draw them."""
    faces, linear = photograph.faces, matrix[:, :2]
    scale = np.hypot(linear[0, 1], linear[1, 1])
    centres = (faces.corners[:, :2] + faces.corners[:, 2:]) / 2 @ linear.T + matrix[:, 2]
    halves = faces.sides * scale / 2
    landmarks = faces.landmarks @ linear.T + matrix[:, 2]
    corners = np.concatenate([centres - halves, centres + halves], axis=1)
    visible = _visible_shares(corners, tile)
    sides = np.sqrt((2 * halves).prod(axis=1))
    learnt = (visible >= _LEAST_VISIBLE) & (faces.scores >= _LEAST_SCORE) & (sides >= _LEAST_SIDE_PX)
    seen = visible > 0.1
    ordered = landmarks[:, MIRRORED_LANDMARKS] if mirrored else landmarks
    return _Faces(corners[seen].astype(np.float32), ordered[seen].astype(np.float32), learnt[seen])


def _visible_shares(corners: NDArray[np.float64], tile: _Tile) -> NDArray[np.float64]:
    first = np.maximum(corners[:, :2], tile.corner)
    last = np.minimum(corners[:, 2:], tile.corner + tile.size)
    areas = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    return np.asarray(np.maximum(last - first, 0).prod(axis=1) / np.maximum(areas, 1e-9), np.float64)


def _covered(corners: Floats, side: int) -> NDArray[np.bool_]:
    covered = np.zeros((side, side), np.bool_)
    for left, top, right, bottom in np.clip(corners, 0, side).astype(int).tolist():
        covered[top : bottom + 1, left : right + 1] = True
    return covered


def _weathered(pixels: NDArray[np.uint8], settings: MosaicSettings, chance: np.random.Generator) -> NDArray[np.uint8]:
    """Blurred, compressed, in another light, without colour."""
    if chance.random() < settings.blurred_share:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), chance.uniform(0.5, 1.5)), np.uint8)
    if chance.random() < settings.compressed_share:
        _, file = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(chance.integers(25, 80))])
        pixels = np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8)
    if chance.random() < settings.grey_share:
        pixels = np.repeat(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)[:, :, None], 3, axis=2)
    return np.asarray(cv2.LUT(pixels, _light(float(pixels.mean()), chance)), np.uint8)


def _light(mean: float, chance: np.random.Generator) -> NDArray[np.uint8]:
    """A table (1, 256, 3) of grey levels for each colour: tables are twenty times as fast as arithmetic on floats."""
    levels = (np.arange(256) - mean) * chance.uniform(0.6, 1.3) + mean * chance.uniform(0.5, 1.3)
    tinted = levels[:, None] * chance.uniform(0.85, 1.15, 3)
    return np.ascontiguousarray(tinted.clip(0, 255).astype(np.uint8)[None])
