"""Statements that are done often and with many rows, without what SQLAlchemy does anew for each row.

For a row of the audit that takes twice as long as the rest of it (docs/decisions/0605).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection, CursorResult, Dialect, Insert, Update


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement in the words of one database, and how its driver wants a row: by name or, if so, in order."""

    sql: str
    is_in_order: bool
    names: tuple[str, ...]
    turned: tuple[tuple[int, Callable[[Any], object]], ...]
    """Places among the names of what the driver does not take as it is, and what turns it into what it takes."""

    def parameters(self, row: Mapping[str, object]) -> tuple[object, ...] | dict[str, object]:
        values = [row[each] for each in self.names]
        for place, turn in self.turned:
            values[place] = turn(values[place])
        return tuple(values) if self.is_in_order else dict(zip(self.names, values, strict=True))


class Prepared:
    """A statement that is composed once for each kind of database. Each of its parameters is a name that rows have."""

    def __init__(self, statement: Insert | Update) -> None:
        self._statement = statement
        self._texts: dict[str, _Text] = {}

    def execute(self, connection: Connection, rows: Sequence[Mapping[str, object]]) -> CursorResult[Any]:
        """Does it for each row, of which there is at least one."""
        text = self._texts.get(connection.dialect.name) or self._composed(connection.dialect)
        parameters: Any = [text.parameters(each) for each in rows]
        return connection.exec_driver_sql(text.sql, parameters if len(rows) > 1 else parameters[0])

    def _composed(self, dialect: Dialect) -> _Text:
        compiled = self._statement.compile(dialect=dialect)
        names = tuple(compiled.positiontup or compiled.params)
        turns = [compiled.binds[each].type.dialect_impl(dialect).bind_processor(dialect) for each in names]
        turned = tuple((place, turn) for place, turn in enumerate(turns) if turn is not None)
        text = self._texts[dialect.name] = _Text(str(compiled), bool(compiled.positional), names, turned)
        return text
