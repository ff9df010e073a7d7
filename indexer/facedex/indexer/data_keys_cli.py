"""`facedex-index data-keys`: what the keys of encrypted faces seal, and new ones for everybody."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from facedex.indexer.cli_session import dealt_with, good_order, opened_store, say
from facedex.indexer.jobs.key_rotation import KeyRotation

if TYPE_CHECKING:
    from facedex.indexer.store.encrypting import SealedRows
    from facedex.indexer.store.encryption import KeyStatement

app = typer.Typer(help="The keys of encrypted faces: what they seal, and new ones for everybody.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
UNFINISHED = 3


@app.command()
def show(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Shows how much is sealed under keys in use, and under those that a rotation replaced."""
    with good_order(), opened_store(context.obj) as store:
        statement = store.encryption.statement()
    if as_json:
        oldest = None if statement.oldest_at is None else statement.oldest_at.isoformat()
        print(json.dumps(asdict(statement) | {"oldest_at": oldest}, indent=2))
        return
    table = Table("data keys", "keys", "people", "vectors", "crops", title="What they seal")
    for row in _rows(statement):
        table.add_row(*row)
    Console().print(table)
    for line in _remarks(statement):
        print(line)


@app.command(epilog="Exit code 3: somebody was left under an old key; the counts say why.")
def rotate(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Puts every face under a new key, beside running servers. After an interruption, run it again: it goes on.

    The old keys stay until data-keys retire.
    """
    with good_order(interrupted="stopped; run the same command again to go on"), opened_store(context.obj) as store:
        rotation = KeyRotation(store)
        job = rotation.begin()
        dealt_with("new keys", rotation.run(job), total=job.item_count, done=job.position)
        ended = store.job(job.id)
        statement = store.encryption.statement()
    counts = ended.result or {}
    if as_json:
        print(
            json.dumps(
                {"job": ended.id, "state": ended.state.value, **counts, "replaced": statement.replaced}, indent=2
            )
        )
    else:
        print(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "nobody is encrypted")
        say(f"job {ended.id} is {ended.state.value}; {statement.replaced} replaced keys are left: back up the database")
        say("now, then destroy them with facedex-index data-keys retire")
    if not ended.state.is_final or statement.replaced_seal.identities:
        raise typer.Exit(UNFINISHED)


@app.command(epilog="Exit code 3: some keys were kept, since somebody is still under them.")
def retire(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Destroys the keys that a rotation replaced. What is still under one keeps it.

    Backups of the database that were made before the rotation cannot be read from then on. Snapshots of indexes are
    built anew.
    """
    with good_order(), opened_store(context.obj) as store:
        retired = store.encryption.retire()
    if as_json:
        print(json.dumps(asdict(retired), indent=2))
    else:
        print(f"{retired.destroyed} replaced keys destroyed, {retired.kept} kept")
    if retired.kept:
        say("somebody is still under those that were kept: run facedex-index data-keys rotate")
        raise typer.Exit(UNFINISHED)


def _rows(statement: KeyStatement) -> list[tuple[str, ...]]:
    return [
        ("in use", str(statement.in_use), *_counts(statement.sealed)),
        ("replaced, not retired", str(statement.replaced), *_counts(statement.replaced_seal)),
        ("nobody's", str(statement.unnamed), "0", "0", "0"),
    ]


def _counts(rows: SealedRows) -> tuple[str, str, str]:
    return str(rows.identities), str(rows.vectors), str(rows.crops)


def _remarks(statement: KeyStatement) -> list[str]:
    remarks: list[str] = []
    if statement.oldest_at is not None:
        remarks.append(f"the oldest key in use is of {statement.oldest_at:%Y-%m-%d %H:%M} UTC")
    if statement.open:
        remarks.append(f"{statement.open} people are not encrypted: run facedex-index encrypt")
    if statement.unnamed:
        remarks.append(
            f"{statement.unnamed} keys are nobody's: made ahead and not used; a start of a later day destroys them"
        )
    if statement.unreadable:
        remarks.append(f"{statement.unreadable} people cannot be read: their keys are gone")
    return remarks
