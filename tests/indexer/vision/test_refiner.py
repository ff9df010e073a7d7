"""The second look at a face, with a network that says where five spots are."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from facedex.indexer.vision.alignment import ARCFACE_LANDMARKS
from facedex.indexer.vision.errors import ModelUnusable
from facedex.indexer.vision.findings import Findings
from facedex.indexer.vision.manifest import ChannelOrder, ModelInput, ModelManifest, RefinerContract
from facedex.indexer.vision.models import BUILTIN_DETECTOR, ModelFolder
from facedex.indexer.vision.refiner import Refiner

CONTRACT = RefinerContract("0" * 64, ModelInput(ChannelOrder.BGR, 0, 1), 112, ARCFACE_LANDMARKS, score_threshold=0.5)
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
"""Of the five spots."""


class SpotFinder:
    """Says where each of five colours lies on a crop, and as a score how bright the crop is."""

    output_names = ("landmarks", "score")
    input_size = None
    most_at_once = 1

    def __init__(self, *, takes_several: bool = True) -> None:
        self.takes_several = takes_several
        self.batches: list[int] = []

    def run(self, tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        self.batches.append(len(tensor))
        crops = tensor.transpose(0, 2, 3, 1)
        points = [[_middle_of(crop, colour) for colour in COLOURS] for crop in crops]
        return {
            "landmarks": np.array(points, np.float32),
            "score": np.array([[crop.max() / 255] for crop in crops], np.float32),
        }


def _middle_of(crop: NDArray[np.float32], colour: tuple[int, int, int]) -> NDArray[np.float64]:
    likeness = np.maximum(1 - np.abs(crop - colour).sum(axis=2) / 200, 0)
    rows, columns = np.indices(likeness.shape)
    total = likeness.sum() or 1
    return np.array([(columns * likeness).sum() / total, (rows * likeness).sum() / total])


@pytest.fixture
def manifest() -> ModelManifest:
    return ModelFolder(Path()).manifest(BUILTIN_DETECTOR)


def spotted(points: NDArray[np.float32], size: int) -> NDArray[np.uint8]:
    """A black picture with a spot of its colour at each point."""
    picture = np.zeros((size, size, 3), np.uint8)
    for (x, y), colour in zip(points, COLOURS, strict=True):
        cv2.circle(picture, (round(float(x)), round(float(y))), 6, colour, -1)
    return picture


def face(*, scale: float, turn_degrees: float) -> NDArray[np.float32]:
    """Landmarks of a face around (200, 200)."""
    turn = scale * np.exp(1j * np.deg2rad(turn_degrees))
    points = np.array([complex(x, y) for x, y in ARCFACE_LANDMARKS]) - complex(56, 72)
    placed = points * turn + complex(200, 200)
    return np.stack([placed.real, placed.imag], axis=1).astype(np.float32)


def findings(*landmarks: NDArray[np.float32]) -> Findings:
    count = len(landmarks)
    corners = np.tile(np.array([100, 100, 300, 300], np.float32), (count, 1))
    return Findings(np.linspace(1, 0.7, count, dtype=np.float32), corners, np.stack(landmarks))


@pytest.mark.parametrize(("scale", "turn"), [(1.0, 0), (2.0, 30), (1.5, -90), (1.7, 180)])
def test_landmarks_that_are_a_little_off_are_put_right(manifest: ModelManifest, scale: float, turn: float) -> None:
    true = face(scale=scale, turn_degrees=turn)
    off = true + np.random.default_rng(3).normal(0, 3, true.shape).astype(np.float32)
    refined = Refiner(manifest, CONTRACT, SpotFinder()).refine(spotted(true, 400), findings(off))
    assert np.abs(off - true).max() > 4
    np.testing.assert_allclose(refined.landmarks[0], true, atol=1.5)
    np.testing.assert_array_equal(refined.corners, findings(off).corners)


def test_what_the_second_look_does_not_take_for_a_face_goes(manifest: ModelManifest) -> None:
    true = face(scale=1, turn_degrees=0)
    elsewhere = true + np.float32(1000)
    refined = Refiner(manifest, CONTRACT, SpotFinder()).refine(spotted(true, 400), findings(elsewhere, true, elsewhere))
    assert refined.scores.tolist() == findings(elsewhere, true, elsewhere).scores[1:2].tolist()


@pytest.mark.parametrize(("takes_several", "batches"), [(True, [32, 8]), (False, [1] * 40)])
def test_a_crowd_is_looked_at_in_parts(manifest: ModelManifest, *, takes_several: bool, batches: list[int]) -> None:
    true = face(scale=1, turn_degrees=0)
    network = SpotFinder(takes_several=takes_several)
    assert len(Refiner(manifest, CONTRACT, network).refine(spotted(true, 400), findings(*[true] * 40))) == 40
    assert network.batches == batches


def test_where_nothing_was_found_nothing_is_run(manifest: ModelManifest) -> None:
    network = SpotFinder()
    nothing = findings(face(scale=1, turn_degrees=0)).select(np.zeros(1, np.bool_))
    assert len(Refiner(manifest, CONTRACT, network).refine(np.zeros((40, 40, 3), np.uint8), nothing)) == 0
    assert network.batches == []


def test_a_face_whose_eyes_fall_together_in_the_second_look_goes(manifest: ModelManifest) -> None:
    true = face(scale=1, turn_degrees=0)
    assert len(Refiner(manifest, CONTRACT, EyesTogether()).refine(spotted(true, 400), findings(true))) == 0


class EyesTogether(SpotFinder):
    """Sees both eyes in one place."""

    def run(self, tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        outputs = super().run(tensor)
        outputs["landmarks"][:, 0] = outputs["landmarks"][:, 1]
        return outputs


class Nameless(SpotFinder):
    """Has one output."""

    output_names = ("landmarks",)  # type: ignore[assignment]


class FourPoints(SpotFinder):
    """Knows no nose."""

    def run(self, tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        outputs = super().run(tensor)
        return outputs | {"landmarks": outputs["landmarks"][:, :4]}


def test_a_network_of_another_layout_is_refused(manifest: ModelManifest) -> None:
    with pytest.raises(ModelUnusable, match="lack score"):
        Refiner(manifest, CONTRACT, Nameless())
    with pytest.raises(ModelUnusable, match="five landmarks"):
        Refiner(manifest, CONTRACT, FourPoints()).try_out()
