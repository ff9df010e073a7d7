"""Bulk enrolment from a folder a person."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from facedex.indexer.enrolment import Enrol, EnrolOutcome, EnrolReason, EnrolResult, Finding
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.store.records import IdentityDetails

if TYPE_CHECKING:
    from collections.abc import Generator

    from facedex.indexer.enroller import Enroller

# What people keep photographs in; other files of the folder are left alone, and counted.
PHOTOGRAPH_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True, slots=True)
class Photograph:
    """A file, and whom it shows."""

    identity_id: str
    path: Path


@dataclass(frozen=True, slots=True)
class EnrolledPhotograph:
    """What became of one file."""

    photograph: Photograph
    result: EnrolResult


def photographs_of(folder: Path) -> list[Photograph]:
    """The photographs in a folder of folders, each named after the person whom its photographs show.

    Raises:
        InvalidArgument: the folder is missing, or holds no folder with a photograph.

    """
    if not folder.is_dir():
        raise InvalidArgument("PEOPLE", f"{folder} is no folder")
    people = sorted(each for each in folder.iterdir() if each.is_dir())
    found = [Photograph(person.name, path) for person in people for path in _files(person)]
    if not found:
        raise InvalidArgument("PEOPLE", f"{folder} holds no photographs; it needs a folder for each person")
    return found


def _files(person: Path) -> list[Path]:
    return sorted(each for each in person.iterdir() if each.suffix.lower() in PHOTOGRAPH_SUFFIXES)


class FolderEnrolment:
    """Enrols photographs on several threads, each in a transaction of its own.

    It resumes by itself: a photograph that its identity has already is not looked at again, so after an interruption the
    same call goes on where it stopped.
    """

    def __init__(self, enroller: Enroller, *, workers: int) -> None:
        self._enroller = enroller
        self._workers = workers
        self._stopping = threading.Event()

    def run(self, photographs: list[Photograph]) -> Generator[EnrolledPhotograph]:
        """Yields each file as it is done; to stop early, close the iterator: what is under way is finished."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="enrol") as pool:
            try:
                pending = [pool.submit(self._enrol, each) for each in photographs]
                for done in as_completed(pending):
                    enrolled = done.result()
                    if enrolled is not None:
                        yield enrolled
            finally:
                self._stopping.set()

    def _enrol(self, photograph: Photograph) -> EnrolledPhotograph | None:
        if self._stopping.is_set():
            return None
        try:
            content = photograph.path.read_bytes()
        except OSError as error:
            return EnrolledPhotograph(photograph, _unreadable(error))
        enrolment = self._enroller.enrol(Enrol(IdentityDetails(photograph.identity_id), (content,)))
        return EnrolledPhotograph(photograph, enrolment.results[0])


def _unreadable(error: OSError) -> EnrolResult:
    finding = Finding(EnrolReason.IMAGE_UNREADABLE, f"the file cannot be read: {error.strerror}")
    return EnrolResult(EnrolOutcome.REFUSED, refusals=(finding,))
