"""Columns of a CSV, Parquet or NPZ file. Nothing that a file holds is ever run: no pickled objects."""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from facedex.indexer.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Columns:
    """Arrays of one length by name, as a file holds them; the first axis is the row."""

    path: Path
    arrays: dict[str, NDArray[Any]]

    def __post_init__(self) -> None:
        lengths = {len(values) for values in self.arrays.values()}
        if len(lengths) > 1:
            raise self.problem("holds columns of different lengths")
        if lengths <= {0}:
            raise self.problem("holds no row")

    def problem(self, text: str) -> InvalidArgument:
        return InvalidArgument(str(self.path), text)

    def require(self, names: Sequence[str]) -> None:
        """Raises InvalidArgument where a column is missing."""
        missing = [name for name in names if name not in self.arrays]
        if missing:
            present = ", ".join(sorted(self.arrays))
            raise self.problem(f"has no column {missing[0]}; it has {present}, and needs {', '.join(names)}")

    def texts(self, name: str) -> list[str]:
        """A column as text; an empty field is ''."""
        return ["" if value is None or value != value else str(value) for value in self.arrays[name].tolist()]  # noqa: PLR0124  (NaN)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column (n,) of numbers; an empty field is NaN."""
        values = [np.nan if value is None or value == "" else value for value in self.arrays[name].tolist()]
        try:
            return np.array([float(value) for value in values], np.float64)
        except (TypeError, ValueError):
            raise self.problem(f"column {name} holds something that is no number") from None


def read_columns(path: Path) -> Columns:
    """The columns of a file, by its ending.

    Raises:
        InvalidArgument: there is no such file, its ending is unknown, or it is not what its ending says.

    """
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".npz": _read_npz}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidArgument(str(path), "has an unknown ending; give a .csv, .parquet or .npz")
    if not path.is_file():
        raise InvalidArgument(str(path), "there is no such file")
    return Columns(path, reader(path))


def _read_csv(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (UnicodeDecodeError, csv.Error):
        raise InvalidArgument(str(path), "is no CSV file in UTF-8") from None
    uneven = next((number for number, row in enumerate(rows, start=2) if len(row) != len(header)), None)
    if uneven is not None:
        raise InvalidArgument(str(path), f"line {uneven} has another number of fields than the first line")
    return {name.strip(): np.array([row[place] for row in rows], np.str_) for place, name in enumerate(header)}


def _read_parquet(path: Path) -> dict[str, NDArray[Any]]:
    try:
        arrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise InvalidArgument(
            str(path), "needs pyarrow: pip install 'facedex[calibration]', or give a .csv or .npz"
        ) from None
    try:
        table = parquet.read_table(path)
    except (arrow.ArrowException, OSError):
        raise InvalidArgument(str(path), "is no Parquet file") from None
    return {name: _of_arrow(table.column(name)) for name in table.column_names}


def _of_arrow(column: Any) -> NDArray[Any]:
    """Lists of equal length become rows of a matrix."""
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    if values.dtype == object and len(values) and isinstance(values[0], np.ndarray):
        lengths = {np.shape(value) for value in values}
        return np.stack(list(values)) if len(lengths) == 1 else values
    return values


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except (TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile):  # a TypeError: it is a single array
        raise InvalidArgument(str(path), "is no NPZ file of plain arrays; pickled objects are not read") from None
    # A single number stands for a column of it, such as gallery_templates.
    rows = max((len(values) for values in arrays.values() if values.ndim), default=1)
    return {name: values if values.ndim else np.full(rows, values) for name, values in arrays.items()}
