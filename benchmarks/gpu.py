"""A GPU: faces a second, searches a second, and how far both are from what the device can do.

    python -m benchmarks.gpu --device cuda --json gpu.json

Needs torch and NumPy alone, and this folder: it runs on a machine without onnxruntime, FAISS and the server's packages, and
says what it leaves out there. Each share is of something that is measured in the same run on the same device: a large matrix
product, and a copy from memory to memory. On a processor it runs too, to be tested; such figures say nothing of a GPU.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

ROOT: Final = Path(__file__).parent.parent
if importlib.util.find_spec("facedex") is None or importlib.util.find_spec("facedex.training") is None:
    sys.path += [str(ROOT / each) for each in ("indexer", "training")]  # nothing is installed here

from facedex.indexer.search.torch_memory import TorchMemory  # noqa: E402
from facedex.indexer.vision.accelerated.engine import (  # noqa: E402
    MOST_AT_ONCE,
    CudaRecorder,
    Engine,
    Precision,
    compute_exactly,
)
from facedex.training.backbones.backbone import BackboneName, make_backbone  # noqa: E402

SIDE: Final = 112
DIMENSION: Final = 512
SEGMENT_ROWS: Final = 262_144
FETCHED: Final = 64
KEPT: Final = 10
TOGETHER: Final = 64
LEAST_COSINE: Final = 0.999
SCORE_TOLERANCE: Final = 1e-3
NEEDED_BY_IDENTIFY: Final = ("grpc", "onnxruntime", "faiss", "sqlalchemy", "facedex.server", "facedex.client")


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the device reaches at best, in one precision."""

    precision: str
    flops_per_second: float


@dataclass(frozen=True, slots=True)
class Embedding:
    """One network, one precision, one size of a batch."""

    model: str
    precision: str
    batch: int
    faces_per_second: float
    """Of pictures that are on the device already."""
    with_transfers: float
    """Of pictures in this machine's memory, with the vectors back there."""
    share_of_ceiling: float
    least_cosine: float
    """To the same network in single precision on the processor."""


@dataclass(frozen=True, slots=True)
class Search:
    """Exhaustive search of so many templates."""

    templates: int
    one_ms: float
    by_floor: float
    """By the time in which the device copies as many bytes as the rows have, reading alone counted."""
    together_per_second: float
    """Probes, 64 at a time."""
    same_ids: bool | None
    largest_difference: float | None
    """Of scores, to exact search on the processor; None: not compared, for its size."""


@dataclass(frozen=True, slots=True)
class Report:
    """All of one run."""

    device: str
    is_gpu: bool
    torch: str
    bytes_per_second: float
    ceilings: list[Ceiling]
    embeddings: list[Embedding]
    searches: list[Search]
    identify: str
    """Calls a second through gRPC, or why it was left out."""


# A run


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures the device, prints tables, and writes a JSON file where one is named."""
    options = _options(arguments)
    compute_exactly()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit(f"benchmarks.gpu: torch {torch.__version__} finds no GPU; --device cpu tries the program out")
    report = measured(device, options)
    _print(report)
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    if not _is_right(report):
        sys.exit("benchmarks.gpu: the device's answers are not the processor's")


def measured(device: torch.device, options: argparse.Namespace) -> Report:
    is_gpu = device.type == "cuda"
    precisions = [Precision[each] for each in options.precisions]
    with torch.inference_mode():
        speed = bytes_per_second(device, mebibytes=4096 if is_gpu else 64)
        ceilings = [_ceiling(device, each, side=8192 if is_gpu else 256) for each in precisions]
    models = [*options.models, *options.onnx]
    embeddings = [
        row
        for model in models
        for precision, ceiling in zip(precisions, ceilings, strict=True)
        for row in _embeddings(_module(model), Path(model).stem, device, precision, ceiling, options.batches)
    ]
    searches = [_search(device, size, speed, check=size <= options.most_checked) for size in options.sizes]
    name = torch.cuda.get_device_name(device) if is_gpu else "processor"
    identify = _identify(options.device, seconds=options.identify_seconds)
    return Report(name, is_gpu, torch.__version__, speed, ceilings, embeddings, searches, identify)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Measures a GPU.")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu to try the program out")
    parser.add_argument("--models", type=_words, default=["iresnet50", "iresnet100", "mobilefacenet"])
    parser.add_argument("--onnx", type=Path, nargs="*", default=[], help="networks of manifests too; needs onnx")
    parser.add_argument("--precisions", type=_words, default=["HALF", "BRAIN", "SINGLE"])
    parser.add_argument("--batches", type=_numbers, default=[1, 8, 32, 64])
    parser.add_argument("--sizes", type=_numbers, default=[1_000_000, 10_000_000, 50_000_000], help="templates")
    parser.add_argument("--most-checked", type=int, default=10_000_000, help="larger ones are not compared")
    parser.add_argument("--identify-seconds", type=float, default=10.0, help="0: leave Identify out")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args(arguments)


def _words(text: str) -> list[str]:
    return [each for each in text.split(",") if each]


def _numbers(text: str) -> list[int]:
    return [int(each.replace("_", "")) for each in _words(text)]


# What the device can do


def seconds_of(work: Callable[[], object], device: torch.device, *, rounds: int = 10) -> float:
    """Median of rounds. On a GPU each is waited for."""
    times: list[float] = []
    for number in range(rounds + 3):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        if number >= 3:  # libraries choose their ways in the first runs
            times.append(time.perf_counter() - started)
    return median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bytes_per_second(device: torch.device, *, mebibytes: int) -> float:
    """Of its memory: each byte of a copy is read and written."""
    source = torch.zeros(mebibytes * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) / seconds_of(lambda: target.copy_(source), device)


def _ceiling(device: torch.device, precision: Precision, *, side: int) -> Ceiling:
    left, right = (torch.randn((side, side), device=device).to(precision.value) for _ in range(2))
    return Ceiling(precision.name, 2 * side**3 / seconds_of(lambda: left @ right, device))


# Embedding


def _module(model: str | Path) -> nn.Module:
    """A network with random weights by its name, or that of an ONNX file."""
    if isinstance(model, str):
        torch.manual_seed(1)
        return make_backbone(BackboneName(model), dimension=DIMENSION).eval()
    from facedex.indexer.vision.accelerated.module import GraphModule  # noqa: PLC0415
    from facedex.indexer.vision.accelerated.reading import read_graph  # noqa: PLC0415  (imports onnx)

    return GraphModule(model.stem, read_graph(model.stem, model.read_bytes())).eval()


def _embeddings(
    module: nn.Module, name: str, device: torch.device, precision: Precision, ceiling: Ceiling, batches: Sequence[int]
) -> Iterator[Embedding]:
    flops = flops_of(module)
    pictures = np.random.default_rng(1).uniform(-1, 1, (max(batches), 3, SIDE, SIDE)).astype(np.float32)
    with torch.inference_mode():
        expected = _first(module(torch.from_numpy(pictures))).numpy()
    engine = Engine(_AsTuple(copy.deepcopy(module)), str(device), precision, recorded_shape=(SIDE, SIDE))
    engine.record_all()
    alone = _AsTuple(copy.deepcopy(module)).to(device, precision.value).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for batch in batches:
        resident = torch.from_numpy(pictures[:batch]).to(device, precision.value)
        with torch.inference_mode():
            run = _replayed(alone, resident.contiguous(memory_format=torch.channels_last))
            per_second = batch / seconds_of(run, device)
        parts = [pictures[start : start + MOST_AT_ONCE] for start in range(0, batch, MOST_AT_ONCE)]
        transferred = batch / seconds_of(partial(_run_all, engine, parts), device)
        vectors = np.concatenate([engine.run(each)[0] for each in parts])
        yield Embedding(
            name,
            precision.name,
            batch,
            per_second,
            transferred,
            per_second * flops / ceiling.flops_per_second,
            _least_cosine(expected[:batch], vectors),
        )


def _run_all(engine: Engine, parts: Sequence[NDArray[np.float32]]) -> None:
    for each in parts:
        engine.run(each)


class _AsTuple(nn.Module):
    """The device's engine takes networks with a tuple of outputs."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        output = self.inner(pictures)
        return output if isinstance(output, tuple) else (output,)


def _first(outputs: Any) -> Tensor:
    output: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return output


def _replayed(module: nn.Module, pictures: Tensor) -> Callable[[], object]:
    """As the engine runs it: on a GPU from a recorded graph."""
    if pictures.device.type != "cuda":
        return lambda: module(pictures)
    replay = CudaRecorder().record(module, pictures)
    return lambda: replay(pictures)


def flops_of(module: nn.Module) -> float:
    """Multiplications and additions of convolutions and matrix products, for one picture; 0 where it has no such layers."""
    counted: list[int] = []

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        weight: Any = layer.weight
        places = output.shape[2] * output.shape[3] if output.dim() == 4 else 1
        counted.append(2 * weight.numel() * places)

    layers = [each for each in module.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    hooks = [each.register_forward_hook(count) for each in layers]
    with torch.inference_mode():
        module(torch.zeros(1, 3, SIDE, SIDE))
    for hook in hooks:
        hook.remove()
    return float(sum(counted))


def _least_cosine(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    left, right = expected.astype(np.float64), found.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(((left * right).sum(axis=1) / lengths).min())


# Searching


class Templates:
    """Unit vectors in any number, of which one segment is in memory: the others are the same, their components moved on."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._rows = _units(np.random.default_rng(1), min(count, SEGMENT_ROWS))

    def segments(self) -> Iterator[NDArray[np.float16]]:
        for number, start in enumerate(range(0, self.count, SEGMENT_ROWS)):
            rows = self._rows[: self.count - start]
            yield np.roll(rows, number, axis=1)

    def probes(self, count: int) -> NDArray[np.float32]:
        """Mated, each to a row of the first segment; cosines around 0.6."""
        rng = np.random.default_rng(2)
        rows = self._rows[rng.integers(0, len(self._rows), count)].astype(np.float32)
        mixed = rows + 1.3 * _units(rng, count).astype(np.float32)
        return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), np.float32)


def _units(rng: np.random.Generator, count: int) -> NDArray[np.float16]:
    rows = rng.standard_normal((count, DIMENSION), dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float16)


def _search(device: torch.device, size: int, speed: float, *, check: bool) -> Search:
    templates = Templates(size)
    memory = TorchMemory(str(device))
    copies = [memory.copy(each) for each in templates.segments()]
    masks = [None] * len(copies)
    probes = templates.probes(TOGETHER)
    one = seconds_of(lambda: memory.nearest(copies, masks, probes[:1], count=FETCHED), device)
    together = seconds_of(lambda: memory.nearest(copies, masks, probes, count=FETCHED), device)
    # A processor keeps single precision: it multiplies halves many times slower.
    floor = size * DIMENSION * (2 if device.type == "cuda" else 4) / speed
    same, difference = (
        _compared(templates, memory.nearest(copies, masks, probes, count=FETCHED)) if check else (None, None)
    )
    return Search(size, 1000 * one, one / floor, TOGETHER / together, same, difference)


def _compared(templates: Templates, found: tuple[NDArray[np.float32], NDArray[np.int64]]) -> tuple[bool, float]:
    """Whether the best ten are those of exact search on the processor, and how far their scores are from it.

    As the index does it: of the rows that the device fetches, exact scores decide.
    """
    scores, positions = found
    expected, rows = _exact(templates, templates.probes(TOGETHER))
    exact_of_fetched = _scores_at(templates, positions)
    order = np.argsort(-exact_of_fetched, axis=1, kind="stable")[:, :KEPT]
    same = bool((np.take_along_axis(positions, order, axis=1) == rows).all())
    best = np.take_along_axis(scores, np.argsort(-scores, axis=1, kind="stable")[:, :KEPT], axis=1)
    return same, float(np.abs(best - expected).max())


def _exact(templates: Templates, probes: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    scores = np.full((len(probes), KEPT), -np.inf, np.float32)
    rows = np.full((len(probes), KEPT), -1, np.int64)
    for number, segment in enumerate(templates.segments()):
        own = probes @ segment.astype(np.float32).T
        best = np.argpartition(-own, min(KEPT, own.shape[1] - 1), axis=1)[:, :KEPT]
        scores = np.concatenate([scores, np.take_along_axis(own, best, axis=1)], axis=1)
        rows = np.concatenate([rows, best + number * SEGMENT_ROWS], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :KEPT]
        scores, rows = np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
    return scores, rows


def _scores_at(templates: Templates, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Exact scores of these rows (n, k) for the probes."""
    probes = templates.probes(TOGETHER)
    scores = np.empty(positions.shape, np.float32)
    for number, segment in enumerate(templates.segments()):
        probe, place = np.nonzero(positions // SEGMENT_ROWS == number)
        rows = segment[positions[probe, place] % SEGMENT_ROWS].astype(np.float32)
        scores[probe, place] = (rows * probes[probe]).sum(axis=1)
    return scores


# The whole of it


def _identify(device: str, *, seconds: float) -> str:
    missing = [each for each in NEEDED_BY_IDENTIFY if not _is_there(each)]
    if not seconds:
        return "left out, as asked for"
    if missing:
        return f"left out: {', '.join(missing)} not installed here"
    from benchmarks.gpu_identify import identified_per_second  # noqa: PLC0415  (needs the server's packages)

    return f"{identified_per_second(device, seconds=seconds):.1f} photographs/s, 8 callers"


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _is_right(report: Report) -> bool:
    """Half and single precision are held to the processor's vectors; bf16 is only told, and no server uses it."""
    vectors = all(
        each.least_cosine >= LEAST_COSINE for each in report.embeddings if each.precision != Precision.BRAIN.name
    )
    return vectors and all(
        each.same_ids is None or (each.same_ids and (each.largest_difference or 0) <= SCORE_TOLERANCE)
        for each in report.searches
    )


def _print(report: Report) -> None:
    print(f"{report.device}, torch {report.torch}")
    if not report.is_gpu:
        print("THESE ARE NO FIGURES OF A GPU: a processor stands in for it, to try the program out.")
    print(f"memory: {report.bytes_per_second / 1e9:.1f} GB/s")
    for each in report.ceilings:
        print(f"large matrix product, {each.precision}: {each.flops_per_second / 1e12:.3f} TFLOP/s")
    print(f"\n{'model':<16}{'precision':<10}{'batch':>6}{'faces/s':>12}{'transfers':>12}{'ceiling':>9}{'cosine':>10}")
    for row in report.embeddings:
        print(
            f"{row.model:<16}{row.precision:<10}{row.batch:>6}{row.faces_per_second:>12.1f}{row.with_transfers:>12.1f}"
            f"{row.share_of_ceiling:>9.1%}{row.least_cosine:>10.5f}"
        )
    print(f"\n{'templates':>12}{'one, ms':>12}{'by floor':>10}{'64: q/s':>12}{'same ids':>10}{'score':>10}")
    for found in report.searches:
        told = ("-", "-") if found.same_ids is None else (str(found.same_ids), f"{found.largest_difference:.1e}")
        print(
            f"{found.templates:>12}{found.one_ms:>12.3f}{found.by_floor:>10.2f}{found.together_per_second:>12.0f}"
            f"{told[0]:>10}{told[1]:>10}"
        )
    print(f"\nIdentify through gRPC: {report.identify}")


if __name__ == "__main__":
    main()
