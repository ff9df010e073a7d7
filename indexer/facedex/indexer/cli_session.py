"""What the commands of `facedex-index` share: the galleries of a data folder, progress, and how they end."""

import os
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Protocol

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from facedex.indexer.assembly import assemble_galleries, make_data_folder
from facedex.indexer.devices import DeviceChoice, Devices, TorchHardware, chosen_devices
from facedex.indexer.errors import IndexerError, InvalidArgument
from facedex.indexer.failpoints import fail_point
from facedex.indexer.galleries import Galleries
from facedex.indexer.store.engine import sqlite_url
from facedex.indexer.store.store import Store
from facedex.indexer.store.vault import Vault
from facedex.indexer.vision.decode import ImageLimits
from facedex.indexer.vision.errors import VisionError
from facedex.indexer.vision.workbench import available_cores

FAILED = 1
INTERRUPTED = 130


# What the server has too.
DATA_KEYS: Final = typer.Option(
    envvar="FACEDEX_DATA_KEYS",
    metavar="DIR_OR_URL",
    help="Encrypt faces, each person's under a key of their own, kept there.",
)
TEMPLATE_SECRET: Final = typer.Option(
    envvar="FACEDEX_TEMPLATE_SECRET",
    metavar="FILE",
    help="Secret of galleries whose vectors are transformed (facedex-index transforms).",
)
MILVUS: Final = typer.Option(
    envvar="FACEDEX_MILVUS",
    metavar="ADDRESS",
    help="http://HOST:19530 of a Milvus that holds and searches vectors, or a file for Milvus Lite.",
)
ENGINE: Final = typer.Option(help="What looks at the photographs: threads here, or the workers of a Ray.")
RAY_ADDRESS: Final = typer.Option(
    envvar="RAY_ADDRESS",
    metavar="HOST:PORT",
    help="The Ray that runs already, for --engine ray; without it, one is started on this machine.",
)


class HasGalleries(Protocol):
    """What the program's callback leaves in the context: where the galleries are, and which models are meant."""

    @property
    def data(self) -> Path: ...
    @property
    def database_url(self) -> str: ...
    @property
    def detector(self) -> str: ...
    @property
    def embedder(self) -> str: ...
    @property
    def data_keys(self) -> str | None: ...
    @property
    def template_secret(self) -> Path | None: ...
    @property
    def milvus(self) -> str | None: ...
    @property
    def device(self) -> DeviceChoice: ...


class ReportsShare(Protocol):
    """Is told how much of the work is done, 0 to 1."""

    def __call__(self, share: float, /) -> None: ...


def say(line: str) -> None:
    """One line for people, out of the way of what programs read."""
    Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)


def check_output(option: str, file: Path | None, *, kinds: tuple[str, ...] = ()) -> None:
    """Before the work, so that it is not done for nothing.

    Raises:
        InvalidArgument: the file has no folder to be in, is a folder itself, or is of none of these kinds (`.png`).

    """
    if file is None:
        return
    if kinds and file.suffix.lower() not in kinds:
        raise InvalidArgument(option, f"{file} has to end with {' or '.join(kinds)}")
    if file.is_dir():
        raise InvalidArgument(option, f"{file} is a folder; name the file to write")
    if not file.parent.is_dir():
        raise InvalidArgument(option, f"there is no folder {file.parent} to write {file.name} into")


@contextmanager
def opened_store(place: HasGalleries) -> Generator[Store]:
    """The store of a data folder, with its journal of erasures and its data keys."""
    if not place.data.is_dir():
        raise InvalidArgument("--data", f"there is no folder {place.data}")
    with (
        closing(Vault.open(place.data, place.data_keys, place.template_secret)) as vault,
        closing(Store.open(place.database_url, reached=fail_point(os.environ), vault=vault)) as store,
    ):
        yield store


@contextmanager
def opened_anew(place: HasGalleries) -> Generator[Store]:
    """The same of a data folder that may not be there yet: a server beyond this machine needs a key before its first start."""
    make_data_folder(place.data)
    with opened_store(place) as store:
        yield store


@contextmanager
def opened(place: HasGalleries) -> Generator[Galleries]:
    """The galleries of a data folder, which is made where there is none."""
    devices = _devices(place)
    with opened_anew(place) as store:
        yield _assembled(place, store, place.data, devices, milvus=place.milvus)


@contextmanager
def opened_for_a_rehearsal(place: HasGalleries) -> Generator[Galleries]:
    """No galleries at all, with the models of a data folder; those that are made are forgotten."""
    devices = _devices(place)
    with (
        TemporaryDirectory(prefix="facedex-") as folder,
        closing(Store.open(sqlite_url(Path(folder) / "facedex.db"))) as store,
    ):
        yield _assembled(place, store, Path(folder), devices)


def _devices(place: HasGalleries) -> Devices:
    devices = chosen_devices(place.device, TorchHardware())
    if place.device is DeviceChoice.AUTO:
        say(f"device: {devices}")
    return devices


def _assembled(
    place: HasGalleries, store: Store, data: Path, devices: Devices, *, milvus: str | None = None
) -> Galleries:
    return assemble_galleries(
        store,
        data=data,
        models=place.data / "models",
        detector=place.detector,
        embedder=place.embedder,
        limits=ImageLimits(),
        workers=available_cores(),
        devices=devices,
        milvus=milvus,
    )


@contextmanager
def good_order(*, interrupted: str = "stopped; nothing was kept") -> Generator[None]:
    """An error of ours becomes one line and exit code 1; so does Ctrl-C, with exit code 130."""
    try:
        yield
    except (IndexerError, VisionError, OSError) as error:
        say(f"facedex-index: {error}")
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        say(interrupted)
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def progress_of(description: str) -> Generator[ReportsShare]:
    """A bar that goes away when the work is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=1.0)
        yield lambda share: progress.update(task, completed=share)


def dealt_with(doing: str, groups: Generator[Sequence[object]], *, total: int, done: int) -> int:
    """How many items are dealt with, behind `done`, with a bar that says what is done.

    At Ctrl-C, the group under way is written wholly or not at all; the next run goes on.
    """
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress, closing(groups):
        task = progress.add_task(doing, total=total, completed=done)
        try:
            for group in groups:
                done += len(group)
                progress.advance(task, len(group))
        except KeyboardInterrupt:
            progress.console.print("stopping; run the same command again to go on")
    return done


class _Rate(ProgressColumn):
    """Items a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.0f}/s")
