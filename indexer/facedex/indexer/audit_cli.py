"""`facedex-index audit`: who did what."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from facedex.indexer.audit import AuditHead
from facedex.indexer.cli_session import check_output, good_order, opened_store
from facedex.indexer.errors import InvalidArgument

if TYPE_CHECKING:
    from facedex.indexer.audit import AuditEntry, AuditReport

app = typer.Typer(help="The audit: who searched or changed what, and when.", no_args_is_help=True)

FAULTS = 3
VERIFY_HELP = (
    "Exit code 3: something is wrong. Write down the head that is printed, and give it back with --head later."
)
PRUNE_HELP = (
    "Export first what is to be kept. Nothing is pruned while verify finds a fault, except that a backup was restored."
)
HEAD = re.compile(r"(\d{1,18}):([0-9a-f]{64})", re.ASCII)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def show(
    context: typer.Context,
    *,
    key: Annotated[str | None, typer.Option(help="Only of this API key; 'local' is facedex-index.")] = None,
    gallery: Annotated[str | None, typer.Option(help="Only in this gallery.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, for instance IdentificationService/Identify.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only from this moment on (UTC).")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="The newest so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Shows the newest entries, the newest first."""
    moment = None if since is None else since.replace(tzinfo=UTC)
    with good_order(), opened_store(context.obj) as store:
        entries = store.audit.newest(limit=limit, key_id=key, gallery=gallery, action=action, since=moment)
    if as_json:
        print(json.dumps([each.document() for each in entries], indent=2))
        return
    whole = [Column(name, no_wrap=True) for name in ("number", "when (UTC)", "key")]
    table = Table(*whole, Column("what", overflow="fold"), Column("what came of it", overflow="fold"), box=SIMPLE_HEAD)
    for each in entries:
        table.add_row(*_row(each))
    Console().print(table)


@app.command(epilog=VERIFY_HELP)
def verify(
    context: typer.Context,
    *,
    head: Annotated[
        str | None, typer.Option(metavar="NUMBER:HASH", help="A head that was printed before, and kept elsewhere.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Examines the whole chain: was an entry changed, taken out or put in, or the end cut off? Also beside a running server."""
    with good_order(), opened_store(context.obj) as store:
        report = store.audit.examined(seen_before=None if head is None else _head(head))
    if as_json:
        print(json.dumps(_document(report), indent=2))
    else:
        _print_report(report)
    if not report.is_whole:
        raise typer.Exit(FAULTS)


@app.command(epilog=PRUNE_HELP)
def prune(
    context: typer.Context,
    *,
    before: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="The first day to keep (UTC).")],
) -> None:
    """Takes out the oldest entries. The chain goes on from the last of them, and an entry says so. Also beside a server."""
    moment = before.replace(tzinfo=UTC)
    with good_order(), opened_store(context.obj) as store:
        if moment > store.now():
            raise InvalidArgument("--before", "is a day in the future; entries of today are not pruned")
        count = store.audit.prune(moment)
        anchor = store.audit.anchor()
    print(f"pruned {count} entries" + (f"; the chain begins behind {anchor}" if anchor.number else ""))


@app.command()
def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to make: one JSON object a line.")],
) -> None:
    """Writes every entry with its hash into a file; docs/decisions/0602-audit.md says what the hashes are of.

    Where entries were pruned, the first line says how many, and what the first hash follows on.
    """
    with good_order(), opened_store(context.obj) as store:
        check_output("FILE", file)
        count = 0
        with file.open("w", encoding="ascii") as target:
            for document in store.audit.documents():
                target.write(json.dumps(document, sort_keys=True) + "\n")
                count += "number" in document
    print(f"wrote {count} entries into {file}")


def _head(text: str) -> AuditHead:
    match = HEAD.fullmatch(text.strip())
    if match is None:
        raise InvalidArgument("--head", "is a number, a colon and 64 hexadecimal digits, as audit verify prints it")
    return AuditHead(int(match[1]), bytes.fromhex(match[2]))


def _row(entry: AuditEntry) -> tuple[str | Text, ...]:
    event = entry.event
    came = [
        event.outcome,
        f"gallery {event.gallery}" if event.gallery else "",
        "" if event.threshold is None else f"threshold {event.threshold:.4f}",
        "" if event.revision is None else f"revision {event.revision}",
    ]
    told = (event.key_id or "(none)", event.action, ", ".join(each for each in came if each))
    return str(entry.number), f"{event.at:%Y-%m-%d %H:%M:%S}", *(Text(each) for each in told)


def _document(report: AuditReport) -> dict[str, object]:
    findings = [{"fault": each.fault.value, "number": each.number, "detail": each.detail} for each in report.findings]
    return {
        "is_whole": report.is_whole,
        "entries": report.count,
        "head": str(report.head),
        "witnesses": report.witnesses,
        "pruned": str(report.anchor),
        "findings": findings,
    }


def _print_report(report: AuditReport) -> None:
    if report.findings:
        table = Table("fault", "entry", Column("what", overflow="fold"), title="The audit is not whole")
        for each in report.findings:
            table.add_row(each.fault.value, str(each.number), Text(each.detail))
        Console().print(table)
    seen = "compared with a head noted before" if report.witnesses else "no head was noted before"
    faults = "1 fault" if len(report.findings) == 1 else f"{len(report.findings)} faults"
    print(f"{report.count} entries, {faults}; {seen}")
    if report.anchor.number:
        print(f"pruned up to {report.anchor}; heads of before cannot be compared")
    print(f"head {report.head}")
