"""The command `facedex-server status`: how a running server is, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import IntEnum
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import grpc
import typer
from rich.console import Console
from rich.table import Table

from facedex.server.app import SERVICES
from facedex.server.exposure import is_loopback
from facedex.server.self_report import SERVING, report_of

if TYPE_CHECKING:
    from facedex.server.self_report import CallReport, GalleryReport, JobReport, SelfReport

TIMEOUT_SECONDS = 10.0


class ExitCode(IntEnum):
    """How the command ended; 2 is typer's own for wrong usage."""

    WELL = 0
    NO_ANSWER = 1
    NOT_WELL = 3


def status_command(
    *,
    server: Annotated[
        str, typer.Option(envvar="FACEDEX_SERVER", metavar="HOST:PORT", help="Where it listens.")
    ] = "127.0.0.1:50051",
    ca: Annotated[
        Path | None,
        typer.Option(envvar="FACEDEX_CA", help="PEM file: who vouches for its certificate. Encrypts, as --tls does."),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt; the system's authorities vouch for it.")] = False,
    api_key_file: Annotated[
        Path | None, typer.Option(envvar="FACEDEX_API_KEY_FILE", help="File with an API key of any role.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            envvar="FACEDEX_METRICS_LISTEN", metavar="HOST:PORT", help="Its page of metrics: refused calls and latency."
        ),
    ] = None,
    timeout_seconds: Annotated[
        float, typer.Option(min=0.1, help="How long to wait for each answer.")
    ] = TIMEOUT_SECONDS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Tells how a running server is. Exit code 0: every service answers; 3: some do not; 1: it cannot be asked."""
    is_encrypted = tls or ca is not None
    try:
        key = None if api_key_file is None else api_key_file.read_text(errors="replace").strip()
        if key and not is_encrypted and not _is_this_machine(server):
            raise typer.BadParameter("a key goes unencrypted to this machine only; give --ca or --tls")
        with _channel(server, ca=ca, is_encrypted=is_encrypted, key=key) as channel:
            report = report_of(
                channel,
                address=server,
                is_encrypted=is_encrypted,
                services=("", *SERVICES),
                metrics=metrics,
                timeout_seconds=timeout_seconds,
            )
    except (grpc.RpcError, OSError, HTTPException) as error:  # the last where the page of metrics is none
        Console(stderr=True).print(f"facedex-server: {_spoken(error)}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(ExitCode.NO_ANSWER) from None
    if as_json:
        print(json.dumps({**asdict(report), "is_well": report.is_well}))
    else:
        show(report, Console())
    raise typer.Exit(ExitCode.WELL if report.is_well else ExitCode.NOT_WELL)


def _is_this_machine(server: str) -> bool:
    return server.startswith("unix:") or is_loopback(server.rpartition(":")[0])


def _channel(server: str, *, ca: Path | None, is_encrypted: bool, key: str | None) -> grpc.Channel:
    """Raises OSError where the file cannot be read."""
    if not is_encrypted:
        channel = grpc.insecure_channel(server)
    else:
        roots = None if ca is None else ca.read_bytes()
        channel = grpc.secure_channel(server, grpc.ssl_channel_credentials(roots))
    return channel if not key else grpc.intercept_channel(channel, _Shows(key))


class _Shows(grpc.UnaryUnaryClientInterceptor):
    """Sends the key with every call."""

    def __init__(self, key: str) -> None:
        self._metadata = (("authorization", f"Bearer {key}"),)

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(client_call_details._replace(metadata=self._metadata), request)


def _spoken(error: Exception) -> str:
    if isinstance(error, grpc.Call):
        return f"it does not say how it is: {error.code().name}, {error.details()}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return f"its page of metrics cannot be read: {error}"


def show(report: SelfReport, console: Console) -> None:
    """Prints a report for people."""
    lock = "TLS" if report.is_encrypted else "not encrypted"
    console.print(f"[bold]facedex {report.version}[/bold] at {report.address} ({lock})", highlight=False)
    console.print(f"models: {report.detector}, {report.embedder}", highlight=False, markup=False)
    console.print(f"device: {report.devices}", highlight=False, markup=False)
    if report.loaded_share < 1:
        console.print(f"loading: {report.loaded_share:.0%}", highlight=False)
    for service, health in report.health.items():
        colour = "green" if health == SERVING else "red"
        console.print(f"[{colour}]{health:<12}[/{colour}] {service or 'the whole server'}", highlight=False)
    _show_galleries(report.galleries, console)
    _show_jobs(report.jobs, console)
    _show_calls(report.calls, console)


def _show_galleries(galleries: tuple[GalleryReport, ...], console: Console) -> None:
    if not galleries:
        console.print("no galleries")
        return
    table = Table("gallery", "templates", "revision", "index behind by")
    for each in galleries:
        table.add_row(each.name, str(each.templates), str(each.revision), str(each.lag))
    console.print(table)


def _show_jobs(jobs: tuple[JobReport, ...] | None, console: Console) -> None:
    if jobs is None:
        console.print("jobs: this key may not list them (enrol or administer)", markup=False, highlight=False)
        return
    for each in jobs:
        state = "abandoned" if each.is_abandoned else f"{each.progress:.0%}"
        console.print(f"job {each.id}: {each.kind} {each.gallery}, {state}", markup=False, highlight=False)
    if not jobs:
        console.print("no jobs under way")


def _show_calls(calls: CallReport | None, console: Console) -> None:
    if calls is None:
        console.print("calls: --metrics HOST:PORT tells of them", markup=False, highlight=False)
        return
    refused = ", ".join(f"{reason} {count}" for reason, count in sorted(calls.refused.items())) or "none"
    told = f"calls since the start: {calls.count}, {calls.mean_ms:.1f} ms on average, {calls.in_progress} under way"
    console.print(f"{told}; refused: {refused}", markup=False, highlight=False, soft_wrap=True)
