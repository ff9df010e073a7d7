"""Photographs to enrol in bulk: a folder a person, a list, or a tar."""

from __future__ import annotations

import csv
import tarfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from facedex.indexer.errors import InvalidArgument
from facedex.indexer.jobs.bulk_item import BulkItem, Survey
from facedex.indexer.jobs.folder import PHOTOGRAPH_SUFFIXES
from facedex.indexer.jobs.parquet_rows import parquet_count, parquet_rows
from facedex.indexer.store.records import IdentityDetails

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PATH, IDENTITY, DISPLAY_NAME, CONSENT = "path", "identity", "display_name", "consent_reference"


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder of folders, each named after the person whom its photographs show."""

    folder: Path

    def survey(self) -> Survey:
        paths = [str(path) for _, path in self._photographs()]
        if not paths:
            raise InvalidArgument(str(self.folder), "holds no photographs; it needs a folder for each person")
        return Survey.of_parts([str(self.folder.resolve()), *paths], len(paths))

    def items(self) -> Iterator[BulkItem]:
        for person, path in self._photographs():
            yield BulkItem(str(path), IdentityDetails(person.name), path.read_bytes)

    def _photographs(self) -> Iterator[tuple[Path, Path]]:
        if not self.folder.is_dir():
            raise InvalidArgument(str(self.folder), "is no folder")
        for person in sorted(each for each in self.folder.iterdir() if each.is_dir()):
            for path in sorted(each for each in person.iterdir() if _is_photograph(each)):
                yield person, path


@dataclass(frozen=True, slots=True)
class ListSource:
    """A CSV or Parquet file with a photograph a row.

    Columns: path (relative to the file's folder) and identity; display_name and consent_reference if wanted; every other
    column is an attribute, and an empty field is none.
    """

    file: Path

    def survey(self) -> Survey:
        count = sum(1 for _ in _csv_rows(self.file)) if self._is_csv else parquet_count(self.file)
        return Survey.of_file(self.file, count)

    def items(self) -> Iterator[BulkItem]:
        for number, row in enumerate(self._rows(), start=1):
            if not row.get(PATH) or not row.get(IDENTITY):
                raise InvalidArgument(str(self.file), f"row {number} has no {PATH} or no {IDENTITY}")
            path = self.file.parent / row[PATH]
            yield BulkItem(f"{path} (row {number})", _details(row), path.read_bytes)

    @property
    def _is_csv(self) -> bool:
        return self.file.suffix.lower() == ".csv"

    def _rows(self) -> Iterator[Mapping[str, str]]:
        if self._is_csv:
            return _csv_rows(self.file)
        return (
            {key: "" if value is None else str(value) for key, value in row.items()} for row in parquet_rows(self.file)
        )


@dataclass(frozen=True, slots=True)
class TarSource:
    """A tar, compressed or not, of the same folders as a `FolderSource`: the last folder of a path names the person."""

    file: Path
    max_image_bytes: int

    def survey(self) -> Survey:
        with _opened_tar(self.file) as tar:
            count = sum(_is_portrait(member) for member in tar)
        return Survey.of_file(self.file, count)

    def items(self) -> Iterator[BulkItem]:
        with _opened_tar(self.file) as tar:
            for member in tar:
                if _is_portrait(member):
                    person = PurePosixPath(member.name).parent.name
                    # A tar is read from front to end: what comes now cannot be fetched later.
                    yield BulkItem(f"{self.file}:{member.name}", IdentityDetails(person), self._content(tar, member))

    def _content(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
        file = tar.extractfile(member)
        if file is None or member.size > self.max_image_bytes:
            return partial(_too_large, member.size, self.max_image_bytes)
        return partial(bytes, _whole(file, self.file))


def _too_large(size: int, limit: int) -> bytes:
    raise InvalidArgument("photograph", f"has {size} bytes, {limit} are the most")


def _whole(file: IO[bytes], tar: Path) -> bytes:
    try:
        return file.read()
    except (tarfile.TarError, OSError, EOFError):
        raise InvalidArgument(str(tar), "is damaged: it ends within a photograph") from None


def _opened_tar(file: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(file, "r|*")  # closed by the caller's `with`
    except (tarfile.TarError, OSError) as error:
        raise InvalidArgument(str(file), f"is no tar that can be read: {error}") from None


def _is_photograph(path: Path) -> bool:
    return path.suffix.lower() in PHOTOGRAPH_SUFFIXES


def _is_portrait(member: tarfile.TarInfo) -> bool:
    path = PurePosixPath(member.name)
    return member.isfile() and path.suffix.lower() in PHOTOGRAPH_SUFFIXES and bool(path.parent.name)


def _csv_rows(file: Path) -> Iterator[dict[str, str]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened, strict=True)
            _check_columns(file, reader.fieldnames or [])
            for row in reader:
                if None in row or None in row.values():
                    raise InvalidArgument(
                        str(file), f"line {reader.line_num} has another number of fields than the first line"
                    )
                yield row
    except (UnicodeDecodeError, csv.Error):
        raise InvalidArgument(str(file), "is no CSV file in UTF-8") from None
    except OSError as error:
        raise InvalidArgument(str(file), f"cannot be read: {error.strerror}") from None


def _check_columns(file: Path, names: list[str] | Any) -> None:
    missing = [name for name in (PATH, IDENTITY) if name not in names]
    if missing:
        raise InvalidArgument(str(file), f"has no column {missing[0]}; it has {', '.join(names)}")


def _details(row: Mapping[str, str]) -> IdentityDetails:
    attributes = {
        key: value for key, value in row.items() if value and key not in {PATH, IDENTITY, DISPLAY_NAME, CONSENT}
    }
    return IdentityDetails(
        row[IDENTITY],
        display_name=row.get(DISPLAY_NAME) or None,
        attributes=attributes or None,
        consent_reference=row.get(CONSENT) or None,
    )
