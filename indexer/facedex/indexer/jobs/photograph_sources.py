"""Photographs to enrol in bulk: a folder a person, a list, or a tar."""

from __future__ import annotations

import csv
import lzma
import tarfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from facedex.indexer.enrolment import EnrolReason
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.jobs.bulk_item import BulkItem, ItemRefused, Survey, details_at
from facedex.indexer.jobs.folder import PHOTOGRAPH_SUFFIXES, is_hidden, photographs_of
from facedex.indexer.jobs.parquet_rows import parquet_rows
from facedex.indexer.store.records import IdentityDetails

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

# What a file that is no tar, or a damaged one, makes its reader raise.
DAMAGED = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, zlib.error, lzma.LZMAError)
# A member that claims more is none: the reader would look for its end for ever.
MOST_MEMBER_BYTES = 2**36
PATH, IDENTITY, DISPLAY_NAME, CONSENT = "path", "identity", "display_name", "consent_reference"


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder of folders, each named after the person whom its photographs show."""

    folder: Path

    def survey(self) -> Survey:
        places = [item.place for item in self.items()]
        return Survey.of_parts([str(self.folder.resolve()), *places], len(places))

    def items(self) -> Iterator[BulkItem]:
        for each in photographs_of(self.folder):
            details = details_at(str(each.path.parent), IdentityDetails(each.identity_id))
            yield BulkItem(str(each.path), details, each.path.read_bytes)


@dataclass(frozen=True, slots=True)
class ListSource:
    """A CSV or Parquet file with a photograph a row.

    Columns: path (relative to the file's folder) and identity; display_name and consent_reference if wanted; every other
    column is an attribute, and an empty field is none.
    """

    file: Path

    def survey(self) -> Survey:
        return Survey.of_file(self.file, sum(1 for _ in self.items()))

    def items(self) -> Iterator[BulkItem]:
        for number, row in enumerate(self._rows(), start=1):
            if not row.get(PATH) or not row.get(IDENTITY):
                raise InvalidArgument(str(self.file), f"row {number} has no {PATH} or no {IDENTITY}")
            if "\0" in row[PATH]:
                raise InvalidArgument(str(self.file), f"row {number} has a {PATH} that no file can have")
            path = self.file.parent / row[PATH]
            details = details_at(f"{self.file}, row {number}", _details(row))
            yield BulkItem(f"{path} (row {number})", details, path.read_bytes)

    def _rows(self) -> Iterator[Mapping[str, str]]:
        if self.file.suffix.lower() == ".csv":
            return _csv_rows(self.file)
        rows = parquet_rows(self.file, required=(PATH, IDENTITY))
        return ({key: "" if value is None else str(value) for key, value in row.items()} for row in rows)


@dataclass(frozen=True, slots=True)
class TarSource:
    """A tar, compressed or not, of the same folders as a `FolderSource`: the last folder of a path names the person."""

    file: Path
    max_image_bytes: int

    def survey(self) -> Survey:
        with _opened_tar(self.file) as tar:
            return Survey.of_file(self.file, sum(1 for _ in self._portraits(tar)))

    def items(self) -> Iterator[BulkItem]:
        with _opened_tar(self.file) as tar:
            for place, details, member in self._portraits(tar):
                # A tar is read from front to end: what comes now cannot be fetched later.
                yield BulkItem(place, details, self._content(tar, member))

    def _portraits(self, tar: tarfile.TarFile) -> Iterator[tuple[str, IdentityDetails, tarfile.TarInfo]]:
        members = iter(tar)
        while (member := self._next(members)) is not None:
            path = PurePosixPath(member.name)
            is_photograph = member.isfile() and path.suffix.lower() in PHOTOGRAPH_SUFFIXES
            if is_photograph and path.parent.name and not (is_hidden(path.name) or is_hidden(path.parent.name)):
                place = f"{self.file}:{member.name}"
                yield place, details_at(place, IdentityDetails(path.parent.name)), member

    def _next(self, members: Iterator[tarfile.TarInfo]) -> tarfile.TarInfo | None:
        with _readable(self.file):
            member = next(members, None)
            if member is not None and not 0 <= member.size <= MOST_MEMBER_BYTES:
                raise tarfile.ReadError
            return member

    def _content(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], bytes]:
        if member.size > self.max_image_bytes:
            return partial(_too_large, member.size, self.max_image_bytes)
        with _readable(self.file):
            file = tar.extractfile(member)
            return partial(bytes, b"" if file is None else file.read())


@contextmanager
def _readable(tar: Path) -> Generator[None]:
    try:
        yield
    except DAMAGED:
        raise InvalidArgument(str(tar), "is damaged: it cannot be read to its end") from None


def _too_large(size: int, limit: int) -> bytes:
    raise ItemRefused(EnrolReason.IMAGE_UNREADABLE, f"the photograph has {size} bytes, {limit} are the most")


def _opened_tar(file: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(file, "r|*")  # closed by the caller's `with`
    except DAMAGED as error:
        raise InvalidArgument(str(file), f"is no tar that can be read: {error}") from None


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
