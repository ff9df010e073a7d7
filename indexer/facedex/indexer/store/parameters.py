"""How many values one statement carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# SQLite takes 32 766 parameters in a statement, PostgreSQL 65 535.
MAX_PARAMETERS = 10_000

Value = TypeVar("Value")


def in_parts(values: Iterable[Value]) -> Iterator[list[Value]]:
    """The values in their order, in lists that one statement takes."""
    wanted = list(values)
    for start in range(0, len(wanted), MAX_PARAMETERS):
        yield wanted[start : start + MAX_PARAMETERS]
