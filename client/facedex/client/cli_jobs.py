"""Commands about long-running work."""

from typing import Annotated

import typer

from facedex.client.cli_output import cell, details, moment_text, new_table, print_json, print_table
from facedex.client.cli_session import Json, connected
from facedex.client.jobs import Job

JobNumber = Annotated[int, typer.Argument(metavar="JOB", help="Number of the job.")]

jobs = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Long-running work, and bulk enrolments.")


@jobs.command(name="list")
def list_jobs(context: typer.Context, *, json: Json = False) -> None:
    """List jobs, the newest first."""
    columns = ("job", "state", "kind", "gallery", "progress", "by", "asked for (UTC)", "error")
    table = new_table(*columns, right=["job"])
    with connected(context) as client:
        for job in client.list_jobs():
            if json:
                print_json(job)
            else:
                table.add_row(*(cell(each) for each in _row(job)))
    if not json:
        print_table(table)


@jobs.command()
def show(context: typer.Context, job: JobNumber, *, json: Json = False) -> None:
    """Show one job."""
    with connected(context) as client:
        _print_job(client.get_job(job), json=json)


@jobs.command()
def findings(context: typer.Context, job: JobNumber, *, json: Json = False) -> None:
    """List what a bulk enrolment or a stream refused, or enrolled for somebody to look at, by position from 0."""
    table = new_table("position", "", "reason", "what to do", right=["position"])
    with connected(context) as client:
        for each in client.list_job_findings(job):
            if json:
                print_json(each)
            else:
                shown = "refused" if each.is_refusal else "look at it"
                table.add_row(
                    *(cell(value) for value in (each.position, shown, each.reason.replace("_", " "), each.message))
                )
    if not json:
        print_table(table)


@jobs.command()
def cancel(context: typer.Context, job: JobNumber, *, json: Json = False) -> None:
    """Ask a job to stop. What it has done stays: whoever is enrolled stays enrolled."""
    with connected(context) as client:
        _print_job(client.cancel_job(job), json=json)


def _row(job: Job) -> tuple[object, ...]:
    asked = moment_text(job.create_time)
    return job.id, _state(job), job.kind, job.gallery, _progress(job), job.owner, asked, job.error


def _state(job: Job) -> str:
    return f"{job.state}, abandoned" if job.is_abandoned else job.state


def _progress(job: Job) -> str:
    if job.item_count:
        return f"{job.progress:.0%} ({job.done_count} of {job.item_count})"
    return f"{job.done_count} so far" if job.done_count and not job.state.is_final else f"{job.progress:.0%}"


def _print_job(job: Job, *, json: bool) -> None:
    if json:
        print_json(job)
        return
    rows: dict[str, object] = {
        "job": job.id,
        "kind": job.kind,
        "gallery": job.gallery,
        "state": _state(job),
        "progress": _progress(job),
        "by": job.owner,
        "asked for": f"{moment_text(job.create_time)} UTC",
        "last sign of life": f"{moment_text(job.update_time)} UTC",
        "result": ", ".join(f"{key}: {value}" for key, value in (job.result or {}).items()),
        "error": job.error,
    }
    print_table(details({name: value for name, value in rows.items() if value}))
