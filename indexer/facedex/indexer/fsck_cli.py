"""`facedex-index fsck`: whether store, snapshots and indexes agree, and what mends them."""

from __future__ import annotations

import json
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from facedex.indexer.cli_session import good_order, opened_store
from facedex.indexer.consistency.check import DataFolderCheck
from facedex.indexer.consistency.findings import Fault, Remedy, Report
from facedex.indexer.consistency.repair import accept_store, mend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from facedex.indexer.store.store import Store

DIFFERENCES = 3
EXIT_HELP = "Exit code 3: differences were found, and with --repair are still there."


def add_commands(app: typer.Typer) -> None:
    """Adds the command of this module to the program."""
    app.command("fsck", epilog=EXIT_HELP)(fsck)


def fsck(
    context: typer.Context,
    *,
    gallery: Annotated[str | None, typer.Option(help="Name of the gallery; all of them if none.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be made from the database.")] = False,
    accept: Annotated[
        bool, typer.Option("--accept-store", help="With --repair: take the database for the truth as it is now.")
    ] = False,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the findings into this file.")] = None,
) -> None:
    """Examines database, snapshots and index for differences, and names each. Also beside a running server."""
    wanted = _repair(repair=repair, accept=accept)
    with good_order(interrupted="stopped"), opened_store(context.obj) as store:
        reports = _examined(store, context.obj.data, gallery, wanted)
        _tell(reports, json_path)
    if not all(report.is_consistent for report in reports):
        raise typer.Exit(DIFFERENCES)


class _Repair(Enum):
    """How much is mended."""

    NOTHING = "nothing"
    FROM_STORE = "what can be made from the store"
    ACCEPT_STORE = "everything, by taking the store for the truth as it is now"


def _repair(*, repair: bool, accept: bool) -> _Repair:
    if accept and not repair:
        raise typer.BadParameter("goes with --repair", param_hint="--accept-store")
    if accept:
        return _Repair.ACCEPT_STORE
    return _Repair.FROM_STORE if repair else _Repair.NOTHING


def _examined(store: Store, data: Path, gallery: str | None, repair: _Repair) -> list[Report]:
    check = DataFolderCheck(store, data / "index")
    names = [gallery] if gallery else sorted(store.revisions())
    reports = [_mended(partial(check.gallery, name), check, store, repair) for name in names]
    return reports if gallery else [*reports, _mended(check.everywhere, check, store, repair)]


def _mended(examine: Callable[[], Report], check: DataFolderCheck, store: Store, repair: _Repair) -> Report:
    report = examine()
    if report.is_consistent:
        return report
    _print_findings(report)
    if repair is _Repair.NOTHING:
        return report
    mend = _mend_gallery if report.gallery else _mend_everywhere
    mend(report, check, store, repair)
    # Looked at again: what is told at the end is how it is now.
    return examine()


def _mend_gallery(report: Report, check: DataFolderCheck, store: Store, repair: _Repair) -> None:
    mend(report, store=store, indexes=check.indexes)
    if repair is _Repair.ACCEPT_STORE and report.needs(Remedy.ACCEPT):
        accept_store(report, store=store, indexes=check.indexes)


def _mend_everywhere(report: Report, check: DataFolderCheck, store: Store, repair: _Repair) -> None:
    if Fault.ORPHAN_FILE in report.counts:
        check.indexes.discard_leftovers()
    if repair is _Repair.ACCEPT_STORE and report.needs(Remedy.ACCEPT):
        store.delete_strays()


def _tell(reports: Sequence[Report], json_path: Path | None) -> None:
    table = Table("gallery", "templates", "revision", "seconds", "differences", title="Examined")
    for report in reports:
        count = sum(report.counts.values())
        name = report.gallery or "(none)"
        table.add_row(name, str(report.templates), str(report.revision), f"{report.seconds:.2f}", str(count))
    Console().print(table)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "is_consistent": all(report.is_consistent for report in reports),
            "galleries": [report.to_json() for report in reports if report.gallery],
            "everywhere": [report.to_json() for report in reports if not report.gallery],
        }
        json_path.write_text(json.dumps(document, indent=2) + "\n")


def _print_findings(report: Report) -> None:
    table = Table("difference", "template", "what", title=f"Differences in {report.gallery or 'no gallery'}")
    for finding in report.findings:
        number = "" if finding.template_id is None else str(finding.template_id)
        table.add_row(finding.fault.label, number, escape(finding.detail))
    console = Console()
    console.print(table)
    for fault, count in report.counts.items():
        console.print(f"{count} {fault.label}: {fault.remedy.value}", markup=False, highlight=False, soft_wrap=True)
