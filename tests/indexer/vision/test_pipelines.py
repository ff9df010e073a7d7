"""One detector with each embedder, told what to look for."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from facedex.indexer.vision.decode import ImageLimits
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER, ModelFolder
from facedex.indexer.vision.pipelines import Pipelines


def crowd_scene(people: Path) -> bytes:
    """A photograph of 3 200 × 2 400 on which one face is about 24 px wide."""
    portrait = cv2.imread(str(people / "person_001" / "1.jpg"))
    assert portrait is not None
    small = cv2.resize(portrait, None, fx=24 / 154, fy=24 / 154, interpolation=cv2.INTER_AREA)
    scene = np.full((2400, 3200, 3), 128, np.uint8)
    scene[700 : 700 + small.shape[0], 900 : 900 + small.shape[1]] = small
    return cv2.imencode(".png", scene)[1].tobytes()


@pytest.mark.parametrize(("smallest_face_px", "count"), [(20.0, 1), (80.0, 0)])
def test_a_face_smaller_than_was_asked_for_is_not_looked_for(
    people: Path, tmp_path: Path, smallest_face_px: float, count: int
) -> None:
    pipelines = Pipelines(
        ModelFolder(tmp_path),
        detector=BUILTIN_DETECTOR,
        limits=ImageLimits(),
        workers=1,
        smallest_face_px=smallest_face_px,
    )
    found = pipelines.of_name(BUILTIN_EMBEDDER).detect(crowd_scene(people)).faces
    # The whole inset, a grey sheet with a face on it, may be taken for a larger face.
    assert sum(15 < each.face.quality.size_px < 35 for each in found) == count
