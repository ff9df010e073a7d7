"""Photographs of one megapixel with one portrait each."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 1_152, 864
JPEG_QUALITY = 90
# Of the photograph's height: the face on a portrait of LFW is then 200 px wide, as on a snapshot of one person.
PORTRAIT_SHARE = 0.6
GRAIN_DEVIATION = 4.0
# Folders beside those of the sample people in tests/data/people.
NOT_PEOPLE = frozenset({"groups", "lowquality", "negatives"})


def make_photographs(portraits: list[Path], *, seed: int = 1) -> list[bytes]:
    """JPEG files of 1 152 × 864: each portrait somewhere on a ground of soft colours and grain."""
    rng = np.random.default_rng(seed)
    return [_photograph(_read(portrait), rng) for portrait in portraits]


def find_portraits(folder: Path, count: int) -> list[Path]:
    """The first photograph of each of `count` people, a folder a person; from the beginning again where there are fewer."""
    people = [each for each in sorted(folder.iterdir()) if each.is_dir() and each.name not in NOT_PEOPLE]
    found = [min(photographs) for photographs in (list(person.glob("*.jpg")) for person in people) if photographs]
    if not found:
        raise FileNotFoundError(f"{folder} holds no photographs: a folder a person, with JPEG files in it, is needed")
    return list(islice(cycle(found), count))


def _read(path: Path) -> NDArray[np.uint8]:
    picture = cv2.imread(str(path))
    if picture is None:
        raise ValueError(f"{path} is no picture")
    return np.asarray(picture, np.uint8)


def _photograph(portrait: NDArray[np.uint8], rng: np.random.Generator) -> bytes:
    ground = _ground(rng)
    scale = PORTRAIT_SHARE * HEIGHT / portrait.shape[0]
    placed = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    height, width = placed.shape[:2]
    top, left = rng.integers(0, HEIGHT - height + 1), rng.integers(0, WIDTH - width + 1)
    ground[top : top + height, left : left + width] = placed
    return bytes(cv2.imencode(".jpg", ground, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())


def _ground(rng: np.random.Generator) -> NDArray[np.uint8]:
    colours = rng.uniform(40, 200, (6, 8, 3)).astype(np.float32)
    soft = cv2.resize(colours, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    grain = rng.normal(0, GRAIN_DEVIATION, (HEIGHT, WIDTH, 1))
    return np.clip(soft + grain, 0, 255).astype(np.uint8)
