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
    columns: tuple[tuple[str, Callable[[Any], object] | None], ...]
    """What a row has values for, and what turns each into what the driver takes."""

    def parameters(self, row: Mapping[str, object]) -> tuple[object, ...] | dict[str, object]:
        if self.is_in_order:
            return tuple([row[name] if turned is None else turned(row[name]) for name, turned in self.columns])
        return {name: row[name] if turned is None else turned(row[name]) for name, turned in self.columns}


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
        names = compiled.positiontup or list(compiled.params)
        turned = [compiled.binds[each].type.dialect_impl(dialect).bind_processor(dialect) for each in names]
        text = _Text(str(compiled), bool(compiled.positional), tuple(zip(names, turned, strict=True)))
        self._texts[dialect.name] = text
        return text
