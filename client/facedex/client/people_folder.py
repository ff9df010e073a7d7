"""Photographs of people in a folder: a sub-folder a person, named after the person's id."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True, slots=True)
class PersonPhotograph:
    """A file that shows a person."""

    identity: str
    path: Path


def photographs_in(folder: Path) -> Sequence[PersonPhotograph]:
    """The photographs of each person, in order of the persons' ids. Hidden files and other formats are left out.

    Raises OSError where the folder cannot be read, or holds no person.
    """
    found = [PersonPhotograph(person.name, path) for person in _people(folder) for path in _photographs_of(person)]
    if not found:
        raise OSError(f"{folder}: no photographs; it needs a folder for each person, with the photographs in it")
    return found


def people_without_photographs(folder: Path) -> Sequence[Path]:
    """The folders of people that hold nothing to enrol. Raises OSError where a folder cannot be read."""
    return [person for person in _people(folder) if not _photographs_of(person)]


def _people(folder: Path) -> list[Path]:
    return sorted(person for person in folder.iterdir() if person.is_dir() and not person.name.startswith("."))


def _photographs_of(person: Path) -> list[Path]:
    return sorted(
        path for path in person.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
