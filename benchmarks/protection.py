"""What protection costs: a server with TLS, API keys, audit, metrics and data keys beside one without any, in turns.

    python -m benchmarks.protection --rounds 10 --json build/protection.json

Both run at the same time over galleries of their own with the same people, and are asked in turns, so that what else the
machine does hits both. The bar is on processor time a call, which other programs disturb less than the clock; throughput
by the clock is told beside it.
"""

from __future__ import annotations

import ipaddress
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from benchmarks.machine import describe_machine
from benchmarks.photographs import find_portraits, make_photographs
from benchmarks.report import Bar, Side, bars_as_json, print_bars, print_table, write_json
from benchmarks.server_process import ServerProcess
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from facedex.client import Client, Tls, Vector
from facedex.indexer.api_key import KeyTerms, Role
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.store import Store

PEOPLE = Path(__file__).parent.parent / "tests" / "data" / "people"
CALLERS = 4
ALLOWED = 1.05
GALLERY = "staff"
PHOTOGRAPHS = 20
VECTORS_A_PHOTOGRAPH = 10

Work = Callable[[Client, int], object]


@dataclass(frozen=True, slots=True)
class Asked:
    """A server under measurement, and who asks it."""

    server: ServerProcess
    client: Client

    def round(self, work: Work, calls: int, numbers: Iterator[int]) -> tuple[float, float]:
        """Milliseconds of the server's processor time a call, and calls a second."""
        todo = [next(numbers) for _ in range(calls)]
        cpu, started = self.server.processor_seconds, time.perf_counter()
        with ThreadPoolExecutor(CALLERS) as callers:
            list(callers.map(partial(work, self.client), todo))
        seconds = time.perf_counter() - started
        return 1_000 * (self.server.processor_seconds - cpu) / calls, calls / seconds


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one kind of call: medians over the rounds, and the median of the ratios of neighbouring rounds."""

    call: str
    open_cpu_ms: float
    protected_cpu_ms: float
    cpu_ratio: float
    open_per_second: float
    protected_per_second: float
    throughput_ratio: float


def main(
    *,
    rounds: Annotated[int, typer.Option(help="Rounds of each kind on each server.")] = 10,
    people: Annotated[int, typer.Option(help="People in each gallery.")] = 2_000,
    calls: Annotated[int, typer.Option(help="Photographs of one round; of vectors ten times as many.")] = 40,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measures both servers."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sides = [stack.enter_context(make(Path(folder))) for make in (without_protection, with_protection)]
        for side in sides:
            _fill(side, people)
        costs = [
            _cost(name, sides, work, calls * times, rounds) for name, work, times in _kinds(sides[0].client, people)
        ]
    _report(costs)
    bars = [
        Bar("processor time of identifying photographs, with and without", Side.AT_MOST, ALLOWED, costs[0].cpu_ratio)
    ]
    print_bars(bars)
    figures: dict[str, object] = {
        "machine": describe_machine(),
        "costs": [asdict(each) for each in costs],
        "bars": bars_as_json(bars),
    }
    write_json(json_path, figures)


@contextmanager
def without_protection(folder: Path) -> Generator[Asked]:
    """As in the README's first steps."""
    with ServerProcess(folder / "open", "--no-audit") as server, Client.connect(server.address) as client:
        yield Asked(server, client)


@contextmanager
def with_protection(folder: Path) -> Generator[Asked]:
    """Everything on: TLS, keys, audit, metrics, and a data key for each person."""
    data = folder / "protected"
    data.mkdir()
    certificate, private_key = _certificate(folder)
    key = _api_key(data)
    options = ["--tls-cert", str(certificate), "--tls-key", str(private_key), "--metrics-listen", "127.0.0.1:0"]
    server = ServerProcess(data, *options, "--audit", "--data-keys", str(folder / "data-keys"))
    tls = Tls(ca=certificate.read_bytes())
    with server, Client.connect(server.address, api_key=key, tls=tls) as client:
        yield Asked(server, client)


def _api_key(data: Path) -> str:
    store = Store.open(sqlite_url(data / "facedex.db"))
    terms = KeyTerms("benchmark", frozenset(Role), calls_per_second=1e9, calls_per_day=10**9)
    text = str(store.api_keys.create(terms).text)
    store.close()
    return text


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate that vouches for itself."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "facedex")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
    certificate = builder.not_valid_after(now + timedelta(days=1)).add_extension(address, critical=False)
    paths = folder / "server.crt", folder / "server.key"
    paths[0].write_bytes(certificate.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


def _vector(client: Client) -> Callable[[int], Vector]:
    model = client.server_info().embedder

    def vector(number: int) -> Vector:
        direction = np.random.default_rng(number).standard_normal(model.dimension)
        return Vector((direction / np.linalg.norm(direction)).astype("<f4").tobytes(), model.digest)

    return vector


def _fill(side: Asked, people: int) -> None:
    side.client.create_gallery(GALLERY)
    vector = _vector(side.client)

    def enrol(number: int) -> None:
        side.client.enrol(GALLERY, str(number), vectors=[vector(number)])

    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(enrol, range(people)))
    side.server.rest()


def _kinds(client: Client, people: int) -> list[tuple[str, Work, int]]:
    """Name, call, and how many calls there are of it for one photograph."""
    photographs, vector = make_photographs(find_portraits(PEOPLE, PHOTOGRAPHS)), _vector(client)
    return [
        ("identify a photograph", lambda by, n: by.identify(GALLERY, photographs[n % PHOTOGRAPHS]), 1),
        ("identify a vector", lambda by, n: by.identify(GALLERY, vector(n % people)), VECTORS_A_PHOTOGRAPH),
        (
            "enrol a vector",
            lambda by, n: by.enrol(GALLERY, f"new-{n}", vectors=[vector(people + n)]),
            VECTORS_A_PHOTOGRAPH,
        ),
    ]


def _cost(name: str, sides: list[Asked], work: Work, calls: int, rounds: int) -> Cost:
    numbers = [count(), count()]
    for side, each in zip(sides, numbers, strict=True):
        side.round(work, max(CALLERS, calls // 4), each)
    measured = [
        [side.round(work, calls, each) for side, each in zip(sides, numbers, strict=True)] for _ in range(rounds)
    ]
    (cpu, speed), (protected_cpu, protected_speed) = (
        tuple(statistics.median(each[side][figure] for each in measured) for figure in (0, 1)) for side in (0, 1)
    )
    ratios = [statistics.median(each[1][figure] / each[0][figure] for each in measured) for figure in (0, 1)]
    return Cost(name, cpu, protected_cpu, ratios[0], speed, protected_speed, ratios[1])


def _report(costs: list[Cost]) -> None:
    rows = [
        (
            each.call,
            f"{each.open_cpu_ms:.2f}",
            f"{each.protected_cpu_ms:.2f}",
            f"{each.cpu_ratio:.3f}",
            f"{each.open_per_second:.0f}",
            f"{each.protected_per_second:.0f}",
            f"{each.throughput_ratio:.3f}",
        )
        for each in costs
    ]
    headings = ("", "CPU ms open", "protected", "ratio", "calls/s open", "protected", "ratio")
    print_table(f"What protection costs, {CALLERS} callers", headings, rows)


if __name__ == "__main__":
    typer.run(main)
