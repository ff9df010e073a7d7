"""From a folder of photographs to a model that facedex takes; through a kill, and past a corrupt photograph."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from facedex.indexer import models_cli
from facedex.indexer.vision import models
from facedex.indexer.vision.models import BUILTIN_EMBEDDER, ModelFolder
from facedex.training import embedding
from facedex.training.cli import app
from facedex.training.optimisers import OptimiserName
from facedex.training.rounding import rounded


@dataclass(frozen=True, slots=True)
class Place:
    """Where `facedex-index --data` points."""

    data: Path


TINY = ("--backbone", "tiny", "--dimension", "16", "--batch", "8", "--threads", "1")


def embedder(photographs: Path, run: Path, *options: str, samples: int = 64) -> list[str]:
    place = ("--run", str(run), "--name", "small", "--output", str(run), "--samples", str(samples))
    return ["embedder", str(photographs), *place, *TINY, *options]


def detector(photographs: Path, run: Path, *options: str, samples: int = 12) -> list[str]:
    place = ("--run", str(run), "--name", "finder", "--output", str(run), "--samples", str(samples))
    return ["detector", str(photographs), *place, "--batch", "4", "--side", "96", "--threads", "1", *options]


def added(data: Path, model: Path) -> ModelFolder:
    """What `facedex-index models add` made of an exported model, with no further words."""
    place = ("add", str(model.with_suffix(".onnx")), "--manifest", str(model.with_suffix(".toml")))
    answer = CliRunner().invoke(models_cli.app, place, obj=Place(data))
    assert answer.exit_code == 0, answer.output
    return ModelFolder(data / "models")


def averaged_weights(run: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(run / "checkpoint.pt", weights_only=True)["averaged"]
    return weights


def test_a_folder_of_people_becomes_a_model_and_a_corrupt_photograph_is_reported(
    small_folder: Path, tmp_path: Path
) -> None:
    arguments = embedder(small_folder, tmp_path / "run", "--held-out", str(small_folder), "--int8", "--mirror")
    begin = time.process_time()
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    assert time.process_time() - begin < 60, "from photographs to an exported model in a minute of one core"
    assert "corrupt.jpg is left out" in answer.output
    assert "rank-1" in answer.output
    folder = added(tmp_path / "data", tmp_path / "run" / "small")
    crop = np.full((112, 112, 3), 90, np.uint8)
    assert folder.load_embedder("small").embed(crop).shape == (16,)
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000
    assert json.loads((tmp_path / "run" / "history.json").read_text())[-1]["step"] == 8


@pytest.mark.parametrize("optimiser", list(OptimiserName))
def test_a_killed_run_goes_on_and_ends_where_it_would_have_ended(
    small_folder: Path, tmp_path: Path, optimiser: str
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    samples, chosen = 480, ("--optimiser", optimiser)
    assert CliRunner().invoke(app, embedder(small_folder, whole, *chosen, samples=samples)).exit_code == 0
    command = embedder(small_folder, killed, *chosen, "--checkpoint-every", "0", samples=samples)
    program = subprocess.Popen([sys.executable, "-m", "facedex.training", *command], env=os.environ)
    deadline = time.monotonic() + 60
    while not (killed / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    program.send_signal(signal.SIGKILL)
    program.wait()
    done = torch.load(killed / "checkpoint.pt", weights_only=True)["step"]
    assert 0 < done < samples // 8
    assert not (killed / "small.onnx").exists()
    assert CliRunner().invoke(app, command).exit_code == 0
    expected, actual = averaged_weights(whole), averaged_weights(killed)
    assert expected.keys() == actual.keys()
    for name, weights in expected.items():
        torch.testing.assert_close(actual[name], weights, msg=name)


def test_a_checkpoint_of_another_run_is_refused(small_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert CliRunner().invoke(app, embedder(small_folder, run, samples=16)).exit_code == 0
    for others in (embedder(small_folder, run, samples=32), embedder(small_folder, run, "--scale", "16", samples=16)):
        answer = CliRunner().invoke(app, others)
        assert answer.exit_code == 1
        assert "other settings" in answer.output


def test_the_faces_of_other_photographs_are_refused(small_folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    for learn in (embedder, detector):
        run = tmp_path / f"run of {learn.__name__}"
        assert CliRunner().invoke(app, learn(small_folder, run, samples=16)).exit_code == 0
        answer = CliRunner().invoke(app, learn(moved, run, samples=16))
        assert answer.exit_code == 1
        assert "name another --run" in " ".join(answer.output.split())


@pytest.mark.parametrize("loss", ["triplet", "contrastive", "cosface"])
def test_other_losses_learn_too(small_folder: Path, tmp_path: Path, loss: str) -> None:
    answer = CliRunner().invoke(app, embedder(small_folder, tmp_path / "run", "--loss", loss, samples=16))
    assert answer.exit_code == 0, answer.output


def test_faces_without_names_are_learnt_from_a_teacher(people: Path, tmp_path: Path) -> None:
    """With faces mixed of two, each seen in several ways, and a class for each face that is not mixed."""
    nameless = tmp_path / "nameless"
    nameless.mkdir()
    for number, photograph in enumerate(sorted(people.glob("person_00*/*.jpg"))[:8]):
        (nameless / f"{number}.jpg").write_bytes(photograph.read_bytes())
    builtin = Path(models.__file__).parent / "builtin" / f"{BUILTIN_EMBEDDER}.onnx"
    options = ("--teacher", str(builtin), "--mixed-share", "0.9", "--mixed-views", "3", "--relational-weight", "1")
    answer = CliRunner().invoke(app, embedder(nameless, tmp_path / "run", *options, samples=32))
    assert answer.exit_code == 0, answer.output
    last = json.loads((tmp_path / "run" / "history.json").read_text())[-1]
    assert {"arcface", "cosine", "relational", "resemblance"} <= last.keys()


def test_the_end_of_a_run_learns_with_the_roundings_of_8_bits(
    small_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def counted(student: nn.Module, views: torch.Tensor) -> torch.Tensor:
        seen.append(len(views))
        return rounded(student, views)

    monkeypatch.setattr(embedding, "rounded", counted)
    answer = CliRunner().invoke(app, embedder(small_folder, tmp_path / "run", "--rounded-share", "0.25", samples=64))
    assert answer.exit_code == 0, answer.output
    assert seen == [8, 8], "two of eight steps"


def test_fine_tuning_begins_where_the_built_in_embedder_is(small_folder: Path, tmp_path: Path) -> None:
    """One step at a rate of nothing leaves it what it is, but for its 8 bits; from random weights the cosine is about 0."""
    options = ("--from", "builtin", "--backbone", "compact-mirrored", "--dimension", "256", "--learning-rate", "1e-9")
    answer = CliRunner().invoke(app, embedder(small_folder, tmp_path / "run", *options, samples=8))
    assert answer.exit_code == 0, answer.output
    mine, own = added(tmp_path / "data", tmp_path / "run" / "small").load_embedder("small"), ModelFolder(tmp_path)
    crop = np.random.default_rng(1).integers(0, 256, (112, 112, 3)).astype(np.uint8)
    assert float(mine.embed(crop) @ own.load_embedder(BUILTIN_EMBEDDER).embed(crop)) > 0.95


def test_weights_of_another_network_are_refused(small_folder: Path, tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, embedder(small_folder, tmp_path / "run", "--from", "builtin"))
    assert answer.exit_code == 1
    assert "holds the weights of another network" in answer.output


def test_one_person_alone_is_refused(small_folder: Path, tmp_path: Path) -> None:
    for person in sorted(small_folder.iterdir())[1:]:
        for photograph in person.iterdir():
            photograph.unlink()
    answer = CliRunner().invoke(app, embedder(small_folder, tmp_path / "run"))
    assert answer.exit_code == 1
    assert "two classes" in answer.output


def test_a_detector_is_learnt_and_taken(small_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--large-side", "128", "--int8", "--held-out", str(small_folder))
    answer = CliRunner().invoke(app, detector(small_folder, run, *options))
    assert answer.exit_code == 0, answer.output
    assert "corrupt.jpg is left out" in answer.output
    assert "main face found" in answer.output
    folder = added(tmp_path / "data", run / "finder")
    folder.load_detector("finder").look(np.zeros((160, 96, 3), np.uint8))


def test_a_detector_learns_from_what_another_one_took_for_faces(small_folder: Path, tmp_path: Path) -> None:
    """A detector that knows nothing yet sees faces everywhere; the run's folder keeps where."""
    first, second = tmp_path / "first", tmp_path / "second"
    assert CliRunner().invoke(app, detector(small_folder, first)).exit_code == 0
    options = ("--from", str(first / "checkpoint.pt"), "--hard-share", "0.5", "--hard-candidates", "40", "--small")
    answer = CliRunner().invoke(app, detector(small_folder, second, *options))
    assert answer.exit_code == 0, answer.output
    assert set(np.load(second / "hard.npy").tolist()) <= set(range(40))
    assert (second / "finder.onnx").stat().st_size < 0.5 * (first / "finder.onnx").stat().st_size
    folder = added(tmp_path / "data", second / "finder")
    folder.load_detector("finder").look(np.zeros((160, 96, 3), np.uint8))


def test_hard_canvases_need_a_detector_that_errs(small_folder: Path, tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, detector(small_folder, tmp_path / "run", "--hard-share", "0.5"))
    assert answer.exit_code == 1
    assert "--from" in answer.output


def test_the_toy_shows_that_arcface_draws_people_together(tmp_path: Path) -> None:
    picture = tmp_path / "toy.png"
    answer = CliRunner().invoke(app, ["toy", "--output", str(picture), "--steps", "300"])
    assert answer.exit_code == 0, answer.output
    assert "arcface" in answer.output
    assert picture.stat().st_size > 1000
