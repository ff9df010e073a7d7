"""What durability, consistency and erasure cost: this version beside another one, in turns.

    git worktree add build/before COMMIT
    python -m benchmarks.durability build/before --templates 20000 --calls 400 --json build/durability.json

Each version runs in a process of its own, over a SQLite file of its own that it filled itself. They take turns after each
call, so that what else the machine does hits both; the ratio is of the medians.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from benchmarks.machine import describe_machine
from benchmarks.report import Bar, Side, bars_as_json, print_bars, print_table, write_json

ROOT = Path(__file__).parent.parent
SOURCES = ("", "proto", "indexer", "server", "client")
WORKER = Path(__file__).parent / "durability_worker.py"
ALLOWED = 1.03
CALLS = ("enrol", "identify", "erase")


class Version:
    """A checkout at work on a gallery of its own."""

    def __init__(self, checkout: Path, data: Path, templates: int) -> None:
        path = os.pathsep.join(str((checkout / each).resolve()) for each in SOURCES)
        environment = {**os.environ, "PYTHONPATH": path}
        command = [sys.executable, str(WORKER), str(data), str(templates)]
        self._process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=checkout
        )
        self.load_seconds = self._answer()

    def milliseconds(self, call: str, number: int) -> float:
        assert self._process.stdin is not None  # noqa: S101  (it was asked for above)
        self._process.stdin.write(f"{call} {number}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> float:
        assert self._process.stdout is not None  # noqa: S101
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians of one call in both versions, and the middle half of the ratios of blocks of calls that were neighbours."""

    call: str
    before_ms: float
    now_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float


def main(
    before: Annotated[Path, typer.Argument(help="A checkout of the version to compare with.")],
    *,
    templates: Annotated[int, typer.Option(help="Templates in the gallery.")] = 20_000,
    calls: Annotated[int, typer.Option(help="Enrolments, searches and erasures in each version.")] = 400,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measures both."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        versions = [
            stack.enter_context(closing(Version(checkout, folder / name, templates)))
            for name, checkout in (("before", before), ("now", ROOT))
        ]
        loads = [version.load_seconds for version in versions]
        rows = [_measured(call, np.array(times)) for call, times in _in_turns(versions, calls)]
    bars = [Bar(f"{row.call}, now by before", Side.AT_MOST, ALLOWED, row.ratio) for row in rows]
    cells = [(row.call, *(f"{each:.3f}" for each in _figures(row))) for row in rows]
    print_table("Medians, in turns", ("", "before ms", "now ms", "ratio", "25 %", "75 %"), cells)
    print_table(
        "Building the index from SQL", ("", "before s", "now s"), [("start", *(f"{each:.2f}" for each in loads))]
    )
    print_bars(bars)
    document: dict[str, object] = {
        "machine": describe_machine(),
        "templates": templates,
        "calls": calls,
        "load_seconds": loads,
        "rows": [asdict(row) for row in rows],
        "bars": bars_as_json(bars),
    }
    write_json(json_path, document)


def _figures(row: Measured) -> tuple[float, ...]:
    return (row.before_ms, row.now_ms, row.ratio, row.ratio_low, row.ratio_high)


def _in_turns(versions: list[Version], calls: int) -> Iterator[tuple[str, list[list[float]]]]:
    """For each kind of call the milliseconds of (before, now), call by call; who is first alternates."""
    times: dict[str, list[list[float]]] = {call: [] for call in CALLS}
    for number in range(calls):
        for call in CALLS:
            order = (0, 1) if number % 2 else (1, 0)
            taken = {place: versions[place].milliseconds(call, number) for place in order}
            times[call].append([taken[0], taken[1]])
    yield from times.items()


def _measured(call: str, times: np.ndarray) -> Measured:
    before, now = np.median(times, axis=0)
    blocks = [np.median(block, axis=0) for block in np.array_split(times, max(1, len(times) // 20))]
    ratios = [float(block[1] / block[0]) for block in blocks]
    low, high = np.percentile(ratios, [25, 75])
    return Measured(call, float(before), float(now), float(now / before), float(low), float(high))


if __name__ == "__main__":
    typer.run(main)
