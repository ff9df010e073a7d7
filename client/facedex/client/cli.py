"""The command `facedex`: enrolling and identifying people from a terminal."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from facedex.client.cli_calibration import calibrate, threshold
from facedex.client.cli_check import check
from facedex.client.cli_enrol import enrol
from facedex.client.cli_erasures import erasures, verify_erasure
from facedex.client.cli_galleries import galleries
from facedex.client.cli_identify import compare, detect, identify, verify
from facedex.client.cli_identities import identities
from facedex.client.cli_jobs import jobs
from facedex.client.cli_order import program_options_first
from facedex.client.cli_output import details, print_json, print_table
from facedex.client.cli_session import Entry, ExitCode, Json, Session, complain, connected, spoken
from facedex.client.client import DEFAULT_TIMEOUT_SECONDS
from facedex.client.errors import FacedexError
from facedex.client.servers import ModelInfo, PromiseInfo, ServerInfo

MOST_TIMEOUT_SECONDS = 86_400.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command, by default with the arguments of this process.

    Always raises SystemExit; an error is one line on the standard error, and exit code 1.
    """
    try:
        program(program_options_first(program, sys.argv[1:] if arguments is None else arguments))
    except (FacedexError, OSError) as error:
        complain(spoken(error))
        sys.exit(ExitCode.ERROR)
    except (ValueError, OverflowError) as error:  # the client's word for values that could never be sent
        complain(f"a value cannot be used: {error}")
        sys.exit(ExitCode.ERROR)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the flag
    if wanted:
        typer.echo(f"facedex {version('facedex')}")
        raise typer.Exit


def options(  # noqa: PLR0913  (a command has as many options as it has)
    context: typer.Context,
    *,
    server: Annotated[
        str, typer.Option(metavar="HOST:PORT", envvar="FACEDEX_SERVER", help="Address of the server.")
    ] = "localhost:50051",
    timeout: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=MOST_TIMEOUT_SECONDS,
            metavar="SECONDS",
            envvar="FACEDEX_TIMEOUT",
            help="How long to wait for each answer.",
        ),
    ] = DEFAULT_TIMEOUT_SECONDS,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="FACEDEX_API_KEY_FILE",
            help="File with an API key; FACEDEX_API_KEY may hold the key itself.",
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="FACEDEX_CA", help="PEM file: who vouches for the server. Turns on TLS."),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", envvar="FACEDEX_TLS", help="TLS with the public authorities.")] = False,
    client_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="FACEDEX_CLIENT_CERT", help="PEM file: this client's own certificate."),
    ] = None,
    client_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="FACEDEX_CLIENT_KEY", help="PEM file: its private key."),
    ] = None,
    unencrypted_key: Annotated[
        bool,
        typer.Option("--unencrypted-key", help="Send the API key to another machine without TLS, in a tunnel say."),
    ] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Tell the version."),
    ] = False,
) -> None:
    """Tell who, of the people enrolled in a gallery, is on a photograph.

    These options may stand before a command or behind it.

    \b
    facedex galleries create staff
    facedex enrol staff ada ada.jpg
    facedex identify staff visitor.jpg --save answer.jpg

    \b
    Exit codes:
      0    done
      1    error: one line on the standard error says what to do
      2    wrong usage
      3    done, and the answer is no: not the same person, a photograph
           was refused, or store and index differ
      130  ended with Ctrl-C
    """  # noqa: D301  (the letter that \b stands for keeps lines as they are)
    if (client_cert is None) != (client_key is None):
        raise typer.BadParameter("--client-cert and --client-key go together")
    entry = Entry(
        api_key=os.environ.get("FACEDEX_API_KEY"),
        api_key_file=api_key_file,
        allow_unencrypted_key=unencrypted_key,
        use_tls=tls,
        ca=ca,
        client_cert=client_cert,
        client_key=client_key,
    )
    context.obj = Session(server, timeout, entry)


def info(context: typer.Context, *, json: Json = False) -> None:
    """Show the server's version, models and limits."""
    show = print_json if json else _print_info
    with connected(context) as client:
        show(client.server_info())


def _program() -> typer.Typer:
    app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(options)
    for command in (enrol, identify, verify, compare, detect, calibrate, threshold, info, check):
        app.command()(command)
    app.add_typer(identities, name="identities")
    app.add_typer(galleries, name="galleries")
    app.add_typer(jobs, name="jobs")
    app.command("verify-erasure")(verify_erasure)
    app.add_typer(erasures, name="erasures")
    return app


program = _program()


def _print_info(info: ServerInfo) -> None:
    rows = {
        "facedex": info.version,
        **_model_rows("detector", info.detector),
        **_model_rows("embedder", info.embedder),
        "devices": info.devices or "an older server, which does not tell",
        "photographs": f"up to {info.max_image_bytes / 2**20:g} MiB and {info.max_image_pixels / 1e6:g} megapixels",
        "messages": f"up to {info.max_message_bytes / 2**20:g} MiB",
        "requests": f"up to {info.max_concurrent_requests} at the same time",
        "loaded": f"{info.loaded_share:.0%}",
        **{f"gallery {each.gallery}": f"{each.template_count} templates; {each.reason}" for each in info.indexes},
        **{f"promise of {each.gallery}": _promise(each) for each in info.promises},
        "search checks": f"{info.index_checked_total} searches done again exactly, {info.index_missed_total} identities missed",
    }
    print_table(details(rows))


def _promise(info: PromiseInfo) -> str:
    point = info.operating_point
    if point.broken_promise:
        return point.broken_promise
    bound = f"FPIR at most {point.fpir.upper:.2%} at threshold {point.threshold:.3f}" if point.fpir else point.basis
    return f"{bound}; {info.drift or f'{info.watched_searches} searches bear it out'}"


def _model_rows(kind: str, model: ModelInfo) -> dict[str, object]:
    commercial = "commercial use allowed" if model.commercial_use else "no commercial use"
    rows: dict[str, object] = {
        kind: f"{model.name} ({model.digest[:12]}…)",
        f"{kind} licence": f"{model.licence}; {commercial}",
    }
    if model.default_threshold is not None:
        rows[f"{kind} threshold"] = f"{model.default_threshold:g} ({model.threshold_basis})"
        rows[f"{kind} vector"] = f"{model.dimension} components"
    return rows
