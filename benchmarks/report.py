"""What a benchmark tells: bars with what was measured against them, and a JSON file."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from rich.console import Console
from rich.table import Table


class Side(Enum):
    """On which side of the bar a figure has to be."""

    AT_LEAST = "at least"
    AT_MOST = "at most"


@dataclass(frozen=True, slots=True)
class Bar:
    """A ratio that was promised, and the ratio that was measured."""

    what: str
    side: Side
    promised: float
    measured: float

    @property
    def is_met(self) -> bool:
        meets: Callable[[float, float], bool] = operator.ge if self.side is Side.AT_LEAST else operator.le
        return meets(self.measured, self.promised)


def grouped(number: int) -> str:
    """1 000 000 for a million."""
    return f"{number:,}".replace(",", " ")


def print_table(title: str, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """The first column tells what a row is, all others hold figures."""
    table = Table(title=title)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


def print_bars(bars: list[Bar]) -> None:
    """Each promise beside what was measured."""
    rows = [
        (bar.what, f"{bar.side.value} {bar.promised:g}", f"{bar.measured:.3g}", "yes" if bar.is_met else "NO")
        for bar in bars
    ]
    print_table("Bars", ("", "promised", "measured", "met"), rows)


def bars_as_json(bars: list[Bar]) -> list[dict[str, object]]:
    return [{**asdict(bar), "side": bar.side.value, "is_met": bar.is_met} for bar in bars]


def write_json(path: Path | None, document: dict[str, object]) -> None:
    """Nothing where no file was asked for."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
