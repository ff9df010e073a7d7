"""`facedex-train refiner`: a second look for a detector, learnt from what that detector finds, right and wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import nn

from facedex.indexer.vision.manifest import ChannelOrder, ModelInput, RefinerContract
from facedex.indexer.vision.models import ModelFile, open_detector, sha256_of
from facedex.indexer.vision.scan import Scan
from facedex.indexer.vision.workbench import available_cores
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
    detector_file,
    good_order,
    say,
    workplace_of,
)
from facedex.training.crops import UNLABELLED, Crops, open_crops, unpack_crops
from facedex.training.detector_cli import print_figures
from facedex.training.devices import Precision
from facedex.training.export import Terms, detector_manifest, onnx_of, prove, stored_smaller, write_model
from facedex.training.held_out import evaluate_detector, pictures_below
from facedex.training.loop import Loop, LoopSettings, start_from
from facedex.training.progress import Bars, Observer
from facedex.training.refinement.lesson import RefinerLesson, RefinerSettings
from facedex.training.refinement.looks import (
    VIEW_LANDMARKS,
    Judges,
    Looks,
    below_threshold,
    collect_looks,
    open_looks,
)
from facedex.training.refinement.network import SIDE, RefinerOutputs

_TEACHERS_LEAST = 0.3
"""What the teacher takes for a face with this score is no example of what is none."""
_INPUT = ModelInput(ChannelOrder.BGR, mean=127.5, scale=1 / 128)


@dataclass(frozen=True, slots=True)
class _Sources:
    """What is looked at, and by whom."""

    photographs: Path
    crops: Path | None
    crops_step: int
    judges: Judges

    @property
    def origin(self) -> str:
        """All that decides what is learnt from."""
        crops = "" if self.crops is None else f", every {self.crops_step}. crop of {self.crops.resolve()}"
        finder, teacher = self.judges.detector.detector, self.judges.teacher.detector
        seen = f"{self.photographs.resolve()}{crops}, findings of {finder.manifest.sha256[:16]}"
        score = f"from {finder.contract.score_threshold:g} on"
        return f"{seen} {score}, judged by {teacher.manifest.digest[:16]} in {self.judges.views} views"


def train_refiner(  # noqa: PLR0913  (a command has as many options as it has)
    photographs: Annotated[Path, typer.Argument(help="Photographs, at any depth.")],
    *,
    run: RunFolder,
    name: Annotated[str, typer.Option(help="What the detector is called that has this second look.")],
    output: Output = Path(),
    detector: Annotated[Path | None, typer.Option(help="ONNX detector, manifest beside it; else the built-in.")] = None,
    teacher: Annotated[Path, typer.Option(help="ONNX detector that knows better, manifest beside it.")],
    crops: Annotated[Path | None, typer.Option(help="An archive of aligned crops, for more people.")] = None,
    crops_step: Annotated[int, typer.Option(min=1, help="Of its nameless crops, every so manieth.")] = 5,
    least_score: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Findings of the detector are learnt from that score so much: near misses too."
        ),
    ] = 0.3,
    views: Annotated[int, typer.Option(min=0, help="How often the teacher is asked again, on moved pictures.")] = 5,
    held_out: HeldOutFolder = None,
    start: Start = None,
    samples: Annotated[int, typer.Option(min=1, help="Findings to learn from.")] = 1_000_000,
    batch: Annotated[int, typer.Option(min=2, help="Findings at once.")] = 64,
    learning_rate: LearningRate = 4e-3,
    seed: Seed = 0,
    score_threshold: Annotated[
        float, typer.Option(min=0, max=1, help="What scores less in the second look is no face.")
    ] = 0.5,
    device: Device = None,
    precision: InPrecision = Precision.AUTO,
    threads: Threads = None,
    checkpoint_every: CheckpointEvery = 120.0,
    licence: Licence = UNSTATED,
    commercial_use: CommercialUse = False,
) -> None:
    """Trains a second look at each face: closer landmarks, fewer false faces. Writes the detector anew, with it beside."""
    pace = LoopSettings(
        steps=max(1, samples // batch),
        learning_rate=learning_rate,
        seed=seed,
        seconds_between_checkpoints=checkpoint_every,
    )
    with good_order(), Bars.shown() as observer:
        workplace = workplace_of(device, precision, threads)
        first, knowing = detector_file(detector), Scan(open_detector(detector_file(teacher)))
        bare = Scan(open_detector(ModelFile(first.manifest, first.graph)))
        judges = Judges(below_threshold(bare, least_score), below_threshold(knowing, _TEACHERS_LEAST), views)
        sources = _Sources(photographs, crops, crops_step, judges)
        looks = _collected(sources, run, observer, workers=threads or available_cores())
        torch.manual_seed(seed)  # layers draw their first weights from torch's own generator
        lesson = RefinerLesson(RefinerSettings(batch=batch), looks, workplace=workplace)
        if start is not None:
            start_from(start, lesson.student)
        graph = refiner_graph(Loop(lesson, pace, folder=run, workplace=workplace).run(observer))
        refiner = RefinerContract(sha256_of(graph), _INPUT, SIDE, VIEW_LANDMARKS, score_threshold)
        contract = replace(bare.detector.contract, refiner=refiner)
        manifest = detector_manifest(first.graph, Terms(name, licence, commercial_use), first.manifest.input, contract)
        written = write_model(output, first.graph, manifest, refiner=graph)
    say(
        f"wrote {output / name}.onnx, {output / name}.refiner.onnx ({len(graph) / 1e6:.2f} MB) and {output / name}.toml"
    )
    if held_out is not None:
        with good_order(), Bars.shown() as observer:
            own = Scan(open_detector(written))
            print_figures(evaluate_detector(own, knowing, pictures_below(held_out, observer)))


def refiner_graph(network: nn.Module) -> bytes:
    """The ONNX file, proved on noise; weights are stored in 8 bits and widened when it is opened."""
    outputs = RefinerOutputs(network).cpu().eval()
    example = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    free = {each: {0: "batch"} for each in ("input", "landmarks", "score")}
    graph = onnx_of(outputs, example, outputs=["landmarks", "score"], free=free)
    prove(outputs, graph, example)
    return stored_smaller(graph, least_in_8_bits=2_000)


def _collected(sources: _Sources, run: Path, observer: Observer, *, workers: int) -> Looks:
    """Those of an earlier call, where it finished them."""
    there = open_looks(run / "looks", sources.origin)
    if there is not None:
        return there
    crops = None if sources.crops is None else _nameless(sources.crops, run / "crops", sources.crops_step, observer)
    return collect_looks(
        sources.photographs,
        run / "looks",
        sources.judges,
        observer,
        crops=crops,
        source=sources.origin,
        workers=workers,
    )


def _nameless(archive: Path, folder: Path, step: int, observer: Observer) -> Crops:
    there = open_crops(folder, archive)
    crops = unpack_crops(archive, folder, observer) if there is None else there
    rows = np.flatnonzero(crops.identities == UNLABELLED)[::step]
    return Crops(crops.pictures[rows], crops.identities[rows])
