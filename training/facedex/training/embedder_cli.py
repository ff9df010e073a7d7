"""`facedex-train embedder`: from photographs to a model that `facedex-index models add` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Generator, Tensor, nn

from facedex.indexer.calibration.uncertainty import RateInterval
from facedex.indexer.evaluation.evaluation import Evaluation
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER, open_embedder, read_manifest
from facedex.indexer.vision.pipeline import FacePipeline
from facedex.indexer.vision.scan import Scan
from facedex.indexer.vision.workbench import available_cores
from facedex.training.backbones.backbone import BackboneName
from facedex.training.backbones.compact import CompactNet
from facedex.training.backbones.narrowing import narrowed
from facedex.training.backbones.widening import widened
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
    Threads,
    good_order,
    say,
    scan_of,
    workplace_of,
)
from facedex.training.crops import SIDE, STORED_SIDE, Crops, cut_crops, open_crops, unpack_crops
from facedex.training.devices import Precision, Workplace
from facedex.training.embedding import (
    MEAN,
    SCALE,
    EmbedderLesson,
    EmbedderSettings,
    HeldOut,
    LossName,
    Weights,
    bank_of_targets,
)
from facedex.training.export import (
    MirroredUnitVectors,
    Terms,
    UnitVectors,
    embedder_graph,
    embedder_manifest,
    quantised,
    write_model,
)
from facedex.training.held_out import evaluate_embedder
from facedex.training.loop import Loop, LoopSettings, start_from
from facedex.training.optimisers import OptimiserName
from facedex.training.progress import Bars, Observer
from facedex.training.teacher import Teachers

BUILTIN_WEIGHTS = Path(__file__).parent / "weights" / f"{BUILTIN_EMBEDDER}.pt"
"""A state dict of the backbone `compact-mirrored` with 256 dimensions, in 16 bits; its card is the built-in embedder's."""
_CALIBRATION_CROPS = 256


def train_embedder(  # noqa: PLR0913  (a command has as many options as it has)
    data: Annotated[Path, typer.Argument(help="A folder a person; photographs without names; or an NPZ of crops.")],
    *,
    run: RunFolder,
    name: Annotated[str, typer.Option(help="What the model is called.")],
    output: Output = Path(),
    teacher: Annotated[
        list[Path] | None, typer.Option(help="ONNX embedder, manifest beside it; may be repeated.")
    ] = None,
    held_out: HeldOutFolder = None,
    detector: Annotated[Path | None, typer.Option(help="ONNX detector, manifest beside it; else the built-in.")] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Weights or a checkpoint to begin with; builtin: those of the built-in embedder."),
    ] = None,
    backbone: Annotated[BackboneName, typer.Option(help="The network.")] = BackboneName.COMPACT_MIRRORED,
    dimension: Annotated[int, typer.Option(min=2, help="Components of a vector.")] = 256,
    loss: Annotated[LossName, typer.Option(help="What is learnt from knowing who is who.")] = LossName.ARCFACE,
    margin: Annotated[float | None, typer.Option(help="Of the loss; else that of its paper.")] = None,
    scale: Annotated[float, typer.Option(help="Of the margin losses.")] = 32.0,
    class_weight: Annotated[float, typer.Option(help="How much knowing who is who counts.")] = 1.0,
    cosine_weight: Annotated[float, typer.Option(help="How much nearness to the teacher counts.")] = 1.0,
    relational_weight: Annotated[
        float, typer.Option(help="How much the teacher's cosines within a batch count.")
    ] = 0.0,
    resemblance_weight: Annotated[float, typer.Option(help="How much the teacher's order of strangers counts.")] = 0.2,
    first_scale: Annotated[float, typer.Option(help="Of the resemblances, in the beginning.")] = 32.0,
    last_scale: Annotated[float, typer.Option(help="Of the resemblances, in the end.")] = 14.0,
    mixed_share: Annotated[float, typer.Option(min=0, max=1, help="Faces mixed of two, for the teacher.")] = 0.0,
    mixed_views: Annotated[int, typer.Option(min=1, help="How often each mixed face is seen, differently.")] = 1,
    labelled_share: Annotated[float | None, typer.Option(min=0, max=1, help="Faces with a name in a batch.")] = None,
    rounded_share: Annotated[
        float, typer.Option(min=0, max=1, help="Of the run, its end: learnt with the roundings of 8 bits, for --int8.")
    ] = 0.0,
    samples: Annotated[int, typer.Option(min=1, help="Faces to learn from, counted each time.")] = 1_000_000,
    batch: Annotated[int, typer.Option(min=2, help="Faces at once.")] = 128,
    learning_rate: LearningRate = 2e-3,
    optimiser: Annotated[OptimiserName, typer.Option(help="How the weights learn.")] = OptimiserName.ADAMW,
    seed: Seed = 0,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Look at the mirrored face too: better, half as fast.")
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Write the model in 8 bits: a quarter of the size.")] = False,
    device: Device = None,
    precision: InPrecision = Precision.AUTO,
    threads: Threads = None,
    checkpoint_every: CheckpointEvery = 120.0,
    licence: Licence = UNSTATED,
    commercial_use: CommercialUse = False,
) -> None:
    """Trains an embedder; run again after an interruption, it goes on. Exports it and measures what was exported."""
    settings = EmbedderSettings(
        backbone=backbone,
        dimension=dimension,
        loss=loss,
        margin=margin,
        scale=scale,
        batch=batch,
        weights=Weights(class_weight, cosine_weight, relational_weight, resemblance_weight),
        labelled_share=labelled_share,
        mixed_share=mixed_share,
        mixed_views=mixed_views,
        first_resemblance_scale=first_scale,
        last_resemblance_scale=last_scale,
        rounded_share=rounded_share,
    )
    pace = LoopSettings(
        steps=max(1, samples // batch),
        learning_rate=learning_rate,
        optimiser=optimiser,
        seed=seed,
        seconds_between_checkpoints=checkpoint_every,
    )
    with good_order(), Bars.shown() as observer:
        workplace = workplace_of(device, precision, threads)
        scan = scan_of(detector, BUILTIN_DETECTOR)
        crops = _crops(data, run / "crops", scan, observer)
        teachers = _teachers(teacher or [], workplace)
        torch.manual_seed(seed)  # layers draw their first weights from torch's own generator
        lesson = EmbedderLesson(
            settings,
            crops,
            workplace=workplace,
            teachers=teachers,
            targets=None if teachers is None else _targets(run / "targets.npy", crops, teachers, workplace, observer),
            held_out=None if held_out is None else HeldOut(_crops(held_out, run / "held-out", scan, observer)),
        )
        if start is not None:
            weights = BUILTIN_WEIGHTS if start == Path("builtin") else start
            start_from(weights, lesson.student, fitted=_fitted_to(lesson.student, Generator().manual_seed(seed)))
        student = Loop(lesson, pace, folder=run, workplace=workplace).run(observer)
        terms = Terms(name, licence, commercial_use)
        graph = _export(student, crops, output, terms, mirror=mirror, int8=int8)
    say(f"wrote {output / name}.onnx ({len(graph) / 1e6:.2f} MB) and {output / name}.toml")
    if held_out is not None:
        with good_order():
            embedder = open_embedder(read_manifest(output / f"{name}.toml"), graph)
            pipeline = FacePipeline(detector=scan.detector, embedder=embedder)
            print_evaluation(evaluate_embedder(pipeline, held_out, workers=available_cores()))


def print_evaluation(evaluation: Evaluation) -> None:
    """Rates with their 95 % intervals."""
    table = Table("figure", "rate", "95 %", title=f"{len(evaluation.parts.enrolled)} people enrolled by one photograph")
    for hit in evaluation.hit_rates:
        table.add_row(f"rank-{hit.rank}", *_cells(hit.rate))
    for rates in evaluation.error_rates:
        if rates.target_fpir is not None and rates.is_measured:
            found = RateInterval(1 - rates.fnir.upper, 1 - rates.fnir.estimate, 1 - rates.fnir.lower)
            table.add_row(f"found at FPIR {rates.target_fpir:.1%} (cosine {rates.threshold:.3f})", *_cells(found))
    Console().print(table)


def _cells(rate: RateInterval) -> tuple[str, str]:
    return f"{rate.estimate:.1%}", f"{rate.lower:.1%} to {rate.upper:.1%}"


def _crops(data: Path, folder: Path, scan: Scan, observer: Observer) -> Crops:
    """Those of an earlier call, where it finished them."""
    there = open_crops(folder, data)
    if there is not None:
        return there
    return unpack_crops(data, folder, observer) if data.suffix == ".npz" else cut_crops(data, folder, scan, observer)


def _teachers(files: list[Path], workplace: Workplace) -> Teachers | None:
    if not files:
        return None
    return Teachers.of(files, threads=torch.get_num_threads(), device=workplace.device)


def _targets(file: Path, crops: Crops, teachers: Teachers, workplace: Workplace, observer: Observer) -> Tensor:
    if not file.exists():
        partial = file.with_name("targets.part.npy")
        np.save(partial, bank_of_targets(crops, teachers, workplace, observer).numpy())
        partial.replace(file)
    return torch.from_numpy(np.load(file))


def _fitted_to(student: nn.Module, chance: Generator) -> Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]:
    """A wider or narrower net of the same kind can go on from what another learnt."""
    if not isinstance(student, CompactNet):
        return dict
    return lambda state: widened(narrowed(state, student), student, chance)


def _export(student: nn.Module, crops: Crops, output: Path, terms: Terms, *, mirror: bool, int8: bool) -> bytes:
    wrapper = MirroredUnitVectors if mirror else UnitVectors
    graph = embedder_graph(wrapper(student), side=SIDE)
    if int8:
        graph = quantised(graph, _samples(crops))
    write_model(output, graph, embedder_manifest(graph, terms, channels="BGR", scale=SCALE, mirror_average=False))
    return graph


def _samples(crops: Crops) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Crops as the network sees them, from all over the data: the ranges of 8 bits are set by them."""
    rows = np.linspace(0, len(crops) - 1, min(len(crops), _CALIBRATION_CROPS)).astype(int)
    edge = (STORED_SIDE - SIDE) // 2
    middle = crops.pictures[rows, edge : edge + SIDE, edge : edge + SIDE]
    return ((middle.astype(np.float32) - MEAN) * SCALE).transpose(0, 3, 1, 2).copy()
