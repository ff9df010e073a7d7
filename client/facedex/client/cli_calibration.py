"""Commands about thresholds that state their error rate."""

import time
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from facedex.client.calibration import ResolvedThreshold
from facedex.client.cli_output import details, print_json, print_line, print_table
from facedex.client.cli_session import GalleryName, Json, connected
from facedex.client.client import Client
from facedex.client.jobs import Job, JobState

POLL_SECONDS = 0.3
Target = Annotated[float, typer.Option(min=0, max=1, help="Share of strangers that may be taken for somebody.")]


def calibrate(context: typer.Context, gallery: GalleryName, *, json: Json = False) -> None:
    """Calibrate a gallery from itself, so that a threshold can promise something.

    Each template is searched among everybody else's. Exits with 1 where the calibration failed.
    """
    with connected(context) as client:
        job = _waited_for(client, client.calibrate(gallery))
    if json:
        print_json(job)
    elif job.state is JobState.DONE:
        print_line(f"calibrated {gallery}: see facedex threshold {gallery} --target-fpir 0.01")
    else:
        print_line(f"not calibrated: {job.error or job.state}")
    if job.state is not JobState.DONE:
        raise typer.Exit(1)


def threshold(
    context: typer.Context,
    gallery: GalleryName,
    *,
    target_fpir: Target = 0.01,
    templates: Annotated[int, typer.Option(min=0, help="Size of the gallery; 0: as it is now.")] = 0,
    json: Json = False,
) -> None:
    """Tell which threshold keeps a target FPIR, by the gallery's certificate."""
    with connected(context) as client:
        resolved = client.resolve_threshold(gallery, target_fpir=target_fpir, template_count=templates)
    if json:
        print_json(resolved)
    else:
        _print_resolved(resolved)


def _waited_for(client: Client, job: Job) -> Job:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(job.kind, total=1.0)
        while not job.state.is_final:
            time.sleep(POLL_SECONDS)
            job = client.get_job(job.id)
            progress.update(task, completed=job.progress)
    return job


def _print_resolved(resolved: ResolvedThreshold) -> None:
    point = resolved.operating_point
    rows: dict[str, object] = {"threshold": f"{point.threshold:.3f}", "from": point.basis}
    if point.fpir is not None:
        how = "measured" if point.fpir.is_measured else "extrapolated"
        rows["FPIR"] = (
            f"{point.fpir.lower:.3%} to {point.fpir.upper:.3%} (95 %, {how}), most likely {point.fpir.estimate:.3%}"
        )
    if resolved.fnir is not None:
        lower, estimate, upper = resolved.fnir
        rows["FNIR"] = f"{lower:.2%} to {upper:.2%} (95 %), measured {estimate:.2%}"
    print_table(details(rows))
