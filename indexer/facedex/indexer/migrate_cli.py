"""`facedex-index migrate`: another model for a gallery, while it answers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from facedex.indexer.cli_session import ENGINE, RAY_ADDRESS, check_output, good_order, opened, progress_of, say
from facedex.indexer.comparison import Agreement
from facedex.indexer.errors import InvalidArgument, SuccessionExists
from facedex.indexer.eyes import OwnEyes
from facedex.indexer.galleries import model_record
from facedex.indexer.jobs import changeover
from facedex.indexer.jobs.engines import Engine, EngineKind, sight
from facedex.indexer.jobs.model_rates import rates_of_both
from facedex.indexer.jobs.reembedding import Originals, Reembedding, count_groups

if TYPE_CHECKING:
    from facedex.indexer.gallery import Gallery
    from facedex.indexer.store.records import ModelRecord, Succession
    from facedex.indexer.store.succession_rows import SuccessionCounts

app = typer.Typer(
    no_args_is_help=True, help="Another model for a gallery, while it answers: begin, look, cut over, finish."
)

GalleryName = Annotated[str, typer.Argument(help="Name of the gallery.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
INTERRUPTION = "stopped; run the same command again to go on"


@app.command()
def begin(
    context: typer.Context,
    gallery: GalleryName,
    *,
    model: Annotated[str, typer.Option(help="Name of the new model; see: facedex-index models list.")],
    originals: Annotated[
        Path | None, typer.Option(help="Folder of the photographs that were enrolled, under any names.")
    ] = None,
    engine: Annotated[EngineKind, ENGINE] = EngineKind.LOCAL,
    ray_address: Annotated[str | None, RAY_ADDRESS] = None,
    as_json: AsJson = False,
) -> None:
    """Gives every face a vector of the new model, from its photograph or kept crop; the old model goes on answering.

    Run it again for those that are missing, with more photographs say. New enrolments get both vectors by themselves.
    """
    if originals is not None and not originals.is_dir():
        raise typer.BadParameter(f"{originals} is no folder", param_hint="--originals")
    with good_order(interrupted=INTERRUPTION), opened(context.obj) as galleries:
        people = galleries.get(gallery)
        pipeline = galleries.pipeline_of_model(model)
        _begin(people, model_record(pipeline.embedder.manifest))
        with sight(Engine(engine, ray_address, context.obj.device), galleries, OwnEyes(pipeline)) as seen:
            work = Reembedding(
                people.store,
                seen,
                galleries.contract_of,
                originals=_originals(originals),
                model_digest=pipeline.embedder.manifest.sha256,
            )
            _embed_rest(people, work)
        if not changeover.measure_scale(people):
            say("too few people have both vectors to compare the models' scores yet")
        status = _status(people)
    _print_status(status, as_json=as_json)


@app.command()
def status(
    context: typer.Context,
    gallery: GalleryName,
    *,
    left_behind: Annotated[
        Path | None, typer.Option(help="Text file for the ids of those who have to be captured again.")
    ] = None,
    rates: Annotated[bool, typer.Option("--rates", help="Measure error rates of both models on the gallery.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tells how far the change is, whom it leaves behind, how both models agree on live probes, and how often each errs."""
    with good_order(), opened(context.obj) as galleries:
        check_output("--left-behind", left_behind)
        people = galleries.get(gallery)
        found = _status(people)
        if rates:
            with progress_of("calibrating") as report:
                measured = rates_of_both(people, detector=galleries.pipeline.detector.manifest, report=report)
            found["rates"] = [asdict(each) for each in measured]
        if left_behind is not None:
            ids = people.store.successions.left_behind(people.record)
            left_behind.write_text("".join(f"{each}\n" for each in ids), encoding="utf-8")
    _print_status(found, as_json=as_json)


@app.command("cut-over")
def cut_over(context: typer.Context, gallery: GalleryName, *, as_json: AsJson = False) -> None:
    """The new model answers from now on, in every server; who has no vector of it is found by the old one, on one scale."""
    with good_order(interrupted=INTERRUPTION), opened(context.obj) as galleries:
        people = galleries.get(gallery)
        detector = galleries.pipeline.detector.manifest
        with progress_of("calibrating") as report:
            changeover.cut_over(people, detector=detector, report=report)
        found = _status(people)
    _print_status(found, as_json=as_json)


@app.command("roll-back")
def roll_back(context: typer.Context, gallery: GalleryName, *, as_json: AsJson = False) -> None:
    """The old model answers again, exactly as before; nothing is lost, and cut-over may follow again."""
    with good_order(), opened(context.obj) as galleries:
        people = galleries.get(gallery)
        people.store.successions.take_back(people.record)
        people.catch_up()
        found = _status(people)
    _print_status(found, as_json=as_json)


@app.command()
def finish(context: typer.Context, gallery: GalleryName) -> None:
    """Deletes the old model's vectors: there is no way back. Everybody must have a vector of the new model."""
    with good_order(), opened(context.obj) as galleries:
        people = galleries.get(gallery)
        changeover.finish(people)
        print(f"gallery {gallery} holds vectors of {people.record.model.name} alone")


@app.command()
def abandon(context: typer.Context, gallery: GalleryName) -> None:
    """Gives the change up: the old model stays, and vectors of the new one are deleted."""
    with good_order(), opened(context.obj) as galleries:
        people = galleries.get(gallery)
        people.store.successions.abandon(people.record)
        people.catch_up()
        print(f"gallery {gallery} stays with {people.record.model.name}")


def _begin(people: Gallery, model: ModelRecord) -> None:
    if model.digest == people.record.model.digest:
        raise InvalidArgument("--model", f"the gallery's model is {model.name} already")
    known = people.record.succession
    if known is None:
        people.store.successions.begin(people.record, model)
        people.catch_up()
    elif known.model.digest != model.digest:
        raise SuccessionExists


def _originals(folder: Path | None) -> Originals:
    if folder is None:
        return Originals({})
    say(f"reading the photographs in {folder}")
    return Originals.of_folder(folder)


def _embed_rest(people: Gallery, work: Reembedding) -> None:
    counts = people.store.successions.counts(people.record)
    columns = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("embedding", total=counts.templates - counts.embedded_templates)
        for embedded, missing in count_groups(work.run(people.record)):
            progress.update(task, completed=embedded + missing)
    people.catch_up()


def _status(people: Gallery) -> dict[str, Any]:
    store = people.store
    succession = store.successions.of(people.record)
    return _document(people, succession, store.successions.counts(people.record))


def _document(people: Gallery, succession: Succession, counts: SuccessionCounts) -> dict[str, Any]:
    return {
        "gallery": people.record.name,
        "old_model": people.record.model.name,
        "new_model": succession.model.name,
        "in_force": succession.model.name if succession.is_in_force else people.record.model.name,
        "templates": counts.templates,
        "embedded_templates": counts.embedded_templates,
        "identities": counts.identities,
        "left_behind": counts.identities - counts.embedded_identities,
        "can_compare": succession.scale is not None,
        "comparisons": {each.value: succession.comparisons.get(each.value, 0) for each in Agreement},
    }


def _print_status(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = Table(
        "", "", title=f"{found['gallery']}: from {found['old_model']} to {found['new_model']}", show_header=False
    )
    table.add_row("answers", found["in_force"])
    table.add_row("faces with a vector of the new model", f"{found['embedded_templates']} of {found['templates']}")
    table.add_row("people left behind, found by the old model", f"{found['left_behind']} of {found['identities']}")
    console = Console()
    console.print(table)
    compared = sum(found["comparisons"].values())
    if compared:
        agreements = Table("both models on live probes", "probes", "share")
        for kind, count in found["comparisons"].items():
            agreements.add_row(kind, str(count), f"{count / compared:.1%}")
        console.print(agreements)
    if "rates" in found:
        console.print(_rates_table(found["rates"]))


def _rates_table(rates: list[dict[str, Any]]) -> Table:
    table = Table(
        Column("model", no_wrap=True),
        "at",
        "threshold",
        "FPIR",
        "FNIR",
        title="On the gallery's own faces, with 95 % intervals",
    )
    for each in rates:
        fnir = "no second faces" if each["fnir"] is None else _shown(each["fnir"])
        table.add_row(each["model"], each["at"], f"{each['threshold']:.3f}", _shown(each["fpir"]), fnir)
    return table


def _shown(rate: tuple[float, float, float]) -> str:
    lower, estimate, upper = rate
    return f"{estimate:.2%} ({lower:.2%} to {upper:.2%})"
