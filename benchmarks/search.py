"""Search: facedex and its peers on the same faces in one run.

    python -m benchmarks.search --templates 100000 --json search.json --plot search.png

FNIR+ is the share of mated probes whose mate exact search returns first at or above the threshold, and the index does not:
faces that the index loses.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from benchmarks.machine import describe_machine
from benchmarks.searchers import Searcher, make_searchers, peer
from benchmarks.vectors import Faces, make_faces
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

BASELINE = "faiss-flat"
BATCH = 64
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Measured:
    """One searcher: medians over rounds, and what it lost."""

    name: str
    build_seconds: float
    resident_bytes_per_template: float
    single_ms: float
    batch_ms_per_probe: float
    added_fnir: float
    recall_at_1: float
    probes: int


def main(
    *,
    templates: Annotated[int, typer.Option(help="Number of templates.")] = 100_000,
    probes: Annotated[int, typer.Option(help="Number of mated probes.")] = 10_000,
    threshold: Annotated[float, typer.Option(help="Operating threshold, a cosine.")] = 0.4,
    dimension: Annotated[int, typer.Option(help="Components of a vector.")] = 512,
    only: Annotated[list[str] | None, typer.Option(help="Searchers to run; default all.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    plot_path: Annotated[Path | None, typer.Option("--plot", help="Draw speed against loss here.")] = None,
) -> None:
    """Measures search."""
    machine = describe_machine()
    faces = make_faces(templates, probes, dimension=dimension)
    exact = _exact(faces, threshold)
    searchers = make_searchers(threshold)
    rows = [_measure(name, searchers[name](), faces, exact) for name in (only or list(searchers))]
    print_table(rows, templates=templates, threshold=threshold)
    document = {
        "machine": machine,
        "templates": templates,
        "threshold": threshold,
        "rows": [asdict(row) for row in rows],
    }
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(document, indent=2))
    if plot_path is not None:
        draw(rows, plot_path)


@dataclass(frozen=True, slots=True)
class Exact:
    """What exhaustive search says: the nearest row of each probe, and whether it is the mate at the threshold."""

    nearest: NDArray[np.int64]
    is_hit: NDArray[np.bool_]


def _exact(faces: Faces, threshold: float) -> Exact:
    best = np.full(len(faces.probes), -2.0, np.float32)
    nearest = np.zeros(len(faces.probes), np.int64)
    for start in range(0, len(faces.templates), 20_000):
        scores = faces.probes @ faces.rows(start, start + 20_000).T
        place = scores.argmax(axis=1)
        score = scores[np.arange(len(place)), place]
        better = score > best
        nearest[better], best[better] = place[better] + start, score[better]
    return Exact(nearest, (nearest == faces.mates) & (best >= threshold))


def _measure(name: str, searcher: Searcher, faces: Faces, exact: Exact) -> Measured:
    gc.collect()
    before, started = _resident_bytes(), time.perf_counter()
    searcher.build(faces)
    gc.collect()
    built, resident = time.perf_counter() - started, _resident_bytes() - before
    single = _median_ms(searcher.search_one, list(faces.probes[:40]))
    batches = [faces.probes[start : start + BATCH] for start in range(0, 4 * BATCH, BATCH)]
    batch = _median_ms(searcher.search_batch, batches) / BATCH
    checked = min(len(faces.probes), _checkable(batch))
    found = np.concatenate(
        [searcher.search_batch(faces.probes[start : min(start + BATCH, checked)]) for start in range(0, checked, BATCH)]
    )
    searcher.close()
    lost = exact.is_hit[:checked] & (found != exact.nearest[:checked])
    right = (found == exact.nearest[:checked])[exact.is_hit[:checked]]
    return Measured(
        name=name,
        build_seconds=round(built, 2),
        resident_bytes_per_template=round(resident / len(faces.templates)),
        single_ms=round(single, 4),
        batch_ms_per_probe=round(batch, 4),
        added_fnir=float(lost.mean()),
        recall_at_1=float(right.mean()),
        probes=checked,
    )


def _checkable(batch_ms: float) -> int:
    """Probes that a searcher answers in about two minutes: a slow peer is checked on fewer of them."""
    return max(500, int(120_000 / max(batch_ms, 1e-3)))


def _median_ms(search: Callable[[Any], object], questions: list[Any]) -> float:
    search(questions[0])
    times: list[float] = []
    for _ in range(ROUNDS):
        for question in questions:
            started = time.perf_counter()
            search(question)
            times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times))


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def print_table(rows: list[Measured], *, templates: int, threshold: float) -> None:
    """Medians, and speed as a multiple of FAISS's exhaustive index as it comes."""
    table = Table(title=f"Search of {templates:,} templates, threshold {threshold}".replace(",", " "))
    for heading in ("", "single ms", "×", "batch ms", "×", "FNIR+", "recall@1", "probes", "bytes", "build s"):
        table.add_column(heading, justify="left" if not heading else "right")
    base = next((row for row in rows if row.name == BASELINE), None)
    for row in rows:
        table.add_row(
            row.name,
            f"{row.single_ms:.3f}",
            "" if base is None else f"{base.single_ms / row.single_ms:.1f}",
            f"{row.batch_ms_per_probe:.3f}",
            "" if base is None else f"{base.batch_ms_per_probe / row.batch_ms_per_probe:.1f}",
            f"{100 * row.added_fnir:.2f} %",
            f"{100 * row.recall_at_1:.2f} %",
            str(row.probes),
            f"{row.resident_bytes_per_template:.0f}",
            f"{row.build_seconds:.1f}",
        )
    Console(width=120).print(table)


def draw(rows: list[Measured], path: Path) -> None:
    """Speed against loss: the best corner is at the lower right."""
    peer("matplotlib").use("Agg")
    figure, axes = peer("matplotlib.pyplot").subplots(figsize=(8, 5))
    for row in rows:
        axes.scatter(1000 / row.single_ms, 100 * row.added_fnir)
        axes.annotate(row.name, (1000 / row.single_ms, 100 * row.added_fnir), xytext=(4, 4), textcoords="offset points")
    axes.set(xscale="log", xlabel="single searches a second", ylabel="FNIR+: mated probes lost, %")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    typer.run(main)
