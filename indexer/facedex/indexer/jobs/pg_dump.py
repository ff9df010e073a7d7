"""Rows of a plain-format dump of PostgreSQL (`pg_dump --format=plain`), one after the other; nothing in it is ever run.

Where a dump has a row's data, and how it is escaped, is that of COPY's text format (PostgreSQL documentation, "COPY").
"""

from __future__ import annotations

import gzip
import re
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facedex.indexer.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from io import BufferedReader
    from pathlib import Path

    Opened = BufferedReader | gzip.GzipFile

NAME = rb'(?:"?\w+"?\.)?"?(\w+)"?'
COPY = re.compile(rb"COPY " + NAME + rb" \(([^)]*)\) FROM stdin;\s*")
INSERT = re.compile(rb"INSERT INTO " + NAME + rb"[ (]")
ENCODING = re.compile(rb"SET client_encoding = '([^']*)';\s*")
# Of pg_dump's other format, which is compressed and has its own reader.
ARCHIVE = b"PGDMP"
END, NULL = b"\\.", b"\\N"
# Rows without photographs are shorter: 4 096 components of a vector take 100 KB.
LINE_BYTES = 2**20
ESCAPE = re.compile(rb"\\(?:x([0-9A-Fa-f]{1,2})|([0-7]{1,3})|(.))", re.DOTALL)
LETTERS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Columns of a table, in the order in which they are given out, and the most bytes that one of its lines may have."""

    columns: tuple[str, ...]
    line_bytes: int = LINE_BYTES


@dataclass(frozen=True, slots=True)
class DumpRow:
    """One row. A value is None where it is NULL; of a row that is too long the last one is None, and `is_cut` says so."""

    table: str
    values: tuple[bytes | None, ...]
    is_cut: bool


def dump_rows(file: Path, wanted: Mapping[str, Wanted]) -> Iterator[DumpRow]:
    """The rows of these tables, in the order of the dump, with one line in memory at a time.

    Raises:
        InvalidArgument: it is no plain dump in UTF-8, ends early, or a table lacks a column.

    """
    with _opened(file) as lines:
        if lines.peek(len(ARCHIVE)).startswith(ARCHIVE):
            raise InvalidArgument(
                str(file), "is an archive: write it out with pg_restore --file=dump.sql, and take that"
            )
        yield from _Dump(file, lines, wanted).rows()


class _Lines:
    """Lines of bytes, whole or cut: what of a line is too long is read and dropped, a part at a time."""

    def __init__(self, file: Opened) -> None:
        self._file = file
        self.number = 0

    def next(self, most_bytes: int) -> tuple[bytes, bool]:
        """The next line without its end, and whether it was cut; empty bytes with no end at the end of the file."""
        line = self._file.readline(most_bytes)
        self.number += 1
        is_cut = len(line) == most_bytes and not line.endswith(b"\n")
        while is_cut and (rest := self._file.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
            pass
        return line, is_cut


class _Dump:
    def __init__(self, file: Path, opened: Opened, wanted: Mapping[str, Wanted]) -> None:
        self._file = file
        self._lines = _Lines(opened)
        self._wanted = wanted

    def rows(self) -> Iterator[DumpRow]:
        while True:
            line, is_cut = self._lines.next(LINE_BYTES)
            if not line:
                return
            if not is_cut:
                yield from self._of_statement(line)

    def _of_statement(self, line: bytes) -> Iterator[DumpRow]:
        encoding, insert, copy = ENCODING.match(line), INSERT.match(line), COPY.match(line)
        if encoding and encoding[1].upper() not in {b"UTF8", b"UTF-8"}:
            raise InvalidArgument(str(self._file), "is not in UTF-8: dump it with --encoding=UTF8")
        if insert and _text(insert[1]) in self._wanted:
            raise InvalidArgument(str(self._file), "was made with --inserts: dump it without")
        if copy:
            yield from self._of_table(_text(copy[1]), [each.strip(b' "') for each in copy[2].split(b",")])

    def _of_table(self, table: str, columns: Sequence[bytes]) -> Iterator[DumpRow]:
        wanted = self._wanted.get(table, Wanted((), LINE_BYTES))
        places = [self._place(table, columns, name) for name in wanted.columns]
        while True:
            line, is_cut = self._lines.next(wanted.line_bytes)
            if not line:
                raise InvalidArgument(str(self._file), f"ends in the middle of table {table}: it is not the whole dump")
            if line.rstrip(b"\r\n") == END:
                return
            if places:
                yield self._row(table, line, is_cut=is_cut, places=places, count=len(columns))

    def _place(self, table: str, columns: Sequence[bytes], name: str) -> int:
        try:
            return columns.index(name.encode())
        except ValueError:
            raise InvalidArgument(str(self._file), f"table {table} has no column {name}") from None

    def _row(self, table: str, line: bytes, *, is_cut: bool, places: Sequence[int], count: int) -> DumpRow:
        fields: list[bytes] = line.rstrip(b"\r\n").split(b"\t")
        if len(fields) != count:
            raise InvalidArgument(
                str(self._file),
                f"line {self._lines.number} has {len(fields)} fields, table {table} has {count} columns",
            )
        if is_cut:
            fields[-1] = NULL
        return DumpRow(table, tuple(_value(fields[place]) for place in places), is_cut)


def _value(field: bytes) -> bytes | None:
    if field == NULL:
        return None
    return ESCAPE.sub(_unescaped, field) if b"\\" in field else field


def _unescaped(match: re.Match[bytes]) -> bytes:
    hexadecimal, octal, letter = match.groups()
    if hexadecimal is not None:
        return bytes([int(hexadecimal, 16)])
    if octal is not None:
        return bytes([int(octal, 8) & 0xFF])
    return LETTERS.get(letter, letter)


def _text(name: bytes) -> str:
    return name.decode("ascii", "replace")


@contextmanager
def _opened(file: Path) -> Generator[Opened]:
    is_compressed = file.suffix.lower() == ".gz"
    try:
        with gzip.open(file, "rb") if is_compressed else file.open("rb") as opened:
            yield opened
    except (gzip.BadGzipFile, zlib.error, EOFError):
        raise InvalidArgument(str(file), "is damaged: it cannot be read to its end") from None
    except OSError as error:
        raise InvalidArgument(str(file), f"cannot be read: {error.strerror}") from None
