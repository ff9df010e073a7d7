"""Small CSV files that say something about each person: which part she plays, which cohort she belongs to."""

from __future__ import annotations

import csv
import enum
from typing import TYPE_CHECKING

from facedex.indexer.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Role(enum.Enum):
    """Which part a person plays in a calibration."""

    ENROLLED = "enrolled"
    STRANGER = "stranger"


def read_roles(path: Path) -> dict[str, Role]:
    """Person → role, from a CSV with the columns person and role (enrolled or stranger).

    Raises:
        InvalidArgument: it has other columns, an unknown role, or a person twice.

    """
    return {person: _role(path, person, role) for person, role in _pairs(path, second="role")}


def read_cohorts(path: Path) -> dict[str, str]:
    """Person → cohort, from a CSV with the columns person and cohort.

    Raises:
        InvalidArgument: it has other columns, or a person twice.

    """
    return dict(_pairs(path, second="cohort"))


def _role(path: Path, person: str, role: str) -> Role:
    try:
        return Role(role)
    except ValueError:
        raise InvalidArgument(str(path), f"gives {person} the role {role!r}; write enrolled or stranger") from None


def _pairs(path: Path, *, second: str) -> Iterator[tuple[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            names = rows.fieldnames or ()
            if not {"person", second} <= set(names):
                raise InvalidArgument(
                    str(path), f"has the columns {', '.join(names) or '(none)'}; it needs person and {second}"
                )
            yield from _unique(path, ((row["person"] or "", row[second] or "") for row in rows))
    except (UnicodeDecodeError, csv.Error):
        raise InvalidArgument(str(path), "is no CSV file in UTF-8") from None


def _unique(path: Path, pairs: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    known: set[str] = set()
    for person, value in pairs:
        if not person or not value:
            raise InvalidArgument(str(path), "has a row with an empty field")
        if person in known:
            raise InvalidArgument(str(path), f"names {person} twice")
        known.add(person)
        yield person, value
