"""`facedex erasures` and `facedex verify-erasure`: what was erased, and whether a receipt is genuine."""

import errno
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from facedex.client.cli_output import (
    cell,
    counted,
    details,
    moment_text,
    new_table,
    print_json,
    print_line,
    print_table,
)
from facedex.client.cli_session import ExitCode, Json, complain, connected
from facedex.client.client import Client
from facedex.client.erasures import ErasureCheck, ErasureRecord, Receipt, verify_receipt
from facedex.client.errors import UnavailableError

erasures = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What was erased, with receipts.")

ReceiptFile = Annotated[
    Path | None,
    typer.Option("--receipt", metavar="FILE", help="Write the signed receipt into this file.", show_default=False),
]


def check_receipt_file(file: Path | None) -> None:
    """Before anything is erased: no erasure can be undone because its receipt has no place.

    Raises OSError.
    """
    if file is not None and (file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK)):
        raise OSError(errno.EACCES, "the receipt cannot be written there, so nothing was erased", str(file))


def keep_receipt(receipt: str, file: Path | None) -> None:
    """Writes a receipt where the caller asked for it."""
    if file is not None:
        file.write_text(receipt + "\n", encoding="utf-8")


@erasures.command("list")
def list_(context: typer.Context, *, json: Json = False) -> None:
    """List erasures, the newest first."""
    names = ["erasure", "what", "why", "gallery", "people", "templates", "erased (UTC)", "last copies (UTC)"]
    table = new_table(*names, right=["people", "templates"])
    with connected(context) as client:
        for record in client.list_erasures():
            if json:
                print_json(record)
            else:
                table.add_row(*_cells(record))
    if not json:
        print_table(table)


@erasures.command()
def show(
    context: typer.Context,
    erasure: Annotated[str, typer.Argument(metavar="ERASURE", help="Its id, as `list` tells it.")],
    *,
    receipt: ReceiptFile = None,
    json: Json = False,
) -> None:
    """Show one erasure; writes its receipt where it is asked for."""
    with connected(context) as client:
        record = client.get_erasure(erasure)
    keep_receipt(record.receipt, receipt)
    if json:
        print_json(record)
        return
    rows = {
        "erasure": record.id,
        "what": _what(record),
        "why": record.reason.lower(),
        "gallery": record.gallery,
        "erased (UTC)": moment_text(record.erase_time),
        "last copies (UTC)": _copies(record),
    }
    print_table(details(rows))


def verify_erasure(
    context: typer.Context,
    receipt: Annotated[Path, typer.Argument(metavar="RECEIPT", help="A receipt, as `delete --receipt` wrote it.")],
    *,
    public_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The installation's public key, 64 hexadecimal digits.", show_default=False),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Check the signature only; ask no server.")] = False,
    json: Json = False,
) -> None:
    """Check the receipt of an erasure, and ask the server whether anything is still held."""
    text = receipt.read_text(encoding="utf-8", errors="replace")
    key = None if public_key is None else public_key.read_text(encoding="utf-8", errors="replace")
    genuine = verify_receipt(text, public_key=key)
    check = None if offline else _asked(context, text)
    if json:
        print_json(
            {
                "receipt": genuine.content,
                "trusted_key": genuine.is_of_trusted_key,
                "asked": check is not None,
                "held": [] if check is None else check.held,
            }
        )
    else:
        _print_check(genuine, check)
    if check is not None and check.held:
        raise typer.Exit(ExitCode.ANSWER_IS_NO)


def _asked(context: typer.Context, text: str) -> ErasureCheck | None:
    with connected(context) as client:
        return _answer(client, text)


def _answer(client: Client, text: str) -> ErasureCheck | None:
    try:
        return client.check_erasure(text)
    except UnavailableError as error:
        complain(f"{error}; only the signature was checked")
        return None


def _print_check(genuine: Receipt, check: ErasureCheck | None) -> None:
    content: Any = genuine.content
    origin = "the key that you named" if genuine.is_of_trusted_key else "the key that came with it; name one you trust"
    rows: dict[str, object] = {
        "signature": f"genuine, of {origin}",
        "public key": genuine.public_key,
        "erased": f"{content['scope']} in gallery {content['gallery']}, {content['template_count']} templates",
        "erased at": content["erased_at"],
        "horizon": content["horizon_at"],
    }
    print_table(details(rows))
    if check is None:
        return
    for each in check.held:
        print_line(f"still held: {each}")
    if not check.held:
        print_line("the server holds nothing of it")


def _cells(record: ErasureRecord) -> list[Any]:
    counts = str(record.identity_count), str(record.template_count)
    return [
        cell(record.id),
        record.scope.lower(),
        record.reason.lower(),
        cell(record.gallery),
        *counts,
        moment_text(record.erase_time),
        _copies(record),
    ]


def _what(record: ErasureRecord) -> str:
    people = counted(record.identity_count, "person", "people")
    return f"{record.scope.lower()}: {people}, {counted(record.template_count, 'template', 'templates')}"


def _copies(record: ErasureRecord) -> str:
    if record.purge_time is not None:
        return f"gone since {moment_text(record.purge_time)}"
    return f"gone by {moment_text(record.horizon_time)}"
