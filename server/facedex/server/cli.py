"""The command `facedex-server`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from facedex.indexer.cli_session import DATA_KEYS, MILVUS, TEMPLATE_SECRET
from facedex.indexer.devices import DeviceChoice
from facedex.indexer.errors import IndexerError
from facedex.indexer.vision.decode import ImageLimits
from facedex.indexer.vision.errors import VisionError
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER
from facedex.indexer.vision.scan import SMALLEST_FACE_PX
from facedex.indexer.vision.workbench import available_cores
from facedex.server.app import AddressInUse, AddressInvalid, serve
from facedex.server.doctor_cli import doctor
from facedex.server.exposure import ListensOpenly, Openness
from facedex.server.log import configure_logging
from facedex.server.recorder import AuditChoice
from facedex.server.settings import DEFAULT_MAX_MESSAGE_BYTES, Settings
from facedex.server.status_cli import status_command
from facedex.server.tls import CertificateUnusable, TlsFiles
from facedex.server.tracing import TracingUnavailable

DEFAULT_LIMITS = ImageLimits()

AUDIT = {None: AuditChoice.WITH_KEYS, True: AuditChoice.ALWAYS, False: AuditChoice.NEVER}
# What a server does not start with; the text says what to do.
REFUSED = (
    AddressInvalid,
    AddressInUse,
    CertificateUnusable,
    ListensOpenly,
    TracingUnavailable,
    IndexerError,
    VisionError,
    OSError,
)
# Those of OpenTelemetry too, so that a server beside others needs no variable of its own.
OTLP_VARIABLES = ["FACEDEX_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The facedex server: who is on this photograph?",
)


@app.callback(help="The facedex server: who is on this photograph?")
def program() -> None:
    """The facedex server."""


app.command(name="status")(status_command)


@app.command(name="serve")
def serve_command(
    *,
    data: Annotated[Path, typer.Option(envvar="FACEDEX_DATA", help="Folder of the database and the added models.")],
    listen: Annotated[
        str, typer.Option(envvar="FACEDEX_LISTEN", help="Address and port; port 0 takes a free one and says which.")
    ] = "127.0.0.1:50051",
    database: Annotated[
        str | None,
        typer.Option(envvar="FACEDEX_DATABASE", help="postgresql://… instead of a SQLite file in the data folder."),
    ] = None,
    detector: Annotated[str, typer.Option(envvar="FACEDEX_DETECTOR", help="Finds faces.")] = BUILTIN_DETECTOR,
    embedder: Annotated[
        str, typer.Option(envvar="FACEDEX_EMBEDDER", help="Model of new galleries.")
    ] = BUILTIN_EMBEDDER,
    smallest_face_px: Annotated[
        float,
        typer.Option(envvar="FACEDEX_SMALLEST_FACE_PX", min=10, help="Shorter side of the smallest face looked for."),
    ] = SMALLEST_FACE_PX,
    max_image_bytes: Annotated[
        int, typer.Option(envvar="FACEDEX_MAX_IMAGE_BYTES", min=1, help="Largest photograph in bytes.")
    ] = DEFAULT_LIMITS.max_bytes,
    max_image_pixels: Annotated[
        int, typer.Option(envvar="FACEDEX_MAX_IMAGE_PIXELS", min=1, help="Largest photograph in pixels.")
    ] = DEFAULT_LIMITS.max_pixels,
    max_message_bytes: Annotated[
        int, typer.Option(envvar="FACEDEX_MAX_MESSAGE_BYTES", min=1024, help="Largest gRPC message in bytes.")
    ] = DEFAULT_MAX_MESSAGE_BYTES,
    max_concurrent_requests: Annotated[
        int, typer.Option(envvar="FACEDEX_MAX_CONCURRENT_REQUESTS", min=1, help="Further ones are told when to retry.")
    ] = 64,
    max_concurrent_streams: Annotated[
        int, typer.Option(envvar="FACEDEX_MAX_CONCURRENT_STREAMS", min=1, help="Further ones are told when to retry.")
    ] = 16,
    workers: Annotated[
        int, typer.Option(envvar="FACEDEX_WORKERS", min=1, help="Photographs worked on at once; default: the cores.")
    ] = available_cores(),
    device: Annotated[
        DeviceChoice,
        typer.Option(envvar="FACEDEX_DEVICE", help="What detects, embeds and searches; the log says what auto chose."),
    ] = DeviceChoice.CPU,
    follow_interval_seconds: Annotated[
        float, typer.Option(envvar="FACEDEX_FOLLOW_INTERVAL_SECONDS", min=0.01, help="How soon others' changes show.")
    ] = 0.25,
    check_every: Annotated[
        int, typer.Option(envvar="FACEDEX_CHECK_EVERY", min=0, help="One search in so many is checked by an exact one.")
    ] = 1_000,
    milvus: Annotated[str | None, MILVUS] = None,
    data_keys: Annotated[str | None, DATA_KEYS] = None,
    template_secret: Annotated[Path | None, TEMPLATE_SECRET] = None,
    erasure_horizon_seconds: Annotated[
        float,
        typer.Option(
            envvar="FACEDEX_ERASURE_HORIZON_SECONDS", min=1, help="When the last copies of the erased are gone."
        ),
    ] = 86_400.0,
    drain_seconds: Annotated[
        float, typer.Option(envvar="FACEDEX_DRAIN_SECONDS", min=0, help="Time for calls in flight after SIGTERM.")
    ] = 10.0,
    tls_cert: Annotated[
        Path | None,
        typer.Option(envvar="FACEDEX_TLS_CERT", help="PEM file of the certificate and those up to its root."),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(envvar="FACEDEX_TLS_KEY", help="PEM file of its private key, without pass phrase.")
    ] = None,
    client_ca: Annotated[
        Path | None,
        typer.Option(envvar="FACEDEX_CLIENT_CA", help="PEM file: clients need a certificate of one of these."),
    ] = None,
    without_tls: Annotated[
        bool,
        typer.Option(
            "--without-tls", envvar="FACEDEX_WITHOUT_TLS", help="Listen unencrypted to others than this machine."
        ),
    ] = False,
    without_keys: Annotated[
        bool,
        typer.Option(
            "--without-keys", envvar="FACEDEX_WITHOUT_KEYS", help="Answer others than this machine without keys."
        ),
    ] = False,
    audit: Annotated[
        bool | None,
        typer.Option(
            "--audit/--no-audit",
            envvar="FACEDEX_AUDIT",
            help="Write down who did what; default: as soon as there are API keys.",
        ),
    ] = None,
    metrics_listen: Annotated[
        str | None,
        typer.Option(
            envvar="FACEDEX_METRICS_LISTEN",
            metavar="HOST:PORT",
            help="Metrics for Prometheus, over plain HTTP, for instance 127.0.0.1:9464.",
        ),
    ] = None,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(
            envvar=OTLP_VARIABLES,
            metavar="URL",
            help="Send traces there by OTLP over gRPC, for instance http://127.0.0.1:4317; needs facedex\\[tracing].",
        ),
    ] = None,
) -> None:
    """Serves until SIGTERM. Prints `listening on ADDRESS` when it answers; logs go to standard error."""
    configure_logging()
    settings = Settings(
        data=data,
        listen=listen,
        database=database,
        detector=detector,
        embedder=embedder,
        smallest_face_px=smallest_face_px,
        image_limits=ImageLimits(max_bytes=max_image_bytes, max_pixels=max_image_pixels),
        max_message_bytes=max_message_bytes,
        max_concurrent_requests=max_concurrent_requests,
        max_concurrent_streams=max_concurrent_streams,
        workers=workers,
        device=device,
        follow_interval_seconds=follow_interval_seconds,
        check_every=check_every,
        milvus=milvus,
        data_keys=data_keys,
        template_secret=template_secret,
        erasure_horizon_seconds=erasure_horizon_seconds,
        drain_seconds=drain_seconds,
        tls=_tls_files(tls_cert, tls_key, client_ca),
        openness=_openness(without_tls=without_tls, without_keys=without_keys),
        audit=AUDIT[audit],
        metrics_listen=metrics_listen,
        otlp_endpoint=otlp_endpoint or None,
    )
    try:
        serve(settings, announce=lambda address: print(f"listening on {address}", flush=True))
    except REFUSED as error:
        Console(stderr=True).print(f"facedex-server: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


app.command(name="doctor")(doctor)


def _tls_files(certificate: Path | None, private_key: Path | None, client_ca: Path | None) -> TlsFiles | None:
    if certificate is not None and private_key is not None:
        return TlsFiles(certificate, private_key, client_ca)
    if certificate is not None or private_key is not None or client_ca is not None:
        raise typer.BadParameter("--tls-cert and --tls-key go together, and --client-ca with both")
    return None


def _openness(*, without_tls: bool, without_keys: bool) -> Openness:
    tls = Openness.WITHOUT_TLS if without_tls else Openness.CLOSED
    return tls | (Openness.WITHOUT_KEYS if without_keys else Openness.CLOSED)


def main() -> None:
    app()
