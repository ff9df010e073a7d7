"""The command `facedex-index`: work on a data folder, also beside a running server."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from facedex.indexer import (
    archive_cli,
    audit_cli,
    calibration_cli,
    data_keys_cli,
    doctor_cli,
    enrol_cli,
    evaluation_cli,
    fsck_cli,
    jobs_cli,
    keys_cli,
    migrate_cli,
    models_cli,
    transforms_cli,
)
from facedex.indexer.cli_session import DATA_KEYS, MILVUS, TEMPLATE_SECRET, good_order, opened
from facedex.indexer.devices import DeviceChoice
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from facedex.indexer.galleries import Galleries
    from facedex.indexer.gallery import Gallery
    from facedex.indexer.store.records import OverdueIdentity

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Builds and tends galleries in a data folder, also while a server runs on it.",
)
app.add_typer(models_cli.app, name="models")
app.add_typer(migrate_cli.app, name="migrate")
app.add_typer(jobs_cli.app, name="jobs")
app.add_typer(keys_cli.app, name="keys")
app.add_typer(data_keys_cli.app, name="data-keys")
app.add_typer(transforms_cli.app, name="transforms")
app.add_typer(audit_cli.app, name="audit")
evaluation_cli.add_commands(app)
calibration_cli.add_commands(app)
doctor_cli.add_commands(app)
enrol_cli.add_commands(app)
archive_cli.add_commands(app)
fsck_cli.add_commands(app)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the galleries are and which models look at photographs."""

    folder: Path | None
    database: str | None
    detector: str
    embedder: str
    data_keys: str | None
    template_secret: Path | None
    milvus: str | None
    device: DeviceChoice

    @property
    def data(self) -> Path:
        # Asked for by a command that runs, not by the parser, so that a command's help needs no folder.
        if self.folder is None:
            raise typer.BadParameter(
                "name the folder of the database, before the command (facedex-index --data FOLDER …) or in FACEDEX_DATA",
                param_hint="--data",
            )
        return self.folder

    @property
    def database_url(self) -> str:
        return self.database or sqlite_url(self.data / "facedex.db")


@app.callback()
def program(  # noqa: PLR0913  (the options of all commands)
    context: typer.Context,
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="FACEDEX_DATA", help="Folder of the database and the added models; nearly every command needs it."
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(envvar="FACEDEX_DATABASE", help="postgresql://… instead of a SQLite file in the data folder."),
    ] = None,
    detector: Annotated[str, typer.Option(envvar="FACEDEX_DETECTOR", help="Finds faces.")] = BUILTIN_DETECTOR,
    embedder: Annotated[
        str, typer.Option(envvar="FACEDEX_EMBEDDER", help="Model of new galleries.")
    ] = BUILTIN_EMBEDDER,
    data_keys: Annotated[str | None, DATA_KEYS] = None,
    template_secret: Annotated[Path | None, TEMPLATE_SECRET] = None,
    milvus: Annotated[str | None, MILVUS] = None,
    device: Annotated[
        DeviceChoice, typer.Option(envvar="FACEDEX_DEVICE", help="What detects, embeds and searches.")
    ] = DeviceChoice.CPU,
) -> None:
    """Builds and tends galleries in a data folder, also while a server runs on it."""
    context.obj = Place(data, database, detector, embedder, data_keys, template_secret, milvus, device)


@app.command()
def rebuild(
    context: typer.Context,
    *,
    gallery: Annotated[str | None, typer.Option(help="Name of the gallery; all of them where none is named.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Builds the index anew from the database, here as a check and in every running server, which answers meanwhile.

    Which codes the vectors get is measured anew, too.
    """
    with _opened(context.obj) as galleries:
        names = [gallery] if gallery else list(galleries.store.revisions())
        rows = [_rebuilt(galleries.get(name)) for name in names]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(
        "gallery",
        "templates",
        "revision",
        "seconds",
        "how it is searched, and why so",
        title="Rebuilt from the database",
    )
    for row in rows:
        table.add_row(*(str(row[name]) for name in ("gallery", "templates", "revision", "seconds", "reason")))
    Console().print(table)


@app.command()
def sweep(
    context: typer.Context,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell who would be erased, and erase nobody.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Erases everybody whose time is over and whom no legal hold keeps, each with a receipt. Servers do so every minute."""
    with _opened(context.obj) as galleries:
        overdue = galleries.store.overdue_identities()
        receipts = [] if dry_run else _swept(galleries)
    if as_json:
        print(json.dumps(_sweep_document(overdue, receipts, dry_run=dry_run), indent=2))
        return
    _print_overdue("Held, and not erased", [each for each in overdue if each.hold_reason])
    _print_overdue("Would be erased" if dry_run else "Erased", [each for each in overdue if not each.hold_reason])
    print(f"erased {len(receipts)} identities; facedex erasures list shows the receipts")


def _swept(galleries: Galleries) -> list[str]:
    """Erases until nobody is left, and begins to remove the copies; a server on the folder ends that."""
    receipts: list[str] = []
    while erased := galleries.erase_expired():
        receipts += [each.receipt for each in erased]
    galleries.follow()
    galleries.forget_erased()
    return receipts


def _sweep_document(overdue: list[OverdueIdentity], receipts: list[str], *, dry_run: bool) -> dict[str, object]:
    rows = [
        {
            "gallery": each.gallery,
            "identity": each.external_id,
            "expired": each.expired_at.isoformat(),
            "templates": each.template_count,
            "hold_reason": each.hold_reason,
        }
        for each in overdue
    ]
    return {
        "dry_run": dry_run,
        "due": [row for row in rows if not row["hold_reason"]],
        "held": [row for row in rows if row["hold_reason"]],
        "receipts": [json.loads(each) for each in receipts],
    }


def _print_overdue(title: str, overdue: list[OverdueIdentity]) -> None:
    if not overdue:
        return
    table = Table("gallery", "identity", "expired (UTC)", "templates", "hold", title=title)
    for each in overdue:
        moment = f"{each.expired_at:%Y-%m-%d %H:%M}"
        table.add_row(each.gallery, Text(each.external_id), moment, str(each.template_count), Text(each.hold_reason))
    Console().print(table)


@app.command()
def encrypt(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Encrypts the faces that were enrolled before there were data keys. After an interruption, it goes on where it stopped."""
    with _opened(context.obj) as galleries:
        encryption = galleries.store.encryption
        total = encryption.count_open()
        count = _counted_with_progress(encryption.encrypt(), total=total)
        # What was there unencrypted must not stay in the log and in free space.
        is_clean = galleries.store.erasures.purge([]) if count else True
    if as_json:
        print(json.dumps({"encrypted": count, "remaining": total - count, "copies_gone": is_clean}))
        return
    print(f"encrypted {count} of {total} identities")
    if not is_clean:
        print("somebody reads the database now: run the command again to remove the last unencrypted copies")


def _counted_with_progress(done: Iterator[int], *, total: int) -> int:
    columns = (TextColumn("encrypting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("encrypting", total=total)
        return sum(1 for _ in progress.track(done, total=total, task_id=task))


def _rebuilt(gallery: Gallery) -> dict[str, object]:
    started = time.perf_counter()
    revision = gallery.request_rebuild()
    plan = gallery.search_plan
    return {
        "gallery": gallery.record.name,
        "templates": gallery.template_count,
        "revision": revision,
        "seconds": round(time.perf_counter() - started, 3),
        "bits_per_component": plan.bits_per_component,
        "operating_score": round(plan.operating_score, 6),
        "share_compared_exactly": round(plan.share_looked_at, 6),
        "reason": plan.reason,
    }


@contextmanager
def _opened(place: Place) -> Generator[Galleries]:
    with good_order(interrupted="stopped"), opened(place) as galleries:
        yield galleries


def main() -> None:
    app()
