"""What is enrolled in bulk, one item after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from facedex.indexer.enrolment import EnrolItem
    from facedex.indexer.store.records import IdentityDetails


@dataclass(frozen=True, slots=True)
class BulkItem:
    """A photograph or vector, and whom it shows.

    place: what a report calls it, a path or the number of a row; no two of a source have the same.
    read: gives the photograph's bytes, or the vector. Raises OSError or InvalidArgument where that cannot be had.
    """

    place: str
    details: IdentityDetails
    read: Callable[[], EnrolItem]


class BulkSource(Protocol):
    """Gives its items always in the same order, so that an interrupted enrolment goes on by counting them.

    No more of them is held in memory than is being worked on, however many there are.
    """

    @property
    def name(self) -> str:
        """By which an interrupted enrolment is known again."""
        ...

    def count(self) -> int:
        """How many items there are."""
        ...

    def items(self) -> Iterator[BulkItem]:
        """Raises InvalidArgument, at the first item, where the source cannot be read at all."""
        ...
