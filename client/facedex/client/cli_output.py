"""How commands show what they found: tables for people, JSON for programs."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from facedex.client.faces import Box, Vector
from facedex.client.identification import Decision

STYLES = {Decision.MATCH: "bold green", Decision.REVIEW: "bold yellow", Decision.NO_MATCH: "dim"}


def print_json(record: object, **also: object) -> None:
    """Prints one line: the fields of the record by name, after what else there is to say."""
    typer.echo(json.dumps({**also, **_as_object(record)}, ensure_ascii=False, allow_nan=False))


def print_table(table: Table) -> None:
    Console().print(table)


def print_line(text: str) -> None:
    typer.echo(printable(text))


def new_table(*columns: str, right: Iterable[str] = ()) -> Table:
    """A table with these columns, those named in `right` flush right. Long names are folded, never cut."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in set(right) else "left", overflow="fold")
    return table


def details(rows: Mapping[str, object]) -> Table:
    """One thing, a line for each of its properties."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(cell(name, style="dim"), cell(value))
    return table


def cell(value: object, *, style: str = "") -> Text:
    """Text as it is: names that people chose are no markup and move no cursor."""
    return Text(printable(str(value)), style=style)


def printable(text: str) -> str:
    return "".join(character if character.isprintable() else "�" for character in text)


def counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def decision_cell(decision: Decision) -> Text:
    return cell(decision.value, style=STYLES.get(decision, ""))


def box_text(box: Box | None) -> str:
    """Size and place in pixels, as geometries are written under X: 120×140+30+25."""
    return f"{box.width:.0f}×{box.height:.0f}{box.x:+.0f}{box.y:+.0f}" if box else ""


def moment_text(moment: datetime | None, *, absent: str = "") -> str:
    """The moment in UTC, to the minute."""
    return f"{moment:%Y-%m-%d %H:%M}" if moment else absent


def days_text(period: timedelta | None) -> str:
    return f"{period / timedelta(days=1):g} days" if period else "until deleted"


def _as_object(value: object) -> dict[str, object]:
    converted = _plain(value)
    return converted if isinstance(converted, dict) else {"value": converted}


def _plain(value: object) -> object:  # noqa: PLR0911 - one line for each kind of value that JSON lacks
    if isinstance(value, Vector):
        return {"values": value.to_floats(), "model_digest": value.model_digest}
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, float):
        return round(value, 6)  # the wire has float32: 0.9 would read 0.8999999761581421
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
