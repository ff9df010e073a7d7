"""What a detector's canvases show: faces where they are said to be, and parts without any."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.training.lessons import check_bfloat16
from torch import Tensor, nn

from facedex.indexer.vision.findings import Findings
from facedex.training.detection.hard import draw_faceless, hard_seeds
from facedex.training.detection.labelled import LabelledPhotographs
from facedex.training.detection.lesson import DetectorLesson, DetectorSettings
from facedex.training.detection.mosaics import MosaicSettings, draw_canvas
from facedex.training.devices import Precision, Workplace
from facedex.training.progress import Silence

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


class SeesBright(nn.Module):
    """Sure of a face, 5 or -5 as a logit, in the one cell of pictures that are brighter or darker than a level."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, pictures: Tensor) -> list[Tensor]:
        brightness = pictures.mean(dim=(1, 2, 3)) * 128 + 127.5
        return [torch.where(brightness > self.level, 5.0, -5.0)[:, None, None, None].expand(-1, 15, 1, 1)]


def test_hard_canvases_are_those_without_a_face_on_which_one_is_seen(one_face: LabelledPhotographs) -> None:
    settings, workplace = unweathered(), Workplace.of("cpu", Precision.FULL)
    levels = [draw_faceless(one_face, settings, seed).pixels.mean() for seed in range(40)]
    found = hard_seeds(SeesBright(40.0), one_face, settings, 40, workplace=workplace, observer=Silence())
    assert found.tolist() == [seed for seed, level in enumerate(levels) if level > 40.0]
    assert 0 < len(found) < 40


def test_a_canvas_with_a_face_is_never_hard(one_face: LabelledPhotographs) -> None:
    """Here the face fills the photograph, so that there is no part without."""
    full = replace_faces(one_face, np.array([[0, 0, 120, 100]], np.float32))
    workplace = Workplace.of("cpu", Precision.FULL)
    found = hard_seeds(SeesBright(-1.0), full, unweathered(), 40, workplace=workplace, observer=Silence())
    canvases = [draw_faceless(full, unweathered(), seed) for seed in range(40)]
    with_face = {seed for seed, canvas in enumerate(canvases) if len(canvas.corners)}
    assert with_face
    assert not with_face & set(found.tolist())


def test_a_share_of_a_batch_is_hard(one_face: LabelledPhotographs) -> None:
    """All canvases hard: nothing but the score is learnt, since none of them shows a face."""
    settings = DetectorSettings(batch=4, mosaics=unweathered(faceless_share=0.0, whole_share=1.0), hard_share=1.0)
    chance = torch.Generator().manual_seed(0)
    for hard, parts in ((np.array([3, 5]), {"score"}), (None, {"score", "box", "landmarks"})):
        lesson = DetectorLesson(settings, one_face, workplace=Workplace.of("cpu", Precision.FULL), hard=hard)
        assert lesson.losses(chance, share_done=0.0).keys() == parts


def test_bfloat16_says_the_same_of_a_batch_but_for_roundings(one_face: LabelledPhotographs) -> None:
    settings = DetectorSettings(batch=4, mosaics=unweathered(faceless_share=0.0, whole_share=1.0))
    full, mixed = (
        DetectorLesson(settings, one_face, workplace=Workplace.of("cpu", precision))
        for precision in (Precision.FULL, Precision.BFLOAT16)
    )
    check_bfloat16(full, mixed)


def replace_faces(photographs: LabelledPhotographs, corners: NDArray[np.float32]) -> LabelledPhotographs:
    faces = Findings(photographs.faces.scores, corners, photographs.faces.landmarks)
    return LabelledPhotographs(photographs.pictures, photographs.sizes, photographs.starts, faces)
