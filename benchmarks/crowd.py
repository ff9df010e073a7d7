"""Many callers at once: Identify by vector over gRPC, each caller a process that asks again as soon as it is answered.

python -m benchmarks.crowd --templates 100000 --json crowd.json
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from benchmarks.filled_store import GALLERY, fill_store, fitted_model
from benchmarks.machine import describe_machine
from benchmarks.report import Bar, Side, bars_as_json, grouped, print_bars, print_table, write_json
from benchmarks.server_process import ServerProcess
from benchmarks.vectors import make_faces
from benchmarks.workers import Round, Task, Workers

from facedex.client import Client, Vector

DIMENSION = 512
CALLERS = (1, 4, 16, 64)
PROBES = 256
CALL_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Asks who somebody is, one probe after the other."""

    address: str
    probes: tuple[bytes, ...]
    model_digest: str

    def open(self, number: int) -> Task:
        client = Client.connect(self.address, timeout_seconds=CALL_SECONDS)
        start = number % len(self.probes)
        probes = cycle([Vector(each, self.model_digest) for each in self.probes[start:] + self.probes[:start]])
        return lambda: client.identify(GALLERY, next(probes))


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians over rounds."""

    callers: int
    per_second: float
    p50_ms: float
    p99_ms: float
    rounds: list[float]


def main(
    *,
    templates: Annotated[int, typer.Option(help="Number of templates.")] = 100_000,
    callers: Annotated[str, typer.Option(help="How many at once, with commas.")] = ",".join(map(str, CALLERS)),
    rounds: Annotated[int, typer.Option(help="How often everything is measured, in turns.")] = 5,
    seconds: Annotated[float, typer.Option(help="Duration of one measurement.")] = 4.0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measures crowds."""
    machine = describe_machine()
    counts = [int(each) for each in callers.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        probes = _fill(data, templates)
        with ServerProcess(data) as server:
            job = Caller(server.address, probes, fitted_model(DIMENSION).digest)
            with Workers(job, max(counts)) as workers:
                server.rest()
                measured = _measure(workers, counts, rounds=rounds, seconds=seconds)
            resident = server.resident_bytes
    bars = _bars(measured)
    _print(measured, bars, templates)
    document: dict[str, object] = {
        "machine": machine,
        "templates": templates,
        "server_resident_bytes_per_template": round(resident / templates),
        "rows": [asdict(row) for row in measured],
        "bars": bars_as_json(bars),
    }
    write_json(json_path, document)


def _fill(data: Path, templates: int) -> tuple[bytes, ...]:
    """Fills the store, and gives mated probes as little-endian float32."""
    faces = make_faces(templates, PROBES, dimension=DIMENSION)
    fill_store(data, faces.templates, fitted_model(DIMENSION))
    return tuple(probe.astype("<f4").tobytes() for probe in faces.probes)


def _measure(workers: Workers, counts: list[int], *, rounds: int, seconds: float) -> list[Measured]:
    """In turns, so that what else the machine does hits all of them."""
    turns = [[workers.run(count, seconds=seconds) for count in counts] for _ in range(rounds)]
    return [_summary(count, [turn[place] for turn in turns]) for place, count in enumerate(counts)]


def _summary(callers: int, turns: list[Round]) -> Measured:
    return Measured(
        callers=callers,
        per_second=float(np.median([turn.per_second for turn in turns])),
        p50_ms=float(np.median([turn.percentile_ms(50) for turn in turns])),
        p99_ms=float(np.median([turn.percentile_ms(99) for turn in turns])),
        rounds=[turn.per_second for turn in turns],
    )


def _bars(measured: list[Measured]) -> list[Bar]:
    """Where the sizes that they speak of were measured."""
    rows = {row.callers: row for row in measured}
    bars: list[Bar] = []
    if {1, 64} <= rows.keys():
        bars.append(Bar("p99 of 64 callers, by the median of one", Side.AT_MOST, 15, rows[64].p99_ms / rows[1].p50_ms))
    if {4, 64} <= rows.keys():
        throughput = float(np.median(np.divide(rows[64].rounds, rows[4].rounds)))
        bars.append(Bar("throughput of 64 callers, by that of 4", Side.AT_LEAST, 1, throughput))
    return bars


def _print(measured: list[Measured], bars: list[Bar], templates: int) -> None:
    first = measured[0]
    rows = [
        (
            str(row.callers),
            f"{row.per_second:.0f}",
            f"{row.per_second / first.per_second:.2f}",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.p99_ms / first.p50_ms:.1f}",
        )
        for row in measured
    ]
    headings = ("callers", "answers/s", "×", "median ms", "p99 ms", "p99 by first median")
    print_table(f"Identify by vector, {grouped(templates)} templates", headings, rows)
    print_bars(bars)


if __name__ == "__main__":
    typer.run(main)
