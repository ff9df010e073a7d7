"""How soon a server answers after its start: from the snapshot of its index, and from SQL alone.

    python -m benchmarks.restart --templates 100000 --json restart.json

The clock starts before the process does, and stops when the first search is answered. The first search is also compared
with the median of the searches after it.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from benchmarks.filled_store import GALLERY, fill_store, fitted_model
from benchmarks.machine import describe_machine
from benchmarks.report import Bar, Side, bars_as_json, grouped, print_bars, print_table, write_json
from benchmarks.server_process import ServerProcess
from benchmarks.vectors import make_faces

from facedex.client import Client, Vector

DIMENSION = 512
WARM_SEARCHES = 50
POLL_SECONDS = 0.02
READY_SECONDS = 1_800.0


class NotReady(Exception):
    """What was waited for did not happen in half an hour."""


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a server."""

    answer_seconds: float
    first_ms: float
    warm_ms: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians over starts."""

    name: str
    answer_seconds: float
    first_ms: float
    warm_ms: float
    starts: list[Start]


class Restarts:
    """A filled data folder, and servers that are started on it."""

    def __init__(self, data: Path, probes: list[Vector]) -> None:
        self._data = data
        self._probes = probes

    @property
    def _index(self) -> Path:
        return self._data / "index"

    def from_sql(self) -> Start:
        """Without a snapshot; the server writes one afterwards, which is waited for."""
        shutil.rmtree(self._index, ignore_errors=True)
        with ServerProcess(self._data) as server:
            start = self._observe(server)
            _wait(lambda: any(self._index.glob("*.snapshot")))
        return start

    def from_snapshot(self) -> Start:
        if not any(self._index.glob("*.snapshot")):
            raise NotReady("there is no snapshot: start from SQL first")
        with ServerProcess(self._data) as server:
            return self._observe(server)

    def _observe(self, server: ServerProcess) -> Start:
        with Client.connect(server.address) as client:
            client.server_info()  # connects
            first = _milliseconds(client, self._probes[0])
            answered = time.perf_counter()
            warm = [_milliseconds(client, probe) for probe in self._probes[1:]]
        return Start(answered - server.started, first, float(np.median(warm)))


def main(
    *,
    templates: Annotated[int, typer.Option(help="Number of templates.")] = 100_000,
    rounds: Annotated[int, typer.Option(help="Starts of each kind, in turns.")] = 3,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measures restarts."""
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        restarts = Restarts(data, _probes(data, templates))
        pairs = [(restarts.from_sql(), restarts.from_snapshot()) for _ in range(rounds)]
    measured = [_summary("SQL alone", [sql for sql, _ in pairs]), _summary("snapshot", [kept for _, kept in pairs])]
    bars = _bars(measured)
    _print(measured, bars, templates)
    document: dict[str, object] = {
        "machine": machine,
        "templates": templates,
        "rows": [asdict(row) for row in measured],
        "bars": bars_as_json(bars),
    }
    write_json(json_path, document)


def _probes(data: Path, templates: int) -> list[Vector]:
    """Fills the store, and gives mated probes."""
    faces = make_faces(templates, WARM_SEARCHES + 1, dimension=DIMENSION)
    model = fitted_model(DIMENSION)
    fill_store(data, faces.templates, model)
    return [Vector.from_floats(probe.tolist(), model_digest=model.digest) for probe in faces.probes]


def _milliseconds(client: Client, probe: Vector) -> float:
    started = time.perf_counter()
    client.identify(GALLERY, probe)
    return 1000 * (time.perf_counter() - started)


def _wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise NotReady("the server wrote no snapshot")
        time.sleep(POLL_SECONDS)


def _summary(name: str, starts: list[Start]) -> Measured:
    return Measured(
        name=name,
        answer_seconds=float(np.median([start.answer_seconds for start in starts])),
        first_ms=float(np.median([start.first_ms for start in starts])),
        warm_ms=float(np.median([start.warm_ms for start in starts])),
        starts=starts,
    )


def _bars(measured: list[Measured]) -> list[Bar]:
    sql, snapshot = measured
    pairs = zip(sql.starts, snapshot.starts, strict=True)
    faster = float(np.median([slow.answer_seconds / quick.answer_seconds for slow, quick in pairs]))
    first = float(np.median([start.first_ms / start.warm_ms for start in snapshot.starts]))
    return [
        Bar("start from SQL alone, by start from a snapshot", Side.AT_LEAST, 5, faster),
        Bar("first search by warm search, from a snapshot", Side.AT_MOST, 5, first),
    ]


def _print(measured: list[Measured], bars: list[Bar], templates: int) -> None:
    rows = [
        (
            row.name,
            f"{row.answer_seconds:.2f}",
            f"{measured[0].answer_seconds / row.answer_seconds:.1f}",
            f"{row.first_ms:.2f}",
            f"{row.warm_ms:.2f}",
        )
        for row in measured
    ]
    headings = ("from", "first answer s", "×", "first search ms", "warm search ms")
    print_table(f"Restart with {grouped(templates)} templates", headings, rows)
    print_bars(bars)


if __name__ == "__main__":
    typer.run(main)
