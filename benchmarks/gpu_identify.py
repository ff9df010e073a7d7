"""The whole of Identify on a device: photographs over gRPC to a server process, and answers back."""

from __future__ import annotations

import tempfile
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bulk import GALLERY, SAMPLE_PEOPLE
from benchmarks.server_process import ServerProcess
from benchmarks.workers import run_in_threads

from facedex.client import Client

if TYPE_CHECKING:
    from benchmarks.workers import Task

CALLERS = 8
CALL_SECONDS = 120.0


def identified_per_second(device: str, *, seconds: float) -> float:
    """Photographs that a server on the device answers for, with the sample people enrolled."""
    people = sorted(each for each in SAMPLE_PEOPLE.iterdir() if each.name.startswith("person_"))
    probes = [(each / "1.jpg").read_bytes() for each in people]
    # Servers know devices by kind; the first of the kind searches.
    kind = device.partition(":")[0]
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(Path(folder) / "data", "--device", kind) as server,
        Client.connect(server.address, timeout_seconds=CALL_SECONDS) as client,
    ):
        client.create_gallery(GALLERY)
        for person, photograph in zip(people, probes, strict=True):
            client.enrol(GALLERY, person.name, images=[photograph])
        return run_in_threads(
            [_caller(client, probes, number) for number in range(CALLERS)], seconds=seconds
        ).per_second


def _caller(client: Client, probes: list[bytes], number: int) -> Task:
    start = number % len(probes)
    own = cycle(probes[start:] + probes[:start])
    return lambda: client.identify(GALLERY, next(own))
