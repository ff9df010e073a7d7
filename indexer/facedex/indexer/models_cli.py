"""`facedex-index models`: which models there are, adding and fetching more, checking them."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Column, Table

from facedex.indexer.vision.download import pull as pull_model
from facedex.indexer.vision.errors import VisionError
from facedex.indexer.vision.manifest import ModelManifest
from facedex.indexer.vision.models import ModelFolder
from facedex.indexer.vision.well_known import WellKnownModel, well_known_model, well_known_models

app = typer.Typer(no_args_is_help=True, help="The networks that find faces and turn them into vectors.")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


class HasData(Protocol):
    """What the program's callback leaves in the context: where the data folder is."""

    @property
    def data(self) -> Path: ...


@app.command("list")
def list_models(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Lists the built-in models and those that were added."""
    with _one_line_errors():
        manifests = model_folder(context.obj).list()
    if as_json:
        print(json.dumps([described(manifest) for manifest in manifests], indent=2))
        return
    table = Table(
        Column("model", no_wrap=True), "kind", "vector", "threshold", "commercial use", "licence", title="Models"
    )
    for manifest in manifests:
        table.add_row(*_cells(manifest))
    Console().print(table)


@app.command()
def add(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The ONNX file.")],
    *,
    manifest: Annotated[Path, typer.Option(help="The TOML file that describes it.")],
    as_json: AsJson = False,
) -> None:
    """Adds a model after checking its digest and trying it out."""
    with _one_line_errors():
        added = model_folder(context.obj).add(file, manifest)
    _print_added(added, as_json=as_json)


@app.command()
def pull(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="One of the well-known models; without it, they are listed.")
    ] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Accept the licence without being asked.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fetches a well-known public model: shows its licence, asks, resumes, and checks the digest."""
    if name is None:
        _print_well_known(as_json=as_json)
        return
    with _one_line_errors():
        model = well_known_model(name)
        _show_terms(model)
        if not yes:
            typer.confirm("Fetch it on these terms?", abort=True, err=True)
        added = _pull_with_progress(model_folder(context.obj), model)
    _print_added(added, as_json=as_json)


@app.command()
def verify(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Checks each model's digest and tries it out; exit code 1 where one fails."""
    with _one_line_errors():
        verifications = model_folder(context.obj).verify()
    if as_json:
        print(json.dumps([asdict(verification) for verification in verifications], indent=2))
    else:
        table = Table("model", "result", title="Verified")
        for verification in verifications:
            table.add_row(verification.name, verification.problem or "sound")
        Console().print(table)
    if any(verification.problem for verification in verifications):
        raise typer.Exit(1)


def model_folder(place: HasData) -> ModelFolder:
    return ModelFolder(place.data / "models")


def described(manifest: ModelManifest) -> dict[str, object]:
    """What programs are told of a model."""
    return {
        "name": manifest.name,
        "kind": manifest.kind,
        "sha256": manifest.sha256,
        "refiner_sha256": None if manifest.refiner is None else manifest.refiner.sha256,
        "dimension": manifest.dimension,
        "default_threshold": manifest.default_threshold,
        "threshold_basis": manifest.threshold_basis,
        "commercial_use": manifest.commercial_use,
        "licence": manifest.licence,
        "source": manifest.source,
    }


def _cells(manifest: ModelManifest) -> tuple[str, ...]:
    threshold = manifest.default_threshold
    return (
        manifest.name,
        manifest.kind,
        f"{manifest.dimension}-d" if manifest.dimension else "",
        "" if threshold is None else f"{threshold:g}",
        "yes" if manifest.commercial_use else "no",
        manifest.licence,
    )


def _print_well_known(*, as_json: bool) -> None:
    models = well_known_models()
    if as_json:
        print(json.dumps([{**asdict(model), "manifest": described(model.described)} for model in models], indent=2))
        return
    table = Table(
        Column("name", no_wrap=True), "MB", "commercial use", "licence", "what it is", title="Well-known models"
    )
    for model in models:
        manifest = model.described
        terms = "yes" if manifest.commercial_use else "no"
        table.add_row(model.name, f"{model.megabytes:g}", terms, manifest.licence, model.about)
    Console().print(table)


def _show_terms(model: WellKnownModel) -> None:
    manifest = model.described
    terms = "allowed" if manifest.commercial_use else "not allowed"
    console = Console(stderr=True)
    for line in (
        f"{model.name}: {model.about}",
        f"  from     {model.address} ({model.megabytes:g} MB)",
        f"  licence  {manifest.licence}; commercial use is {terms}",
        f"  sha256   {manifest.sha256}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _pull_with_progress(folder: ModelFolder, model: WellKnownModel) -> ModelManifest:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(model.name, total=None)
        return pull_model(
            folder,
            model,
            progress=lambda present, total: progress.update(task, completed=present, total=total or None),
        )


def _print_added(manifest: ModelManifest, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(described(manifest), indent=2))
        return
    Console().print(f"added the {manifest.kind} {manifest.name}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _one_line_errors() -> Generator[None]:
    """An error of ours becomes one line and exit code 1."""
    try:
        yield
    except (VisionError, OSError) as error:
        Console(stderr=True).print(f"facedex-index: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
