"""What protection costs: a server with TLS, API keys, audit, data keys and traces beside one without any, in turns.

    python -m benchmarks.protection --starts 3 --json build/protection.json

Servers with only a part of it stand beside the two, so that it is seen what costs what. All run at the same time over
galleries of their own with the same people, and are asked in turns, so that what else the machine does hits all. One server
may be faster than its twin from its start to its end, by a few per cent, so all are started several times. The bars
are for encryption at rest, audit and traces together: on throughput by the clock, and on processor time a call, which other
programs disturb less. There are bars on processor time for those with TLS and keys besides, too.
"""

from __future__ import annotations

import enum
import ipaddress
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated

import grpc
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
from rich.console import Console
from rich.progress import track

from facedex.client import Client, Tls, Vector
from facedex.indexer.api_key import KeyTerms, Role
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.store import Store

PEOPLE = Path(__file__).parent.parent / "tests" / "data" / "people"
ALLOWED = 1.05
LEFT = 0.95
GALLERY = "staff"
PHOTOGRAPHS = 20
VECTORS_A_PHOTOGRAPH = 10
# Of each kind on each server after each start.
ROUNDS = 4
COLLECTOR = "opentelemetry.proto.collector.trace.v1.TraceService"

Work = Callable[[Client, int], object]


@dataclass(frozen=True, slots=True)
class Asked:
    """A server under measurement, and who asks it."""

    server: ServerProcess
    client: Client
    callers: int

    def round(self, work: Work, calls: int, numbers: Iterator[int]) -> tuple[float, float]:
        """Milliseconds of the server's processor time a call, and calls a second."""
        todo = [next(numbers) for _ in range(calls)]
        cpu, started = self.server.processor_seconds, time.perf_counter()
        with ThreadPoolExecutor(self.callers) as callers:
            list(callers.map(partial(work, self.client), todo))
        seconds = time.perf_counter() - started
        return 1_000 * (self.server.processor_seconds - cpu) / calls, calls / seconds


class Part(enum.Flag):
    """What protection is made of."""

    NONE = 0
    TLS = enum.auto()
    KEYS = enum.auto()
    AUDIT = enum.auto()
    DATA_KEYS = enum.auto()
    TRACES = enum.auto()
    ALL = TLS | KEYS | AUDIT | DATA_KEYS | TRACES


OPEN = "open"
PROMISED = "data keys, audit, traces"
ALL = "all"
SIDES = {
    OPEN: Part.NONE,
    "TLS": Part.TLS,
    "API keys": Part.KEYS,
    "API keys, audit": Part.KEYS | Part.AUDIT,
    "data keys": Part.DATA_KEYS,
    "traces": Part.TRACES,
    PROMISED: Part.DATA_KEYS | Part.AUDIT | Part.TRACES,
    ALL: Part.ALL,
}


@dataclass(frozen=True, slots=True)
class Load:
    """What each server is asked after each start: all kinds of calls where none is named."""

    people: int
    calls: int
    callers: int
    kinds: frozenset[str]


Measured = dict[str, list[list[tuple[float, float]]]]
"""By kind of call, of each round, of each server: processor time a call in milliseconds, and calls a second."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one kind of call to one server: medians over the rounds, and of the ratios to the open server's neighbouring rounds."""

    call: str
    protection: str
    cpu_ms: float
    cpu_ratio: float
    per_second: float
    throughput_ratio: float


def main(
    *,
    starts: Annotated[int, typer.Option(help="How often all servers are started, each time over new folders.")] = 3,
    people: Annotated[int, typer.Option(help="People in each gallery.")] = 2_000,
    calls: Annotated[int, typer.Option(help="Photographs of one round; of vectors ten times as many.")] = 40,
    callers: Annotated[
        int, typer.Option(help="Calls at the same time; fewer leave cores idle while disks are waited for.")
    ] = 16,
    only: Annotated[
        list[str] | None, typer.Option(help="These parts beside the open server; default: every one.")
    ] = None,
    kind: Annotated[list[str] | None, typer.Option(help="These kinds of calls; default: every one.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measures all servers."""
    names = [each for each in SIDES if each == OPEN or not only or each in only]
    load = Load(people, calls, callers, frozenset(kind or ()))
    measured: Measured = defaultdict(list)
    with collecting() as collector:
        for _ in track(range(starts), "measuring", console=Console(stderr=True)):
            _measure(names, collector, load, measured)
    costs = [cost for call, rows in measured.items() for cost in _costs(call, names, rows)]
    _report(costs, callers)
    bars = [
        Bar(f"processor time, {each.protection} to none: {each.call}", Side.AT_MOST, ALLOWED, each.cpu_ratio)
        for each in costs
        if each.protection in {PROMISED, ALL}
    ]
    bars += [
        Bar(f"throughput, {each.protection} to none: {each.call}", Side.AT_LEAST, LEFT, each.throughput_ratio)
        for each in costs
        if each.protection == PROMISED
    ]
    print_bars(bars)
    figures: dict[str, object] = {
        "machine": describe_machine(),
        "costs": [asdict(each) for each in costs],
        "bars": bars_as_json(bars),
    }
    write_json(json_path, figures)


def _taken(_request: bytes, _context: grpc.ServicerContext) -> bytes:
    return b""


@contextmanager
def collecting() -> Generator[str]:
    """Where traces may be sent: whatever comes is taken and thrown away."""
    take: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_taken)
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(COLLECTOR, {"Export": take}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(None).wait()


@contextmanager
def protected_by(part: Part, folder: Path, collector: str, callers: int) -> Generator[Asked]:
    """A server with these parts of protection; metrics are counted and calls are logged by every server."""
    data = folder / "data"
    data.mkdir(parents=True)
    options = ["--audit" if Part.AUDIT in part else "--no-audit"]
    tls = None
    if Part.TLS in part:
        certificate, private_key = _certificate(folder)
        options += ["--tls-cert", str(certificate), "--tls-key", str(private_key)]
        tls = Tls(ca=certificate.read_bytes())
    if Part.DATA_KEYS in part:
        options += ["--data-keys", str(folder / "data-keys")]
    if Part.TRACES in part:
        options += ["--otlp-endpoint", collector]
    key = _api_key(data) if Part.KEYS in part else None
    with ServerProcess(data, *options) as server, Client.connect(server.address, api_key=key, tls=tls) as client:
        yield Asked(server, client, callers)


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

    with ThreadPoolExecutor(side.callers) as callers:
        list(callers.map(enrol, range(people)))
    side.server.rest()


def _kinds(client: Client, people: int) -> list[tuple[str, Work, int]]:
    """Name, call, and how many calls there are of it for one photograph."""
    photographs, vector = make_photographs(find_portraits(PEOPLE, PHOTOGRAPHS)), _vector(client)
    return [
        ("identify a photograph", lambda by, n: by.identify(GALLERY, photographs[n % PHOTOGRAPHS]), 1),
        ("identify a vector", lambda by, n: by.identify(GALLERY, vector(n % people)), VECTORS_A_PHOTOGRAPH),
        ("enrol a photograph", lambda by, n: by.enrol(GALLERY, f"seen-{n}", images=[photographs[n % PHOTOGRAPHS]]), 1),
        (
            "enrol a vector",
            lambda by, n: by.enrol(GALLERY, f"new-{n}", vectors=[vector(people + n)]),
            VECTORS_A_PHOTOGRAPH,
        ),
    ]


def _measure(names: Sequence[str], collector: str, load: Load, measured: Measured) -> None:
    """Starts one server for each name, asks them in turns, and adds what that took, by kind of call."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sides = [
            stack.enter_context(protected_by(SIDES[name], Path(folder) / str(number), collector, load.callers))
            for number, name in enumerate(names)
        ]
        for side in sides:
            _fill(side, load.people)
        for call, work, times in _kinds(sides[0].client, load.people):
            if not load.kinds or call in load.kinds:
                measured[call] += _rounds(sides, work, load.calls * times)


def _rounds(sides: Sequence[Asked], work: Work, calls: int) -> list[list[tuple[float, float]]]:
    """Of each round, and each server in it: processor time a call, and calls a second."""
    numbers = [count() for _ in sides]
    for side, each in zip(sides, numbers, strict=True):
        side.round(work, max(side.callers, calls // 4), each)
    return [[side.round(work, calls, each) for side, each in zip(sides, numbers, strict=True)] for _ in range(ROUNDS)]


def _costs(call: str, names: Sequence[str], rounds: Sequence[Sequence[tuple[float, float]]]) -> Iterator[Cost]:
    for place, protection in enumerate(names):
        cpu, speed = (statistics.median(each[place][figure] for each in rounds) for figure in (0, 1))
        ratios = [statistics.median(each[place][figure] / each[0][figure] for each in rounds) for figure in (0, 1)]
        yield Cost(call, protection, cpu, ratios[0], speed, ratios[1])


def _report(costs: Iterable[Cost], callers: int) -> None:
    rows = [
        (
            each.call,
            each.protection,
            f"{each.cpu_ms:.2f}",
            f"{each.cpu_ratio:.3f}",
            f"{each.per_second:.0f}",
            f"{each.throughput_ratio:.3f}",
        )
        for each in costs
    ]
    headings = ("", "protection", "CPU ms", "ratio", "calls/s", "ratio")
    print_table(f"What protection costs, {callers} callers", headings, rows)


if __name__ == "__main__":
    typer.run(main)
