"""What a detector's canvases show: faces where they are said to be, and parts without any."""

from __future__ import annotations

import numpy as np
import pytest

from facedex.indexer.vision.findings import Findings
from facedex.training.detection.labelled import LabelledPhotographs
from facedex.training.detection.mosaics import MosaicSettings, draw_canvas

FACE, GROUND = 200, 50


@pytest.fixture
def one_face() -> LabelledPhotographs:
    """A photograph of 120 x 100 px: a bright square from 40 to 70 px is its face, all else is dark."""
    pictures = np.full((1, 100, 120, 3), GROUND, np.uint8)
    pictures[0, 40:70, 40:70] = FACE
    corners = np.array([[40, 40, 70, 70]], np.float32)
    landmarks = np.full((1, 5, 2), 55, np.float32)
    faces = Findings(np.ones(1, np.float32), corners, landmarks)
    return LabelledPhotographs(pictures, np.array([[100, 120]]), np.array([0, 1]), faces)


def unweathered(**changes: float) -> MosaicSettings:
    plain = {"turn_degrees": 0.0, "blurred_share": 0.0, "compressed_share": 0.0, "grey_share": 0.0}
    return MosaicSettings(side=128, **{**plain, **changes})


def test_faceless_tiles_show_only_what_lies_beside_faces(one_face: LabelledPhotographs) -> None:
    for seed in range(20):
        canvas = draw_canvas(one_face, unweathered(faceless_share=1.0), np.random.default_rng(seed))
        assert not len(canvas.corners)
        assert not canvas.ignored.any()
        assert canvas.pixels.reshape(-1, 3).std(axis=0).max() == 0, "one grey level: the ground's"


def test_a_face_lies_on_another_photographs_ground(one_face: LabelledPhotographs) -> None:
    """Its middle is bright, where it is said to be, whatever the light."""
    seen = 0
    for seed in range(40):
        settings = unweathered(faceless_share=0.0, ground_share=1.0, emptied_share=0.0, whole_share=1.0)
        canvas = draw_canvas(one_face, settings, np.random.default_rng(seed))
        for left, top, right, bottom in canvas.corners:
            x, y = int((left + right) / 2), int((top + bottom) / 2)
            if 0 <= x < 128 and 0 <= y < 128 and right - left > 12:
                seen += 1
                assert canvas.pixels[y, x].astype(int).sum() == canvas.pixels.astype(int).sum(axis=2).max()
    assert seen > 10


def test_a_photograph_full_of_faces_has_no_ground(one_face: LabelledPhotographs) -> None:
    full = Findings(one_face.faces.scores, np.array([[5, 5, 115, 95]], np.float32), one_face.faces.landmarks)
    photographs = LabelledPhotographs(one_face.pictures, one_face.sizes, one_face.starts, full)
    canvas = draw_canvas(photographs, unweathered(faceless_share=1.0, emptied_share=0.0), np.random.default_rng(0))
    assert len(canvas.corners) or canvas.ignored.any()
