"""`facedex-server doctor`: whether what was asked for really does the work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from facedex.indexer.devices import DeviceChoice, TorchHardware
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER
from facedex.server.doctor import diagnose

if TYPE_CHECKING:
    from facedex.server.doctor import Diagnosis


def doctor(
    *,
    data: Annotated[Path, typer.Option(envvar="FACEDEX_DATA", help="Folder of the database and the added models.")],
    device: Annotated[
        DeviceChoice, typer.Option(envvar="FACEDEX_DEVICE", help="What is meant to detect, embed and search.")
    ] = DeviceChoice.AUTO,
    detector: Annotated[str, typer.Option(envvar="FACEDEX_DETECTOR", help="Finds faces.")] = BUILTIN_DETECTOR,
    embedder: Annotated[
        str, typer.Option(envvar="FACEDEX_EMBEDDER", help="Model of new galleries.")
    ] = BUILTIN_EMBEDDER,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Tells which device is used, and proves it: crops are embedded there and on the processor. Exits with 1 at a problem."""
    found = diagnose(device, data=data, detector=detector, embedder=embedder, hardware=TorchHardware())
    if as_json:
        typer.echo(json.dumps(found.document(), indent=2))
    else:
        _print(found)
    if found.problems:
        raise typer.Exit(1)


def _print(found: Diagnosis) -> None:
    table = Table("", "", show_header=False, title="facedex-server doctor")
    table.add_row("asked for", found.asked.value)
    table.add_row("used", str(found.devices))
    for gpu in found.devices.gpus:
        table.add_row(gpu.device, f"{gpu.name}, {gpu.memory_bytes / 2**30:.0f} GiB")
    if found.trial is not None:
        table.add_row("embedding, one core", f"{found.trial.processor_faces_per_second:.0f} faces/s")
        table.add_row("embedding, device", f"{found.trial.device_faces_per_second:.0f} faces/s")
        table.add_row("their vectors", f"cosine {found.trial.least_cosine:.5f} or more")
    for name, digest in found.models.items():
        table.add_row(name, f"sha256 {digest}")
    for name, number in found.versions.items():
        table.add_row(name, number or "not installed")
    console = Console(width=110)
    console.print(table)
    for problem in found.problems:
        console.print(f"problem: {problem}", markup=False, highlight=False, soft_wrap=True)
