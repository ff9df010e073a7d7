"""What 10 million, 100 million and a thousand million templates take, in each set-up.

    python -m benchmarks.scale                                  # from the stored unit costs
    python -m benchmarks.scale --measure --save costs.json      # from those of this machine, in some minutes
    python -m benchmarks.scale --costs costs.json --plot scale.png

Formulas with a queue that is simulated event after event; docs/scale.md shows what it prints, and says what was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from benchmarks.machine import describe_machine
from benchmarks.queueing import Latency, Service, simulate
from benchmarks.report import grouped
from benchmarks.searchers import peer
from benchmarks.unit_costs import DIMENSION, STORED, UnitCosts, measured_costs, stored_costs

SIZES = (10_000_000, 100_000_000, 1_000_000_000)
GIGA, TERA = 10**9, 10**12
HOUR, DAY = 3_600.0, 86_400.0
LOADS = (0.5, 0.7, 0.9)


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What was not measured here; each is named in docs/scale.md."""

    server_cores: int = 32
    server_memory: float = 256 * GIGA
    memory_share: float = 0.75
    """Of a machine's memory that an index may take: segments are merged beside the old ones, and there is the rest."""
    engine_bytes_a_component: float = 4.0
    """Milvus keeps single precision; an exhaustive index of it (FLAT) has nothing beside the vectors."""
    engine_overhead: float = 1.2
    engine_bandwidth: float = 100 * GIGA
    """Bytes a second that one node of the engine reads of its memory; such a search does nothing else."""
    gpu_memory: float = 80 * GIGA
    gpu_bandwidth: float = 3_350 * GIGA
    """H100 SXM, data sheet."""
    gpu_floor_factor: float = 1.5
    """A search by the time in which its rows are read once: the bar of `make test-gpu`, unmeasured."""
    gpu_matrix_flops: float = 600 * TERA
    """Half precision, dense: what a large matrix product reaches of 989 in the data sheet, assumed."""
    gpu_matrix_share: float = 0.5
    """Of that by IResNet-50: the bar, unmeasured."""
    flops_a_face: float = 12.6 * GIGA
    """IResNet-50 at 112 × 112: 6.3 thousand million multiplications with additions."""


ASSUMED = Assumptions()


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def as_markdown(self) -> str:
        lines = [f"**{self.title}**", "", _line(self.headings), _line(("---",) * len(self.headings))]
        return "\n".join([*lines, *(_line(row) for row in self.rows)]) + "\n"


def main(
    *,
    costs: Annotated[Path, typer.Option(help="JSON file of unit costs.")] = STORED,
    measure: Annotated[bool, typer.Option("--measure", help="Measure the unit costs here first.")] = False,
    templates: Annotated[int, typer.Option(help="Templates to measure searches on.")] = 200_000,
    save: Annotated[Path | None, typer.Option(help="Write the measured unit costs here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw latency against load here.")] = None,
) -> None:
    """Prints what each set-up takes."""
    unit = stored_costs(costs)
    if measure:
        machine = f"{describe_machine()['processor']}, {describe_machine()['cores']} cores"
        unit = measured_costs(machine, templates=templates, ray_share=unit.ray_share)
    if save is not None:
        save.write_text(unit.as_json(), encoding="utf-8")
    print(document(unit))
    if plot is not None:
        draw(unit, plot)


def document(unit: UnitCosts) -> str:
    """All tables, in Markdown."""
    tables = (
        _costs_table(unit),
        _one_server(unit),
        _several_servers(unit),
        _engine(unit),
        _gpu_search(),
        _embedding(unit),
    )
    return "\n".join(each.as_markdown() for each in tables)


def service_of(unit: UnitCosts, templates: int, *, cores: int = ASSUMED.server_cores) -> Service:
    """Of one server: what 64 probes share is read once, the rest is each one's own."""
    alone, together = unit.single_search * templates / cores, unit.search_together * templates / cores
    # fixed + each = alone, and fixed + 64 each = 64 together.
    each = max((64 * together - alone) / 63, 0.0)
    return Service(fixed=max(alone - each, 0.0), each=each)


# Tables


def _costs_table(unit: UnitCosts) -> Table:
    sizes = " and ".join(grouped(each) for each in unit.templates)
    rows = (
        ("index, in memory", f"{unit.memory_per_template:,.0f} B", "a template"),
        ("database", f"{unit.sql_per_template:,.0f} B", "a template with its person and its line in the log"),
        ("snapshot", f"{unit.snapshot_per_template:,.0f} B", "a template"),
        ("search, one probe", f"{unit.single_search * 1e9:.2f} ns", "a template, processor"),
        ("search, 64 probes together", f"{unit.search_together * 1e9:.2f} ns", "a template and a probe, processor"),
        ("a row into the index", f"{unit.row_into_index * 1e6:.0f} µs", "processor"),
        ("a row into SQL", f"{unit.row_into_sql * 1e3:.2f} ms", "processor, bulk enrolment of vectors"),
        ("a photograph", f"{unit.photograph * 1e3:.1f} ms", "processor, built-in models"),
        ("Ray", f"{unit.ray_share:.2f}", "items of its workers by those of threads"),
        ("linearity", f"{unit.linearity:.2f}", f"single search a template, {sizes} compared"),
    )
    return Table(f"Unit costs: {unit.machine}", ("what", "cost", "of what"), rows)


def _one_server(unit: UnitCosts) -> Table:
    rows = []
    for size in SIZES:
        service = service_of(unit, size)
        memory = unit.memory_per_template * size
        latency = simulate(service, servers=1, per_second=0.5 * service.most_per_second)
        rows.append(
            (
                grouped(size),
                f"{_bytes(memory)}, {_fits(memory)}",
                _bytes((unit.sql_per_template + unit.snapshot_per_template) * size),
                _rate(service.most_per_second),
                _latency(latency),
                _duration(unit.row_into_index * size / ASSUMED.server_cores),
                _duration(unit.row_into_sql * size),
            )
        )
    headings = ("templates", "memory", "disk", "most q/s", "p50 / p99 at half of it", "build index", "write rows")
    return Table(f"One server, {ASSUMED.server_cores} cores", headings, tuple(rows))


def _several_servers(unit: UnitCosts) -> Table:
    rows = []
    for size in SIZES:
        service = service_of(unit, size)
        for servers in (3, 10):
            most = servers * service.most_per_second
            load = 0.6 * most
            whole = simulate(service, servers=servers, per_second=load)
            after = simulate(service, servers=servers - 1, per_second=load)
            memory = unit.memory_per_template * size
            rows.append(
                (
                    grouped(size),
                    str(servers),
                    f"{_bytes(memory)} each, {_fits(memory)}",
                    _rate(load),
                    _latency(whole),
                    _latency(after),
                )
            )
    headings = ("templates", "servers", "memory", "q/s: 60 % of the most", "p50 / p99", "one server dead")
    return Table("Several servers over one PostgreSQL, each with the whole index", headings, tuple(rows))


def _engine(unit: UnitCosts) -> Table:
    rows = []
    for size in SIZES:
        memory = size * DIMENSION * ASSUMED.engine_bytes_a_component * ASSUMED.engine_overhead
        nodes = _machines(memory)
        seconds = memory / ASSUMED.engine_overhead / nodes / ASSUMED.engine_bandwidth
        rows.append(
            (
                grouped(size),
                _bytes(memory),
                str(nodes),
                _bytes(unit.sql_per_template * size),
                _seconds(seconds),
                _rate(1 / seconds),
            )
        )
    headings = ("templates", "memory of all nodes", "nodes", "disk of PostgreSQL", "one search", "q/s, one by one")
    return Table("A vector engine (Milvus, exhaustive), SQL the truth: by formula alone", headings, tuple(rows))


def _gpu_search() -> Table:
    rows = []
    for size in SIZES:
        memory = float(size * DIMENSION * 2)
        gpus = math.ceil(memory / (0.9 * ASSUMED.gpu_memory))
        floor = memory / gpus / ASSUMED.gpu_bandwidth
        seconds = ASSUMED.gpu_floor_factor * floor
        today = "yes" if gpus == 1 else "no: one GPU searches"
        rows.append(
            (grouped(size), _bytes(memory), str(gpus), _seconds(floor), _seconds(seconds), _rate(1 / seconds), today)
        )
    headings = ("templates", "GPU memory", "GPUs", "floor", "one search", "q/s, one by one", "offered today")
    return Table("Search in GPU memory: by formula alone", headings, tuple(rows))


def _embedding(unit: UnitCosts) -> Table:
    a_gpu = ASSUMED.gpu_matrix_flops * ASSUMED.gpu_matrix_share / ASSUMED.flops_a_face
    rows = []
    for size in SIZES:
        alone = unit.photograph * size / ASSUMED.server_cores
        rows.append(
            (
                grouped(size),
                f"{unit.photograph * size / DAY:,.0f}".replace(",", " "),
                _duration(alone),
                _duration(alone / (10 * unit.ray_share)),
                _duration(alone / (100 * unit.ray_share)),
                _duration(size / a_gpu),
                _duration(unit.row_into_sql * size),
            )
        )
    cores = ASSUMED.server_cores
    headings = (
        "photographs",
        "days of one core",
        f"1 machine of {cores}",
        "10 by Ray",
        "100 by Ray",
        "1 GPU, embedding alone, formula",
        "one writer of rows",
    )
    return Table("Embedding", headings, tuple(rows))


# Words


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _machines(memory: float) -> int:
    return math.ceil(memory / (ASSUMED.memory_share * ASSUMED.server_memory))


def _fits(memory: float) -> str:
    return "fits" if _machines(memory) == 1 else "**does not fit**"


def _bytes(count: float) -> str:
    return f"{count / TERA:.2f} TB" if count >= TERA else f"{count / GIGA:.0f} GB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _latency(latency: Latency) -> str:
    return f"{_seconds(latency.p50)} / {_seconds(latency.p99)}"


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}".replace(",", " ") if per_second >= 10 else f"{per_second:.1f}"


def _duration(seconds: float) -> str:
    if seconds >= 2 * DAY:
        return f"{seconds / DAY:,.0f} days".replace(",", " ")
    return f"{seconds / HOUR:.1f} h" if seconds >= HOUR else f"{seconds / 60:.1f} min"


def draw(unit: UnitCosts, path: Path) -> None:
    """The 99th percentile against load, of three servers."""
    peer("matplotlib").use("Agg")
    figure, axes = peer("matplotlib.pyplot").subplots(figsize=(8, 5))
    for size in SIZES:
        service = service_of(unit, size)
        rates = [share * 3 * service.most_per_second for share in (0.1, 0.3, *LOADS)]
        axes.plot(
            rates, [simulate(service, servers=3, per_second=each).p99 for each in rates], "o-", label=grouped(size)
        )
    axes.set(xscale="log", yscale="log", xlabel="searches a second, three servers", ylabel="p99, seconds")
    axes.legend(title="templates")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    typer.run(main)
