"""`facedex-index jobs`: long-running work, whichever process does it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from facedex.indexer.cli_session import good_order, opened_store
from facedex.indexer.jobs.cancelling import cancel, is_abandoned
from facedex.indexer.jobs.owner import place_of

if TYPE_CHECKING:
    from datetime import datetime

    from facedex.indexer.store.records import BulkFinding, JobRecord
    from facedex.indexer.store.store import Store

app = typer.Typer(help="Long-running work: calibrations of servers, bulk enrolments, streams, new data keys.")

# How long a job that is worked on gets to stop, so that the end can be shown.
STOP_SECONDS = 5.0
POLL_SECONDS = 0.1
SHOWN = 100

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
JobNumber = Annotated[int, typer.Argument(metavar="JOB", max=2**63 - 1, help="Number of the job.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="The newest so many.")]


@app.callback(invoke_without_command=True)
def jobs(context: typer.Context) -> None:
    """Long-running work: calibrations of servers, bulk enrolments, streams, new data keys. Without a command, lists it."""
    if context.invoked_subcommand is None:
        list_jobs(context)


@app.command("list")
def list_jobs(context: typer.Context, *, limit: Limit = 100, as_json: AsJson = False) -> None:
    """Lists jobs, the newest first."""
    with good_order(interrupted="stopped"), opened_store(context.obj) as store:
        found, now = store.jobs(limit=limit), store.now()
    if as_json:
        print(json.dumps([_document(each, now) for each in found], indent=2))
        return
    by, asked, error = (
        Column("by", overflow="fold"),
        Column("asked for (UTC)", min_width=10),
        Column("error", overflow="fold"),
    )
    table = Table("job", "state", "kind", "gallery", "progress", by, asked, error, title="Jobs")
    for each in found:
        table.add_row(str(each.id), _state(each, now), *_row(each))
    Console().print(table)


@app.command()
def show(context: typer.Context, job: JobNumber, *, as_json: AsJson = False) -> None:
    """Shows one job; of a bulk enrolment or a stream also what was noticed, by position in it."""
    with good_order(interrupted="stopped"), opened_store(context.obj) as store:
        found, now = store.job(job), store.now()
        findings = list(store.bulk_findings(found))
    if as_json:
        document = _document(found, now) | {"findings": [_finding(each) for each in findings]}
        print(json.dumps(document, indent=2))
        return
    _print_job(found, now)
    _print_findings(findings)


@app.command("cancel")
def cancel_job(context: typer.Context, job: JobNumber, *, as_json: AsJson = False) -> None:
    """Asks a job to stop. What it has done stays: whoever is enrolled stays enrolled."""
    with good_order(interrupted="stopped"), opened_store(context.obj) as store:
        cancel(store, job)
        ended = _ended(store, job)
        now = store.now()
    if as_json:
        print(json.dumps(_document(ended, now), indent=2))
        return
    _print_job(ended, now)


def _ended(store: Store, number: int) -> JobRecord:
    """The job when it has stopped, or after a while as it is."""
    deadline = time.monotonic() + STOP_SECONDS
    while not (job := store.job(number)).state.is_final and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return job


# Showing


def _document(job: JobRecord, now: datetime) -> dict[str, object]:
    return {
        "job": job.id,
        "state": job.state.value,
        "kind": job.kind,
        "gallery": job.gallery,
        "progress": round(job.progress, 6),
        "items": job.item_count,
        "done": job.position,
        "owner": job.owner,
        "is_abandoned": is_abandoned(job, now),
        "cancel_requested": job.cancel_requested,
        "created": job.created_at.isoformat(),
        "last_sign_of_life": job.heartbeat_at.isoformat(),
        "result": job.result,
        "error": job.error,
    }


def _finding(finding: BulkFinding) -> dict[str, object]:
    return {
        "position": finding.position,
        "refused": finding.is_refusal,
        "reason": finding.reason,
        "message": finding.message,
    }


def _state(job: JobRecord, now: datetime) -> str:
    return "abandoned" if is_abandoned(job, now) else job.state.value


def _row(job: JobRecord) -> tuple[str | Text, ...]:
    return job.kind, job.gallery, _progress(job), Text(place_of(job.owner)), _moment(job.created_at), Text(job.error)


def _progress(job: JobRecord) -> str:
    if job.item_count:
        return f"{job.progress:.0%} ({job.position} of {job.item_count})"
    return f"{job.position} so far" if job.position and not job.state.is_final else f"{job.progress:.0%}"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def _print_job(job: JobRecord, now: datetime) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = {
        "job": str(job.id),
        "kind": job.kind,
        "gallery": job.gallery,
        "state": f"{_state(job, now)}{_advice(job, now)}",
        "progress": _progress(job),
        "by": place_of(job.owner),
        "asked for": f"{_moment(job.created_at)} UTC",
        "last sign of life": f"{job.heartbeat_at:%Y-%m-%d %H:%M:%S} UTC",
        "result": "" if job.result is None else ", ".join(f"{key}: {value}" for key, value in job.result.items()),
        "error": job.error,
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(value))
    Console().print(table)


def _advice(job: JobRecord, now: datetime) -> str:
    """What a person may do about it."""
    if job.is_bulk and (is_abandoned(job, now) or not (job.state.is_final or job.owner)):
        command = "import of the same archive" if "archive" in job.arguments else "enrol on the same source"
        return f": run facedex-index {command} to go on, or cancel it"
    if job.is_rotation and (is_abandoned(job, now) or not (job.state.is_final or job.owner)):
        return ": run facedex-index data-keys rotate to go on, or cancel it"
    return ": its process is asked to stop" if job.cancel_requested and not job.state.is_final else ""


def _print_findings(findings: list[BulkFinding]) -> None:
    if not findings:
        return
    table = Table("position", "", "reason", "what to do", title="What was noticed, by position from 0")
    for each in findings[:SHOWN]:
        refused = "refused" if each.is_refusal else "look at it"
        table.add_row(str(each.position), refused, each.reason.replace("_", " "), Text(each.message))
    Console().print(table)
    if len(findings) > SHOWN:
        print(f"and {len(findings) - SHOWN} more: --json has them all")
