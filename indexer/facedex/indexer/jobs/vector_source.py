"""Vectors to enrol in bulk, as another system or an earlier run kept them."""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from tokenize import TokenError
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from facedex.indexer.enrolment import EnrolReason, VectorItem
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.jobs.bulk_item import BulkItem, ItemRefused, Survey, details_at
from facedex.indexer.jobs.parquet_rows import parquet_rows
from facedex.indexer.store.records import IdentityDetails

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

VECTORS, IDENTITIES = "vectors", "identities"
ROWS_AT_ONCE = 1_024
# More than any model makes; a file may claim anything.
MOST_ROW_BYTES = 2**17
# What a file that is no NPZ, or a damaged or encrypted one, makes its readers raise.
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TokenError,
    TypeError,
)


@dataclass(frozen=True, slots=True)
class VectorSource:
    """An NPZ or Parquet file with the columns vectors (a list a row) and identities; all vectors are of one model."""

    file: Path
    model_digest: str

    def survey(self) -> Survey:
        count = 0
        for count, identity in enumerate(self._identities(), start=1):
            self._details(count, identity)
        return Survey.of_file(self.file, count, self.model_digest)

    def items(self) -> Iterator[BulkItem]:
        for number, (identity, vector) in enumerate(self._rows(), start=1):
            yield BulkItem(f"row {number}", self._details(number, identity), partial(self._read, vector))

    def _details(self, number: int, identity: object) -> IdentityDetails:
        return details_at(f"{self.file}, row {number}", IdentityDetails("" if identity is None else str(identity)))

    def _read(self, vector: Any) -> VectorItem:
        try:
            return VectorItem(np.asarray(vector, np.float32), self.model_digest)
        except (TypeError, ValueError):
            raise ItemRefused(EnrolReason.VECTOR_INVALID, "it is no list of numbers") from None

    def _identities(self) -> Iterator[object]:
        if self._is_npz:
            with _opened_npz(self.file) as arrays:
                for part in _checked(arrays, self.file)[IDENTITIES].parts():
                    yield from part.tolist()
            return
        needed = (VECTORS, IDENTITIES)
        yield from (row[IDENTITIES] for row in parquet_rows(self.file, required=needed, columns=(IDENTITIES,)))

    @property
    def _is_npz(self) -> bool:
        return self.file.suffix.lower() == ".npz"

    def _rows(self) -> Iterator[tuple[object, object]]:
        if self._is_npz:
            yield from self._npz_rows()
            return
        for row in parquet_rows(self.file, required=(VECTORS, IDENTITIES)):
            yield row[IDENTITIES], row[VECTORS]

    def _npz_rows(self) -> Iterator[tuple[object, object]]:
        with _opened_npz(self.file) as arrays:
            vectors, identities = arrays[VECTORS], _checked(arrays, self.file)[IDENTITIES]
            for some_vectors, some_identities in zip(vectors.parts(), identities.parts(), strict=True):
                yield from zip(some_identities.tolist(), some_vectors, strict=True)


class _Array:
    """An array of an NPZ file that is read a part at a time; nothing in it is ever run."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, fortran, self._dtype = read(file)
        if fortran or self._dtype.hasobject or not self.shape:
            raise InvalidArgument(str(path), "holds an array that cannot be read a row at a time: save plain arrays")
        self._row_bytes = self._dtype.itemsize * math.prod(self.shape[1:])
        if not 0 < self._row_bytes <= MOST_ROW_BYTES:
            raise InvalidArgument(
                str(path), f"has rows of {self._row_bytes} bytes; from 1 to {MOST_ROW_BYTES} are read"
            )

    @property
    def length(self) -> int:
        return int(self.shape[0])

    def parts(self) -> Iterator[NDArray[Any]]:
        for start in range(0, self.length, ROWS_AT_ONCE):
            count = min(ROWS_AT_ONCE, self.length - start)
            content = self._file.read(count * self._row_bytes)
            if len(content) < count * self._row_bytes:
                raise InvalidArgument(str(self._path), "is damaged: an array ends early")
            yield np.frombuffer(content, self._dtype).reshape(count, *self.shape[1:])


def _checked(arrays: dict[str, _Array], path: Path) -> dict[str, _Array]:
    """The arrays, if each vector has one identity."""
    vectors, identities = arrays[VECTORS].shape, arrays[IDENTITIES].shape
    if len(vectors) != 2 or identities != vectors[:1]:
        raise InvalidArgument(str(path), f"{VECTORS} has shape {vectors}, {IDENTITIES} has {identities}")
    return arrays


@contextmanager
def _opened_npz(path: Path) -> Generator[dict[str, _Array]]:
    try:
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(f"{VECTORS}.npy") as vectors,
            archive.open(f"{IDENTITIES}.npy") as identities,
        ):
            yield {VECTORS: _Array(vectors, path), IDENTITIES: _Array(identities, path)}
    except KeyError:
        raise InvalidArgument(str(path), f"has no array {VECTORS}, or none {IDENTITIES}") from None
    except UNREADABLE:
        raise InvalidArgument(str(path), "is no NPZ file of plain arrays") from None
