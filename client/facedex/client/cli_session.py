"""What every command shares: the connection, the options of one meaning, and the three ways to end."""

import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Annotated

import typer

from facedex.client.access import Tls
from facedex.client.client import Client
from facedex.client.errors import (
    FacedexError,
    MessageTooLargeError,
    NoFaceError,
    SeveralFacesError,
    UnreadableImageError,
)

ABOUT_ONE_PHOTOGRAPH = (UnreadableImageError, NoFaceError, SeveralFacesError, MessageTooLargeError, OSError)
"""Errors that say nothing against the next photograph."""


class ExitCode(IntEnum):
    """How a command ended. 2 is typer's own for wrong usage, 130 that of Ctrl-C."""

    DONE = 0
    ERROR = 1
    ANSWER_IS_NO = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """How the command gets in: an API key, and files that tell by what server and client are known."""

    api_key: str | None = field(default=None, repr=False)
    api_key_file: Path | None = None
    allow_unencrypted_key: bool = False
    use_tls: bool = False
    ca: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None

    def key(self) -> str | None:
        """Raises OSError where the file cannot be read."""
        text = self.api_key if self.api_key_file is None else self.api_key_file.read_text(errors="replace")
        return None if text is None else text.strip()

    def tls(self) -> Tls | None:
        """Raises OSError where a file cannot be read."""
        if not self.use_tls and self.ca is None and self.client_cert is None:
            return None
        ca, certificate, private_key = (_content(each) for each in (self.ca, self.client_cert, self.client_key))
        return Tls(ca=ca, certificate=certificate, private_key=private_key)


def _content(file: Path | None) -> bytes | None:
    return None if file is None else file.read_bytes()


@dataclass(frozen=True, slots=True)
class Session:
    """Which server to ask, and how long to wait for each answer."""

    server: str
    timeout_seconds: float
    entry: Entry = field(default_factory=Entry)


GalleryName = Annotated[str, typer.Argument(metavar="GALLERY", help="Name of the gallery.")]
IdentityId = Annotated[str, typer.Argument(metavar="IDENTITY", help="Your own id of the person.")]
Photograph = Annotated[Path, typer.Argument(metavar="PHOTO", help="A JPEG, PNG, WebP, BMP or TIFF file.")]
Photographs = Annotated[list[Path], typer.Argument(metavar="PHOTO…", help="JPEG, PNG, WebP, BMP or TIFF files.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, for programs.")]
Threshold = Annotated[
    float | None, typer.Option(min=-1, max=1, help="A cosine instead of the gallery's threshold.", show_default=False)
]
LargestFace = Annotated[bool, typer.Option("--largest", help="Take the largest face where there are several.")]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="KEY=VALUE",
        help="Only identities with this attribute. Several values of one key: any of them; several keys: all.",
        show_default=False,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@contextmanager
def connected(context: typer.Context) -> Generator[Client]:
    session: Session = context.obj
    entry = session.entry
    with Client.connect(
        session.server,
        api_key=entry.key(),
        tls=entry.tls(),
        allow_unencrypted_key=entry.allow_unencrypted_key,
        timeout_seconds=session.timeout_seconds,
    ) as client:
        yield client


def complain(message: str) -> None:
    typer.echo(f"facedex: {message}", err=True)


def spoken(error: FacedexError | OSError) -> str:
    """The error in one line for people."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def pairs(texts: Sequence[str] | None, *, option: str) -> list[tuple[str, str]]:
    """The KEY=VALUE texts of an option, parted. Raises typer.BadParameter, which is wrong usage."""
    parted = [text.partition("=") for text in texts or ()]
    for key, equals, _ in parted:
        if not key or not equals:
            raise typer.BadParameter(f"{key!r} is not KEY=VALUE", param_hint=option)
    return [(key, value) for key, _, value in parted]


def filters_of(texts: Sequence[str] | None) -> dict[str, list[str]]:
    filters: dict[str, list[str]] = {}
    for key, value in pairs(texts, option="--filter"):
        filters.setdefault(key, []).append(value)
    return filters


def confirm_erasing(what: str) -> None:
    """Asks, and ends the command where the answer is no. Without a terminal to ask at, says what to do."""
    if not sys.stdin.isatty():
        complain(f"{what} would be erased for ever; add --yes to do it")
        raise typer.Exit(ExitCode.ERROR)
    typer.confirm(f"Erase {what} for ever?", abort=True)
