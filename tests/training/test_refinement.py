"""What a second look is learnt from, and that it is learnt, exported and taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tests.training.lessons import check_bfloat16
from tests.training.test_training import added
from typer.testing import CliRunner

from facedex.indexer.vision import builtin
from facedex.indexer.vision.findings import Findings
from facedex.indexer.vision.models import BUILTIN_DETECTOR, ModelFolder
from facedex.indexer.vision.scan import Scan
from facedex.training.cli import app
from facedex.training.devices import Precision, Workplace
from facedex.training.refinement.agreement import agreed_faces
from facedex.training.refinement.lesson import RefinerLesson, RefinerSettings
from facedex.training.refinement.looks import STORED_SIDE, VIEW_LANDMARKS, Looks
from facedex.training.refinement.network import POINTS, SIDE, RefinerNet, RefinerOutputs
from facedex.training.refiner_cli import refiner_graph

BUILTIN_FILE = Path(builtin.__file__ or "").parent / f"{BUILTIN_DETECTOR}.onnx"
EYES, NOSE, MOUTH = (255, 0, 0), (0, 255, 0), (0, 0, 255)
FACE = np.array([[80, 90], [122, 88], [104, 110], [84, 136], [120, 134]], np.float32)


def drawn_face(points: NDArray[np.float32], size: int) -> NDArray[np.uint8]:
    picture = np.zeros((size, size, 3), np.uint8)
    for (x, y), colour in zip(points, (EYES, EYES, NOSE, MOUTH, MOUTH), strict=True):
        cv2.circle(picture, (int(x), int(y)), 5, colour, -1)
    return picture


class Spotter:
    """Finds a drawn face in any picture, each time a few pixels beside it, and takes left for left as it appears."""

    def __init__(self, *, error_px: float, sees: int = 1_000) -> None:
        self._chance = np.random.default_rng(1)
        self._error_px = error_px
        self._sees = sees

    def find(self, picture: NDArray[np.uint8], *, shrunk_by: int, checkpoint: object) -> Findings:
        del shrunk_by, checkpoint
        self._sees -= 1
        if self._sees < 0:
            return Findings(np.zeros(0, np.float32), np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32))
        points = [point for colour in (EYES, NOSE, MOUTH) for point in _spots(picture, colour)]
        seen = np.array(points, np.float32)
        middle, side = seen.mean(axis=0), np.ptp(seen[:, 0]) * 2
        box = np.concatenate([middle - side / 2, middle + side / 2])[None].astype(np.float32)
        off = self._chance.normal(0, self._error_px * side / 84, (1, 5, 2)).astype(np.float32)
        return Findings(np.ones(1, np.float32), box, seen[None] + off)


def _spots(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> list[tuple[float, float]]:
    mask = (np.abs(picture.astype(int) - colour).sum(axis=2) < 200).astype(np.uint8)
    count, _, _, middles = cv2.connectedComponentsWithStats(mask)
    return sorted((float(x), float(y)) for x, y in middles[1:count])


def agreed(*, views: int, error_px: float, sees: int = 1_000) -> Findings:
    teacher = cast("Scan", Spotter(error_px=error_px, sees=sees))
    return agreed_faces(teacher, drawn_face(FACE, 220), views, np.random.default_rng(0))


def test_a_teacher_that_never_errs_agrees_with_itself_on_moved_and_mirrored_pictures() -> None:
    np.testing.assert_allclose(agreed(views=20, error_px=0).landmarks[0], FACE, atol=0.6)


def test_several_looks_are_nearer_to_the_truth_than_one() -> None:
    alone, together = (np.abs(agreed(views=views, error_px=4).landmarks[0] - FACE).mean() for views in (0, 24))
    assert together < alone / 2


def test_a_face_that_is_not_seen_again_is_none() -> None:
    assert len(agreed(views=6, error_px=0, sees=3)) == 0
    assert len(agreed(views=6, error_px=0, sees=5)) == 1


def made_looks() -> Looks:
    """Drawn faces as the detector might have cut them out, and noise that is none."""
    chance = np.random.default_rng(2)
    points = (np.array(VIEW_LANDMARKS) + (STORED_SIDE - SIDE) / 2)[None] + chance.normal(0, 1, (32, 1, 2))
    faces = [drawn_face(each.astype(np.float32), STORED_SIDE) for each in points]
    others = list(chance.integers(0, 256, (32, STORED_SIDE, STORED_SIDE, 3)).astype(np.uint8))
    landmarks = np.concatenate([points, np.zeros((32, 5, 2))]).astype(np.float32)
    return Looks(np.stack([*faces, *others]), np.arange(64) < 32, landmarks, np.full(64, 46, np.float32))


def test_views_are_turned_and_mirrored_together_with_their_landmarks() -> None:
    """A network that reads the spots off a view finds what the lesson wants it to find."""
    lesson = RefinerLesson(RefinerSettings(), made_looks(), workplace=Workplace.of("cpu", Precision.FULL))
    place: Any = lesson
    views = place._views(torch.arange(32), torch.Generator().manual_seed(0))
    pixels = views.pixels.permute(0, 2, 3, 1).numpy().astype(np.uint8)
    seen = [[point for colour in (EYES, NOSE, MOUTH) for point in _spots(each, colour)] for each in pixels]
    wanted = views.landmarks.numpy() * (SIDE / 2) + (SIDE - 1) / 2
    # A drawn spot is a few pixels large, and turned a little.
    assert np.abs(np.array(seen) - wanted).max() < 1.5


def test_a_second_look_is_learnt() -> None:
    torch.manual_seed(0)
    lesson = RefinerLesson(RefinerSettings(batch=32), made_looks(), workplace=Workplace.of("cpu", Precision.FULL))
    chance = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(lesson.network.parameters(), lr=2e-3)
    totals: list[float] = []
    for _ in range(40):
        parts = lesson.losses(chance, share_done=0.0)
        total = torch.stack(list(parts.values())).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        totals.append(total.item())
    assert np.mean(totals[-5:]) < 0.4 * np.mean(totals[:5])


def test_bfloat16_says_the_same_of_a_batch_but_for_roundings() -> None:
    full, mixed = (
        RefinerLesson(RefinerSettings(batch=32), made_looks(), workplace=Workplace.of("cpu", precision))
        for precision in (Precision.FULL, Precision.BFLOAT16)
    )
    check_bfloat16(full, mixed)


def test_the_outputs_are_pixels_and_a_probability() -> None:
    network = RefinerNet().eval()
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor([-1.0, 1.0] + [0.0] * (POINTS - 2) + [0.0]))
        landmarks, score = RefinerOutputs(network)(torch.zeros(1, 3, SIDE, SIDE))
    assert landmarks[0, 0].tolist() == [-0.5, SIDE - 0.5]
    assert landmarks[0, 1].tolist() == [(SIDE - 1) / 2] * 2
    assert score.tolist() == [[0.5]]


def test_the_exported_file_is_small() -> None:
    assert len(refiner_graph(RefinerNet().eval())) < 140_000


def refiner(photographs: Path, run: Path, *options: str) -> list[str]:
    place = ("--run", str(run), "--name", "twice", "--output", str(run), "--samples", "64", "--batch", "16")
    return ["refiner", str(photographs), *place, "--teacher", str(BUILTIN_FILE), "--threads", "1", *options]


def test_a_detector_with_a_second_look_is_made_and_taken(small_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--least-score", "0.02", "--views", "1", "--held-out", str(small_folder))
    answer = CliRunner().invoke(app, refiner(small_folder, run, *options))
    assert answer.exit_code == 0, answer.output
    assert "corrupt.jpg is left out" in answer.output
    assert "main face found" in answer.output
    folder = added(tmp_path / "data", run / "twice")
    photograph = cv2.imread(str(next(small_folder.glob("*/*.jpg"))))
    assert photograph is not None
    detector = folder.load_detector("twice")
    assert detector.manifest.refiner is not None
    assert detector.manifest.sha256 == ModelFolder(Path()).manifest(BUILTIN_DETECTOR).sha256
    detector.refine(np.asarray(photograph, np.uint8), detector.look(np.asarray(photograph, np.uint8)))
    # What was collected with other judges is not taken for what these would say.
    again = CliRunner().invoke(app, refiner(small_folder, run, "--least-score", "0.02", "--views", "2"))
    assert again.exit_code == 1
    assert "name another --run" in " ".join(again.output.split())


def test_a_detector_that_agrees_with_its_teacher_in_all_things_teaches_nothing(
    small_folder: Path, tmp_path: Path
) -> None:
    answer = CliRunner().invoke(app, refiner(small_folder, tmp_path / "run", "--views", "0", "--least-score", "0.9"))
    assert answer.exit_code == 1
    assert "one is missing" in " ".join(answer.output.split())


def test_a_teacher_that_is_not_there_is_named(small_folder: Path, tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, [*refiner(small_folder, tmp_path / "run"), "--teacher", "nowhere.onnx"])
    assert answer.exit_code == 1
    assert "nowhere" in answer.output
