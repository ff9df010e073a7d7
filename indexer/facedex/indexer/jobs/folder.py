"""A folder of photographs for each person."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from facedex.indexer.errors import InvalidArgument

# What people keep photographs in; other files of the folder are left alone, and counted.
PHOTOGRAPH_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True, slots=True)
class Photograph:
    """A file, and whom it shows."""

    identity_id: str
    path: Path


def photographs_of(folder: Path) -> list[Photograph]:
    """The photographs in a folder of folders, each named after the person whom its photographs show.

    What is hidden (`.thumbnails`, `._ada.jpg`) is left out.

    Raises:
        InvalidArgument: the folder is missing, or holds no folder with a photograph.

    """
    found = [Photograph(person.name, path) for person in _people(folder) for path in _files(person)]
    if not found:
        raise InvalidArgument("PEOPLE", f"{folder} holds no photographs; it needs a folder for each person")
    return found


def people_without_photographs(folder: Path) -> list[Path]:
    """The folders of people that hold no photograph. Raises InvalidArgument where the folder is missing."""
    return [person for person in _people(folder) if not _files(person)]


def _people(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InvalidArgument("PEOPLE", f"{folder} is no folder")
    return sorted(each for each in folder.iterdir() if each.is_dir() and not is_hidden(each.name))


def _files(person: Path) -> list[Path]:
    return sorted(
        each for each in person.iterdir() if each.suffix.lower() in PHOTOGRAPH_SUFFIXES and not is_hidden(each.name)
    )


def is_hidden(name: str) -> bool:
    """Whether a system or a program put a file or folder of this name there for itself."""
    return name.startswith(".")
