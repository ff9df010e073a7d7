"""`facedex-train detector`: from photographs and a teacher to a model that `facedex-index models add` takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import nn

from facedex.indexer.vision.manifest import ChannelOrder, DetectorContract, ModelInput
from facedex.indexer.vision.models import BUILTIN_DETECTOR, open_detector
from facedex.indexer.vision.scan import Scan
from facedex.training.cli_session import (
    UNSTATED,
    CheckpointEvery,
    CommercialUse,
    Device,
    HeldOutFolder,
    InPrecision,
    LearningRate,
    Licence,
    Output,
    RunFolder,
    Seed,
    Start,
    Threads,
    good_order,
    say,
    scan_of,
    workplace_of,
)
from facedex.training.detection.hard import hard_seeds
from facedex.training.detection.labelled import LabelledPhotographs, label_photographs, open_labelled
from facedex.training.detection.lesson import DetectorLesson, DetectorSettings
from facedex.training.detection.mosaics import MosaicSettings, draw_canvas
from facedex.training.detection.network import STRIDES, FaceFinder, YuNetOutputs, output_names
from facedex.training.devices import Precision, Workplace
from facedex.training.errors import SettingsInvalid
from facedex.training.export import Terms, detector_manifest, onnx_of, prove, quantised, stored_smaller, write_model
from facedex.training.held_out import DetectorFigures, evaluate_detector, pictures_below
from facedex.training.loop import Loop, LoopSettings, start_from
from facedex.training.progress import Bars, Observer

_CALIBRATION_CANVASES = 64
_SMALLEST_FACE_PX = 12.0
_NMS_IOU = 0.3
_MULTIPLE_OF = 32
_INPUT = ModelInput(ChannelOrder.BGR, mean=127.5, scale=1 / 128)


def train_detector(  # noqa: PLR0913  (a command has as many options as it has)
    photographs: Annotated[Path, typer.Argument(help="Photographs, at any depth.")],
    *,
    run: RunFolder,
    name: Annotated[str, typer.Option(help="What the model is called.")],
    output: Output = Path(),
    teacher: Annotated[Path | None, typer.Option(help="ONNX detector, manifest beside it; else the built-in.")] = None,
    held_out: HeldOutFolder = None,
    start: Start = None,
    samples: Annotated[int, typer.Option(min=1, help="Canvases to learn from.")] = 60_000,
    batch: Annotated[int, typer.Option(min=1, help="Canvases at once.")] = 32,
    side: Annotated[int, typer.Option(min=64, help="Side of a canvas, a multiple of 32.")] = 256,
    large_side: Annotated[int | None, typer.Option(help="Side in the last third of the run, for large faces.")] = None,
    hard_share: Annotated[
        float, typer.Option(min=0, max=1, help="Canvases without a face on which the detector of --from sees one.")
    ] = 0.0,
    hard_candidates: Annotated[int, typer.Option(min=1, help="Canvases that are tried to find those.")] = 20_000,
    learning_rate: LearningRate = 4e-3,
    seed: Seed = 0,
    score_threshold: Annotated[float, typer.Option(min=0, max=1, help="Faces below are not reported.")] = 0.6,
    int8: Annotated[bool, typer.Option("--int8", help="Write the model in 8 bits: a third of the size.")] = False,
    small: Annotated[
        bool, typer.Option("--small", help="Store weights in 16 and 8 bits and compute in 32: less than half the size.")
    ] = False,
    device: Device = None,
    precision: InPrecision = Precision.AUTO,
    threads: Threads = None,
    checkpoint_every: CheckpointEvery = 120.0,
    licence: Licence = UNSTATED,
    commercial_use: CommercialUse = False,
) -> None:
    """Trains a detector on what a teacher finds; run again after an interruption, it goes on. Exports and measures it."""
    mosaics = MosaicSettings(side=side)
    settings = DetectorSettings(batch=batch, mosaics=mosaics, large_side=large_side, hard_share=hard_share)
    pace = LoopSettings(
        steps=max(1, samples // batch),
        learning_rate=learning_rate,
        seed=seed,
        seconds_between_checkpoints=checkpoint_every,
    )
    with good_order(), Bars.shown() as observer:
        workplace = workplace_of(device, precision, threads)
        scan = scan_of(teacher, BUILTIN_DETECTOR)
        torch.manual_seed(seed)  # layers draw their first weights from torch's own generator
        labelled = _labelled(photographs, run / "photographs", scan, observer)

        def mined() -> NDArray[np.int64]:
            finder = _erring(start, workplace)
            return hard_seeds(finder, labelled, mosaics, hard_candidates, workplace=workplace, observer=observer)

        hard = _remembered(run / "hard.npy", mined) if hard_share else None
        lesson = DetectorLesson(settings, labelled, workplace=workplace, hard=hard)
        if start is not None:
            start_from(start, lesson.student)
        finder = Loop(lesson, pace, folder=run, workplace=workplace).run(observer)
        graph = detector_graph(finder)
        if int8:
            graph = quantised(graph, _samples(labelled))
        elif small:
            graph = stored_smaller(graph)
        terms = Terms(name, licence, commercial_use)
        contract = DetectorContract(_MULTIPLE_OF, STRIDES, score_threshold, _NMS_IOU, _SMALLEST_FACE_PX, refiner=None)
        manifest = detector_manifest(graph, terms, _INPUT, contract)
        written = write_model(output, graph, manifest)
    say(f"wrote {output / name}.onnx ({len(graph) / 1e6:.2f} MB) and {output / name}.toml")
    if held_out is not None:
        with good_order(), Bars.shown() as observer:
            own = Scan(open_detector(written))
            print_figures(evaluate_detector(own, scan, pictures_below(held_out, observer)))


def detector_graph(finder: nn.Module) -> bytes:
    """The ONNX file, with YuNet's outputs, proved on noise."""
    network = YuNetOutputs(finder).cpu().eval()
    example = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    names = output_names()
    free = {"input": {0: "batch", 2: "height", 3: "width"}} | {each: {0: "batch", 1: "cells"} for each in names}
    graph = onnx_of(network, example, outputs=names, free=free)
    prove(network, graph, example)
    return graph


def _samples(photographs: LabelledPhotographs) -> NDArray[np.float32]:
    """Canvases as the network sees them: the ranges of 8 bits are set by them."""
    chance = np.random.default_rng(0)
    canvases = [draw_canvas(photographs, MosaicSettings(), chance).pixels for _ in range(_CALIBRATION_CANVASES)]
    return np.asarray((np.stack(canvases).astype(np.float32) - 127.5) / 128, np.float32).transpose(0, 3, 1, 2).copy()


def _labelled(photographs: Path, folder: Path, teacher: Scan, observer: Observer) -> LabelledPhotographs:
    """Those of an earlier call, where it finished them."""
    there = open_labelled(folder, photographs)
    return label_photographs(photographs, folder, teacher, observer) if there is None else there


def _remembered(file: Path, mine: Callable[[], NDArray[np.int64]]) -> NDArray[np.int64]:
    """What an earlier call wrote, where it finished it."""
    if not file.exists():
        partial = file.with_suffix(".part.npy")
        np.save(partial, mine())
        partial.replace(file)
    return np.asarray(np.load(file), np.int64)


def _erring(start: Path | None, workplace: Workplace) -> nn.Module:
    if start is None:
        raise SettingsInvalid("--hard-share needs a detector that errs: name its weights with --from")
    finder = FaceFinder().to(workplace.device)
    start_from(start, finder)
    return finder


def print_figures(figures: DetectorFigures) -> None:
    rate = figures.found_rate
    say(
        f"main face found on {rate.estimate:.1%} of {figures.photographs} photographs (95 %: {rate.lower:.1%} to "
        f"{rate.upper:.1%}); landmarks {figures.median_landmark_error:.1%} of the box's side from the teacher's (median)"
    )
