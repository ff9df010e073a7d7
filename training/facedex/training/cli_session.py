"""What the commands of `facedex-train` share: options, and how they end."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from rich.console import Console

from facedex.indexer.errors import IndexerError
from facedex.indexer.vision.errors import VisionError
from facedex.indexer.vision.manifest import ModelKind
from facedex.indexer.vision.models import (
    BUILTIN_DETECTOR,
    ModelFile,
    ModelFolder,
    open_detector,
    read_manifest,
    read_model,
)
from facedex.indexer.vision.scan import Scan
from facedex.training.devices import Precision, Workplace
from facedex.training.errors import TrainingError

FAILED: Final = 1
INTERRUPTED: Final = 130

RunFolder = Annotated[
    Path, typer.Option("--run", help="Folder of the run: data, checkpoint, curves. Goes on from there.")
]
Output = Annotated[Path, typer.Option(help="Folder that NAME.onnx and NAME.toml are written into.")]
HeldOutFolder = Annotated[
    Path | None, typer.Option("--held-out", help="A folder a person, to measure on; never learnt from.")
]
Start = Annotated[Path | None, typer.Option("--from", help="Weights or a checkpoint to begin with.")]
LearningRate = Annotated[float, typer.Option(help="The highest.")]
Seed = Annotated[int, typer.Option(help="Another number gives another run.")]
CheckpointEvery = Annotated[float, typer.Option(help="Seconds between checkpoints.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; else a GPU where there is one.")]
InPrecision = Annotated[
    Precision, typer.Option(help="What the network computes in; auto is bfloat16 on a GPU, and on a CPU with AMX.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads on the CPU; else one a core.")]
Licence = Annotated[str, typer.Option(help="Licence of the weights, for the manifest.")]
CommercialUse = Annotated[
    bool, typer.Option("--commercial-use", help="The data and the teachers allow commercial use.")
]

UNSTATED: Final = "not stated"


def say(line: str) -> None:
    """One line for people."""
    Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)


def workplace_of(device: str | None, precision: Precision, threads: int | None) -> Workplace:
    """Where to train; on the CPU with so many threads."""
    if threads is not None:
        torch.set_num_threads(threads)
    workplace = Workplace.of(device, precision)
    say(f"device: {workplace}")
    return workplace


def scan_of(detector: Path | None, builtin: str) -> Scan:
    """A detector's file with its manifest beside it, or the built-in one."""
    return Scan(open_detector(detector_file(detector, builtin)))


def detector_file(detector: Path | None, builtin: str = BUILTIN_DETECTOR) -> ModelFile:
    """A detector's file with its manifest beside it, or the built-in one."""
    if detector is None:
        return ModelFolder(Path()).file(builtin, ModelKind.DETECTOR)
    return read_model(detector, read_manifest(detector.with_suffix(".toml")))


@contextmanager
def good_order() -> Generator[None]:
    """An error of ours becomes one line and exit code 1; so does Ctrl-C, with exit code 130."""
    try:
        yield
    except (TrainingError, IndexerError, VisionError, OSError) as error:
        say(f"facedex-train: {error}")
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        say("stopped; the same command goes on from the last checkpoint")
        raise typer.Exit(INTERRUPTED) from None
