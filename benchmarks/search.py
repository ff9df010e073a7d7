"""Search: facedex and its peers on the same faces in one run.

    python -m benchmarks.search --templates 100000 --json search.json --plot search.png

The faces are fitted to real embeddings, or real: `--people FOLDER --others FOLDER`, each a folder a person, take the mated
pairs from the one and everybody else from the other.

FNIR+ is the share of mated probes whose mate exact search returns first at or above the threshold, and the index does not:
faces that the index loses.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from benchmarks.decisions import embedded
from benchmarks.machine import describe_machine
from benchmarks.real_faces import among_others
from benchmarks.report import Bar, Side, bars_as_json, print_bars, write_json
from benchmarks.searchers import Searcher, make_searchers, peer
from benchmarks.vectors import Faces, make_faces
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER, ModelFolder

BASELINE = "faiss-flat"
OURS, OUR_SERVER = "facedex", "facedex-server"
# Peers that answer over a connection are compared with the server, the others with the index in process.
REMOTE_PEERS, LOCAL_PEERS = "pgvector", "hnswlib"
MILLION, PEERS_FROM = 1_000_000, 100_000
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


def main(  # noqa: PLR0913  (the options of a command)
    *,
    templates: Annotated[int, typer.Option(help="Number of templates.")] = 100_000,
    probes: Annotated[int, typer.Option(help="Number of mated probes.")] = 10_000,
    threshold: Annotated[float, typer.Option(help="Operating threshold, a cosine.")] = 0.4,
    dimension: Annotated[int, typer.Option(help="Components of a vector.")] = 512,
    only: Annotated[list[str] | None, typer.Option(help="Searchers to run; default all.")] = None,
    people: Annotated[Path | None, typer.Option(help="Real people to find: a folder a person.")] = None,
    others: Annotated[Path | None, typer.Option(help="Real people beside them: a folder a person.")] = None,
    data: Annotated[Path, typer.Option(help="Data folder with added models.")] = Path("data"),
    detector: Annotated[str, typer.Option(help="Finds faces.")] = BUILTIN_DETECTOR,
    embedder: Annotated[str, typer.Option(help="Makes vectors.")] = BUILTIN_EMBEDDER,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    plot_path: Annotated[Path | None, typer.Option("--plot", help="Draw speed against loss here.")] = None,
) -> None:
    """Measures search."""
    machine = describe_machine()
    if people is None or others is None:
        faces = make_faces(templates, probes, dimension=dimension)
    else:
        found = (
            embedded(folder, models=ModelFolder(data / "models"), detector=detector, embedder=embedder)
            for folder in (people, others)
        )
        faces = among_others(*found, template_count=templates, probe_count=probes)
    exact = _exact(faces, threshold)
    searchers = make_searchers(threshold)
    rows = [_measure(name, searchers[name](), faces, exact) for name in (only or list(searchers))]
    bars = bars_of(rows, templates=templates)
    print_table(rows, templates=templates, threshold=threshold)
    print_bars(bars)
    document: dict[str, object] = {
        "machine": machine,
        "templates": templates,
        "threshold": threshold,
        "faces": "fitted" if people is None else f"{len(faces.probes)} real probes, {embedder}",
        "rows": [asdict(row) for row in rows],
        "bars": bars_as_json(bars),
    }
    write_json(json_path, document)
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


def bars_of(rows: list[Measured], *, templates: int) -> list[Bar]:
    """What was promised of search at this size, where the peers that it is promised against were measured."""
    by_name = {row.name: row for row in rows}
    if OURS not in by_name:
        return []
    bars = [Bar("added FNIR", Side.AT_MOST, 0, by_name[OURS].added_fnir)]
    if templates >= MILLION:
        bars += _bars_of_a_million(by_name)
    elif templates >= PEERS_FROM:
        bars += _bars_beside(rows, LOCAL_PEERS, by_name[OURS])
        bars += _bars_beside(rows, REMOTE_PEERS, by_name.get(OUR_SERVER))
    return bars


def _bars_of_a_million(by_name: dict[str, Measured]) -> list[Bar]:
    ours, flat = by_name[OURS], by_name.get(BASELINE)
    bars = [Bar("resident bytes a template", Side.AT_MOST, 1_300, ours.resident_bytes_per_template)]
    if flat is not None:
        bars.append(Bar("single search, by IndexFlatIP's", Side.AT_LEAST, 15, flat.single_ms / ours.single_ms))
        batch = flat.batch_ms_per_probe / ours.batch_ms_per_probe
        bars.append(Bar("batched search, by IndexFlatIP's", Side.AT_LEAST, 50, batch))
    return bars


def _bars_beside(rows: list[Measured], peers: str, ours: Measured | None) -> list[Bar]:
    """Against the fastest setting of a peer that loses no more; where all lose more, against the one that loses least."""
    settings = [row for row in rows if row.name.startswith(peers)]
    if ours is None or not settings:
        return []
    equal = [row for row in settings if row.added_fnir <= ours.added_fnir]
    best = min(equal, key=lambda row: row.single_ms) if equal else min(settings, key=lambda row: row.added_fnir)
    what = f"{ours.name}, by {best.name} which loses {100 * best.added_fnir:.2f} %"
    return [Bar(what, Side.AT_LEAST, 50, best.single_ms / ours.single_ms)]


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
