"""`facedex-index export`, `import` and `export-erasures`: a gallery as one file, and back."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facedex.indexer.archive.container import ArchiveReader
from facedex.indexer.archive.errors import PassphraseMissing
from facedex.indexer.archive.exporting import Exporter
from facedex.indexer.archive.importing import ArchiveImport, Counts
from facedex.indexer.archive.manifest import Kind
from facedex.indexer.cli_session import (
    INTERRUPTED,
    check_output,
    dealt_with,
    good_order,
    opened_anew,
    opened_store,
    progress_of,
    say,
)
from facedex.indexer.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from facedex.indexer.store.importing import PersonVerdict
    from facedex.indexer.store.store import Store

PASSPHRASE_VARIABLE = "FACEDEX_PASSPHRASE"  # noqa: S105  (the name of it)
EXPORT_HELP = (
    "Without a pass phrase, vectors and crops stand in the archive as they are, also where the database encrypts them: "
    f"whoever has the file can compare these people. With one ({PASSPHRASE_VARIABLE} counts too), the whole file is "
    "encrypted with AES-256-GCM under a key that scrypt makes; nobody reads it without the pass phrase, which stands nowhere."
)
IMPORT_HELP = (
    "Every digest is checked before anything is written. After an interruption, the same command goes on where it stopped; "
    "a second time, it changes nothing. Whoever was erased after the archive was made stays out: by the erasures that this "
    "database knows, and by those that --erasures files of the archive's own installation tell of, which are remembered. "
    "An import adds people and templates, and erases nobody; whoever is there already keeps what is known of them. "
    "Policy and certificates come along where the gallery is new."
)

PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="File whose first line is the pass phrase.")
]
AsksPassphrase = Annotated[bool, typer.Option("--ask-passphrase", help="Encrypt, and ask for the pass phrase.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the program."""
    app.command("export", epilog=EXPORT_HELP)(export)
    app.command("import", epilog=IMPORT_HELP)(import_archive)
    app.command("export-erasures")(export_erasures)


def export(
    context: typer.Context,
    gallery: Annotated[str, typer.Argument(help="Name of the gallery.")],
    archive: Annotated[Path, typer.Argument(help="The file to make: a ZIP file of Parquet files.")],
    *,
    person: Annotated[
        str | None, typer.Option(metavar="ID", help="This person alone, also in words that they can read.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AsksPassphrase = False,
    as_json: AsJson = False,
) -> None:
    """Writes a gallery as it is now into one file, to keep it or to take it elsewhere. Also beside a running server."""
    with good_order(), opened_store(context.obj) as store:
        check_output("ARCHIVE", archive)
        passphrase = _chosen_passphrase(passphrase_file, asks=ask_passphrase)
        exporter = Exporter(store, passphrase=passphrase)
        with progress_of("exporting") as report:
            if person is None:
                counts = exporter.gallery(gallery, archive, report).counts
            else:
                counts = exporter.person(gallery, person, archive).counts
    _tell_export(archive, counts, is_encrypted=passphrase is not None, as_json=as_json)


def export_erasures(
    context: typer.Context,
    archive: Annotated[Path, typer.Argument(help="The file to make.")],
    *,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AsksPassphrase = False,
    as_json: AsJson = False,
) -> None:
    """Writes who was erased, by numbers that name nobody, so that an archive made before brings them back nowhere."""
    with good_order(), opened_store(context.obj) as store:
        check_output("ARCHIVE", archive)
        passphrase = _chosen_passphrase(passphrase_file, asks=ask_passphrase)
        counts = Exporter(store, passphrase=passphrase).erasures(archive).counts
    _tell_export(archive, counts, is_encrypted=passphrase is not None, as_json=as_json)


def import_archive(
    context: typer.Context,
    archive: Annotated[Path, typer.Argument(help="A file of export or export-erasures.")],
    *,
    gallery: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Gallery to import into; else the one it had. Made where missing."),
    ] = None,
    erasures: Annotated[
        list[Path] | None,
        typer.Option(help="A later file of export-erasures or export, for who was erased since; may be repeated."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the file, tell what would happen.")] = False,
    as_json: AsJson = False,
) -> None:
    """Brings the people of an archive into a gallery, or back. Also beside a running server."""
    passphrase = Passphrase(passphrase_file)
    with good_order(interrupted="stopped; run the same command again to go on"), ExitStack() as files:
        readers = [files.enter_context(ArchiveReader.open(each, passphrase)) for each in (archive, *(erasures or ()))]
        store = files.enter_context(opened_anew(context.obj))
        work = ArchiveImport(store, readers[0], lists=readers[1:])
        with progress_of("checking") as report:
            work.check(report)
        if readers[0].manifest.kind is Kind.ERASURES:
            _tell_erasures(work, dry_run=dry_run, as_json=as_json)
            return
        name = gallery or work.origin.name
        summary = _rehearsed(work, name) if dry_run else _imported(work, store, name)
    _tell_import(summary, as_json=as_json)
    if summary.done < summary.total:
        raise typer.Exit(INTERRUPTED)


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of the people of an archive."""

    gallery: str
    total: int
    done: int
    counts: dict[str, int]
    is_rehearsal: bool = False


def _imported(work: ArchiveImport, store: Store, name: str) -> Summary:
    job = work.begin(name)
    total = work.total()
    if job.position:
        say(f"going on behind {job.position} of {total}")
    done = dealt_with("importing", work.run(job), total=total, done=job.position)
    return Summary(name, total, done, Counts.of(store.job(job.id).result).numbers)


def _rehearsed(work: ArchiveImport, name: str) -> Summary:
    counts = Counts.of(None)

    def watched() -> Generator[Sequence[PersonVerdict]]:
        nonlocal counts
        with closing(work.rehearse(name)) as groups:
            for group in groups:
                counts = counts.plus(group)
                yield group

    done = dealt_with("importing", watched(), total=work.total(), done=0)
    return Summary(name, work.total(), done, counts.numbers, is_rehearsal=True)


# The pass phrase


class Passphrase:
    """Of an encrypted archive: asked for once, and only where there is one to open."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def __call__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        given = _given_passphrase(self._file)
        if given is not None:
            return given
        if not sys.stdin.isatty():
            raise PassphraseMissing
        return str(typer.prompt("pass phrase", hide_input=True, err=True))


def _chosen_passphrase(file: Path | None, *, asks: bool) -> str | None:
    """That of a new archive; None: it is not encrypted."""
    given = _given_passphrase(file)
    if given is None and asks:
        return str(typer.prompt("pass phrase", hide_input=True, confirmation_prompt=True, err=True))
    return given


def _given_passphrase(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(PASSPHRASE_VARIABLE) or None
    try:
        first = file.read_text(encoding="utf-8").partition("\n")[0].removesuffix("\r")
    except UnicodeDecodeError:
        raise InvalidArgument("--passphrase-file", f"{file} is no text in UTF-8") from None
    if not first:
        raise InvalidArgument("--passphrase-file", f"the first line of {file} is empty")
    return first


# Results


def _tell_export(archive: Path, counts: dict[str, int], *, is_encrypted: bool, as_json: bool) -> None:
    if as_json:
        document = {"archive": str(archive), "bytes": archive.stat().st_size, "is_encrypted": is_encrypted, **counts}
        print(json.dumps(document, indent=2))
        return
    held = ", ".join(f"{count} {name}" for name, count in counts.items() if name != "unreadable") or "nothing"
    secrecy = "encrypted" if is_encrypted else "not encrypted: keep it like the faces themselves"
    print(f"{archive}: {held} ({secrecy})")
    if counts.get("unreadable"):
        print(f"{counts['unreadable']} people are not in it: their data keys are destroyed")


def _tell_erasures(work: ArchiveImport, *, dry_run: bool, as_json: bool) -> None:
    new = 0 if dry_run else work.remember_erasures()
    if as_json:
        print(json.dumps({"dry_run": dry_run, "erasures_new": new}, indent=2))
        return
    print("the list is whole" if dry_run else f"{new} erasures were not known, and are remembered for later imports")


def _tell_import(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        document = {
            "dry_run": summary.is_rehearsal,
            "gallery": summary.gallery,
            "people": summary.total,
            "done": summary.done,
            **summary.counts,
        }
        print(json.dumps(document, indent=2))
        return
    numbers = summary.counts
    print(
        f"{'would be: ' if summary.is_rehearsal else ''}{numbers['new']} new, {numbers['completed']} completed, "
        f"{numbers['unchanged']} unchanged of {summary.total} people in gallery {summary.gallery}, "
        f"with {numbers['new_templates']} new templates"
    )
    if numbers["erased"] or numbers["erased_templates"]:
        print(
            f"left out: {numbers['erased']} people and {numbers['erased_templates']} templates that were erased since"
        )
    if numbers["expired"]:
        print(f"left out: {numbers['expired']} people whose time is over")
