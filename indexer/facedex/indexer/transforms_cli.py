"""`facedex-index transforms`: secret transforms of a gallery's vectors, which can be changed like a password."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from facedex.indexer.cli_session import dealt_with, good_order, opened_store, say
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.jobs.key_rotation import KeyRotation
from facedex.indexer.store.encryption import Encryption
from facedex.indexer.store.transforms import new_secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from facedex.indexer.store.encryption import TransformStatement
    from facedex.indexer.store.records import GalleryRecord

app = typer.Typer(
    help="Secret transforms of a gallery's vectors, which can be changed like a password.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
GalleryName = Annotated[str, typer.Argument(help="Name of the gallery.", show_default=False)]
UNFINISHED = 3
UNFINISHED_HELP = "Exit code 3: somebody was left as before; the counts say why."
OWNER_ONLY = 0o600


@app.command(name="make-secret")
def make_secret(file: Annotated[Path, typer.Argument(help="File to write.", show_default=False)]) -> None:
    """Writes a new secret for --template-secret, readable by its owner alone. Keep it apart from data and data keys."""
    with good_order():
        if file.exists():
            raise InvalidArgument(
                "FILE", f"{file} is there already, and a secret is never overwritten: name another one"
            )
        file.touch(OWNER_ONLY, exist_ok=False)
        file.write_text(f"{new_secret()}\n", "ascii")
    say(f"wrote {file}: who loses it loses every vector that is transformed with it, so keep a copy elsewhere")


@app.command()
def show(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Shows which galleries have a transform, and how many people are under it."""
    with good_order(), opened_store(context.obj) as store:
        statements = store.encryption.transform_statements()
    if as_json:
        print(json.dumps([asdict(each) | {"since": each.since.isoformat()} for each in statements], indent=2))
        return
    if not statements:
        print("no gallery has a transform")
        return
    table = Table("gallery", "vectors", "since", "people", "others still otherwise", title="Transforms")
    for each in statements:
        kind = "transformed" if each.has_transform else "as they are"
        table.add_row(each.gallery, kind, f"{each.since:%Y-%m-%d %H:%M} UTC", str(each.under_it), str(each.others))
    Console().print(table)


@app.command(epilog=UNFINISHED_HELP)
def renew(context: typer.Context, gallery: GalleryName, *, as_json: AsJson = False) -> None:
    """Gives a gallery a transform, or another one, beside running servers; each person gets a new data key with it.

    After an interruption, run it again: it goes on. The old transform stays until data-keys retire.
    """
    _change(context, gallery, Encryption.renew_transform, transformed=True, as_json=as_json)


@app.command(epilog=UNFINISHED_HELP)
def drop(context: typer.Context, gallery: GalleryName, *, as_json: AsJson = False) -> None:
    """Stores a gallery's vectors as they are again, under new data keys. After an interruption, run it again: it goes on."""
    _change(context, gallery, Encryption.drop_transform, transformed=False, as_json=as_json)


def _change(
    context: typer.Context,
    name: str,
    change: Callable[[Encryption, GalleryRecord], None],
    *,
    transformed: bool,
    as_json: bool,
) -> None:
    with good_order(interrupted="stopped; run the same command again to go on"), opened_store(context.obj) as store:
        rotation = KeyRotation(store)
        job = rotation.begin_in(store.gallery(name), partial(change, store.encryption))
        dealt_with("people", rotation.run(job), total=job.item_count, done=job.position)
        ended = store.job(job.id)
        (statement,) = [each for each in store.encryption.transform_statements() if each.gallery == name]
    _report(statement, ended.result or {}, as_json=as_json)
    if statement.has_transform is not transformed:
        say("that ended a change that was interrupted before; run the command again for this one")
    if statement.others or not ended.state.is_final or statement.has_transform is not transformed:
        raise typer.Exit(UNFINISHED)


def _report(statement: TransformStatement, counts: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"gallery": statement.gallery, "people": statement.under_it, **counts}, indent=2))
        return
    kind = "transformed" if statement.has_transform else "stored as they are"
    print(f"{statement.gallery}: the vectors of {statement.under_it} people are {kind}, {statement.others} are not")
    say("what was before stays readable until facedex-index data-keys retire: back up the database first")
