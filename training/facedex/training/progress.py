"""Who is told how far training is, and what was left out."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")


class Observer(Protocol):
    """Is told what happens; it decides nothing."""

    def track(self, items: Sequence[Item], what: str) -> Iterator[Item]:
        """The items, one by one, as work goes through them."""
        ...

    def steps(self, total: int, done: int) -> None:
        """Training begins, or goes on after so many steps."""
        ...

    def stepped(self, done: int, figures: Mapping[str, float]) -> None:
        """A step was made; the figures are means since the last ones, and empty between."""
        ...

    def report(self, line: str) -> None:
        """Something that a person should know."""
        ...


class Silence:
    """Nobody is told; what was reported is kept."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def track(self, items: Sequence[Item], what: str) -> Iterator[Item]:
        del what
        yield from items

    def steps(self, total: int, done: int) -> None:
        del total, done

    def stepped(self, done: int, figures: Mapping[str, float]) -> None:
        del done, figures

    def report(self, line: str) -> None:
        self.lines.append(line)


class Bars:
    """A progress bar for each kind of work, and lines above them."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._training = progress.add_task("training", visible=False)

    @staticmethod
    @contextmanager
    def shown() -> Generator[Bars]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            yield Bars(progress)

    def track(self, items: Sequence[Item], what: str) -> Iterator[Item]:
        yield from self._progress.track(items, description=what)

    def steps(self, total: int, done: int) -> None:
        self._progress.update(self._training, total=total, completed=done, visible=True)

    def stepped(self, done: int, figures: Mapping[str, float]) -> None:
        self._progress.update(self._training, completed=done)
        if figures:
            line = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
            self._progress.update(self._training, description=f"training  {line}")

    def report(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
