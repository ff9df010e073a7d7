"""Embedding one face after the other: facedex's session beside stock onnxruntime, on a MobileFaceNet with PReLU.

    python -m benchmarks.embedding --json embedding.json

On two threads onnxruntime may take both for one face, or one for each of two faces; facedex does the latter. The last row is
another network: what the convolutions cost alone, which no rewriting of PReLU can save.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import typer
from benchmarks.machine import describe_machine
from benchmarks.mobilefacenet import DIMENSION, SIDE, Activation, mobilefacenet
from benchmarks.report import Bar, Side, bars_as_json, print_bars, print_table, write_json
from benchmarks.workers import Round, Task, run_in_threads
from numpy.typing import NDArray

from facedex.indexer.vision.manifest import ChannelOrder, ModelInput
from facedex.indexer.vision.network import open_network, random_input

INPUT = ModelInput(ChannelOrder.RGB, mean=127.5, scale=1 / 127.5)
FACES_COMPARED = 20
FLOOR = "onnxruntime, no activation at all"


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of embedding; `threads` is how many cores it may use."""

    name: str
    threads: int
    run: Callable[[float], Round]


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians over rounds."""

    name: str
    threads: int
    faces_per_second: float
    median_ms: float
    rounds: list[float]


def main(
    *,
    rounds: Annotated[int, typer.Option(help="How often everything is measured, in turns.")] = 7,
    seconds: Annotated[float, typer.Option(help="Duration of one measurement.")] = 2.0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measures embedding."""
    machine = describe_machine()
    graph = mobilefacenet()
    difference = largest_difference(graph)
    contenders = [*_contenders(graph), _floor(mobilefacenet(activation=Activation.NONE))]
    measured = _measure(contenders, rounds=rounds, seconds=seconds)
    bars = _bars(measured, difference)
    _print(measured, bars)
    document: dict[str, object] = {
        "machine": machine,
        "network": {"kind": "MobileFaceNet, PReLU, random weights", "side": SIDE, "dimension": DIMENSION},
        "largest_difference": difference,
        "rows": [asdict(row) for row in measured],
        "bars": bars_as_json(bars),
    }
    write_json(json_path, document)


def largest_difference(graph: bytes) -> float:
    """The largest difference of a component between the two unit vectors of one random face."""
    ours, theirs = open_network("facedex", graph, INPUT), _stock(graph, threads=1)
    differences = [
        np.abs(_unit(ours.run(face)["vector"]) - _unit(theirs.run(None, {"input": face})[0])).max()
        for face in _faces(FACES_COMPARED)
    ]
    return float(max(differences))


def _faces(count: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    return [rng.uniform(-1, 1, (1, 3, SIDE, SIDE)).astype(np.float32) for _ in range(count)]


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def _stock(graph: bytes, *, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _contenders(graph: bytes) -> list[Contender]:
    face = random_input(INPUT, (SIDE, SIDE))
    ours: Task = partial(open_network("facedex", graph, INPUT).run, face)
    one: Task = partial(_stock(graph, threads=1).run, None, {"input": face})
    both: Task = partial(_stock(graph, threads=2).run, None, {"input": face})
    return [
        Contender("onnxruntime", 1, partial(_run, [one])),
        Contender("facedex", 1, partial(_run, [ours])),
        Contender("onnxruntime, one face on both", 2, partial(_run, [both])),
        Contender("onnxruntime, a face on each", 2, partial(_run, [one, one])),
        Contender("facedex", 2, partial(_run, [ours, ours])),
    ]


def _floor(bare: bytes) -> Contender:
    """The same network without any activation: no way of computing PReLU beside onnxruntime's convolutions is faster."""
    task: Task = partial(_stock(bare, threads=1).run, None, {"input": random_input(INPUT, (SIDE, SIDE))})
    return Contender(FLOOR, 1, partial(_run, [task]))


def _run(tasks: list[Task], seconds: float) -> Round:
    return run_in_threads(tasks, seconds=seconds)


def _measure(contenders: list[Contender], *, rounds: int, seconds: float) -> list[Measured]:
    """In turns, so that what else the machine does hits all of them."""
    turns = [[contender.run(seconds) for contender in contenders] for _ in range(rounds)]
    return [_summary(contender, [turn[place] for turn in turns]) for place, contender in enumerate(contenders)]


def _summary(contender: Contender, turns: list[Round]) -> Measured:
    rates = [turn.per_second for turn in turns]
    median_ms = float(np.median([turn.percentile_ms(50) for turn in turns]))
    return Measured(contender.name, contender.threads, float(np.median(rates)), median_ms, rates)


def _bars(measured: list[Measured], difference: float) -> list[Bar]:
    ratios = [
        Bar(f"× {row.name}, {row.threads} threads", Side.AT_LEAST, 4, _ratio(measured, row))
        for row in measured
        if row.name not in {"facedex", FLOOR}
    ]
    return [*ratios, Bar("largest difference of a component", Side.AT_MOST, 1e-5, difference)]


def _ratio(measured: list[Measured], other: Measured) -> float:
    """Median over rounds of the ratio within a round."""
    (ours,) = (row for row in measured if row.name == "facedex" and row.threads == other.threads)
    return float(np.median(np.divide(ours.rounds, other.rounds)))


def _print(measured: list[Measured], bars: list[Bar]) -> None:
    slowest = min(row.faces_per_second for row in measured)
    rows = [
        (
            row.name,
            str(row.threads),
            f"{row.faces_per_second:.1f}",
            f"{row.faces_per_second / slowest:.1f}",
            f"{row.median_ms:.2f}",
        )
        for row in measured
    ]
    print_table("Embedding, MobileFaceNet with PReLU", ("", "threads", "faces/s", "×", "median ms"), rows)
    print_bars(bars)


if __name__ == "__main__":
    typer.run(main)
