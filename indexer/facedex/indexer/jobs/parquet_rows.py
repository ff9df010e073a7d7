"""Rows of a Parquet file, a batch at a time."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from facedex.indexer.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

ROWS_AT_ONCE = 1_024


def parquet_rows(
    file: Path, *, required: tuple[str, ...], columns: tuple[str, ...] | None = None
) -> Iterator[dict[str, Any]]:
    """Each row as a dictionary of these columns, or all.

    Raises:
        InvalidArgument: it is no Parquet file, or lacks a column.

    """
    with _opened(file) as parquet:
        names = parquet.schema_arrow.names
        missing = [name for name in required if name not in names]
        if missing:
            raise InvalidArgument(str(file), f"has no column {missing[0]}; it has {', '.join(names)}")
        for batch in parquet.iter_batches(ROWS_AT_ONCE, columns=columns):
            yield from batch.to_pylist()


@contextmanager
def _opened(file: Path) -> Generator[Any]:
    try:
        arrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise InvalidArgument(str(file), "needs pyarrow: pip install 'facedex[calibration]'") from None
    try:
        with parquet.ParquetFile(file) as opened:
            yield opened
    except (
        arrow.ArrowException,
        OSError,
        ValueError,
        OverflowError,
    ):  # texts that are none, moments that no calendar has
        raise InvalidArgument(str(file), "is no Parquet file that can be read") from None
