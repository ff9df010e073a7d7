"""The command that asks a server whether its store and index agree."""

from typing import Annotated

import typer

from facedex.client.cli_output import cell, counted, new_table, print_json, print_line, print_table
from facedex.client.cli_session import ExitCode, Json, connected
from facedex.client.consistency import ConsistencyReport

PATIENCE_SECONDS = 3_600.0
"""An examination takes about as long as building the index; --timeout is for other calls."""


def check(
    context: typer.Context,
    gallery: Annotated[str, typer.Argument(metavar="[GALLERY]", help="Name of the gallery; all of them if none.")] = "",
    *,
    json: Json = False,
) -> None:
    """Check whether a server's database and the index in its memory agree; name each difference.

    Searches and changes go on meanwhile. Exits with 3 where differences were found.
    """
    with connected(context) as client:
        patient = client.with_timeout(PATIENCE_SECONDS)
        names = [gallery] if gallery else [each.name for each in client.list_galleries()]
        reports = [patient.check_consistency(name) for name in names]
    for report in reports:
        if json:
            print_json(report)
        else:
            _print_report(report)
    if not all(report.is_consistent for report in reports):
        raise typer.Exit(ExitCode.ANSWER_IS_NO)


def _print_report(report: ConsistencyReport) -> None:
    size = counted(report.template_count, "template", "templates")
    where = f"{report.gallery}: {size} at revision {report.revision}, {report.duration_seconds:.1f} s"
    if report.is_consistent:
        print_line(f"{where}: store and index agree")
        return
    print_line(f"{where}: {counted(sum(report.counts.values()), 'difference', 'differences')}")
    table = new_table("difference", "template", "what", "what to do", right=["template"])
    for each in report.findings:
        table.add_row(each.fault, str(each.template_id or ""), cell(each.detail), cell(each.remedy))
    print_table(table)
