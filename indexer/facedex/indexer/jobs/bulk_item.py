"""What is enrolled in bulk, one item after the other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from facedex.indexer.errors import InvalidArgument
from facedex.indexer.texts import checked_details

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from facedex.indexer.enrolment import EnrolItem, EnrolReason
    from facedex.indexer.store.records import IdentityDetails


class ItemRefused(InvalidArgument):
    """An item cannot be had, and `why` says so in the words of a report."""

    def __init__(self, why: EnrolReason, problem: str) -> None:
        super().__init__("item", problem)
        self.why = why


@dataclass(frozen=True, slots=True)
class BulkItem:
    """A photograph or vector, and whom it shows.

    place: what a report calls it, a path or the number of a row; no two of a source have the same.
    read: gives the photograph's bytes, or the vector. Raises OSError or ItemRefused where that cannot be had.
    """

    place: str
    details: IdentityDetails
    read: Callable[[], EnrolItem]

    def without_content(self) -> BulkItem:
        """What a report needs of it."""
        return replace(self, read=_nothing)


def _nothing() -> EnrolItem:
    raise AssertionError("it was looked at already")


@dataclass(frozen=True, slots=True)
class Survey:
    """Number of items of a source, and a digest that another content of the source would not have."""

    count: int
    digest: str

    @classmethod
    def of_file(cls, file: Path, count: int, *about: str) -> Survey:
        """Of a file that is known by its path, size and time of change. Raises InvalidArgument where nobody is in it."""
        if not count:
            raise InvalidArgument(str(file), "names nobody: there is nothing to enrol")
        status = file.stat()
        return cls.of_parts([str(file.resolve()), str(status.st_size), str(status.st_mtime_ns), *about], count)

    @classmethod
    def of_parts(cls, parts: Iterable[str], count: int) -> Survey:
        return cls(count, hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest())


def details_at(place: str, details: IdentityDetails) -> IdentityDetails:
    """The details, if the store takes them; the error names the place."""
    try:
        return checked_details(details)
    except InvalidArgument as error:
        raise InvalidArgument(place, str(error)) from None


class BulkSource(Protocol):
    """Gives its items always in the same order, so that an interrupted enrolment goes on by counting them.

    No more of them is held in memory than is being worked on, however many there are.
    """

    def survey(self) -> Survey:
        """What an interrupted enrolment is known again by; quick, beside enrolling.

        Raises:
            InvalidArgument: the source cannot be read, or names somebody by what is no name.

        """
        ...

    def items(self) -> Iterator[BulkItem]:
        """Raises InvalidArgument, at the first item, where the source cannot be read at all."""
        ...
