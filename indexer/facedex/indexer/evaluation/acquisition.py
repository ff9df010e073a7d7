"""From photographs to the faces that a picture or an evaluation is made of; what gives none is counted, never fatal."""

from __future__ import annotations

import enum
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from facedex.indexer.errors import InvalidArgument
from facedex.indexer.jobs.folder import PHOTOGRAPH_SUFFIXES, Photograph, is_hidden
from facedex.indexer.vision.errors import ImageRefused

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from facedex.indexer.vision.face import Quality
    from facedex.indexer.vision.pipeline import FacePipeline


class AcquisitionFailure(enum.Enum):
    """Why a photograph gives no probe and no template (failure to acquire, ISO/IEC 19795-1)."""

    UNREADABLE = "unreadable"
    NO_FACE = "no_face"


@dataclass(frozen=True, slots=True)
class AcquiredFace:
    """The largest face of a photograph: its unit vector (dimension,), its aligned crop (height, width, 3), BGR."""

    photograph: Photograph
    vector: NDArray[np.float32]
    crop: NDArray[np.uint8]
    quality: Quality


@dataclass(frozen=True, slots=True)
class NotAcquired:
    """A photograph that gave no face; `message` says what to do about it."""

    photograph: Photograph
    failure: AcquisitionFailure
    message: str


def acquire(
    pipeline: FacePipeline, photographs: Sequence[Photograph], *, workers: int
) -> Generator[AcquiredFace | NotAcquired]:
    """The largest face of each photograph, in their order, as they are done."""
    with ThreadPoolExecutor(workers, thread_name_prefix="acquire") as pool:
        yield from pool.map(partial(_acquire_one, pipeline), photographs)


def photographs_among(places: Sequence[Path]) -> dict[Path, tuple[Photograph, ...]]:
    """The photographs at each place, a file or a folder searched at any depth, each with whom it seems to show.

    Raises:
        InvalidArgument: a place is missing, or a folder holds no photograph.

    """
    below = Path(os.path.commonpath([place if place.is_dir() else place.parent for place in places]))
    return {
        place: tuple(Photograph(identity_of(path, below=below), path) for path in _files(place)) for place in places
    }


def identity_of(path: Path, *, below: Path) -> str:
    """Whom a photograph seems to show, by the names on its way: `jeff/3.jpg`, `woman/woman_hat/0.jpg`, `margot_2.jpg`.

    The first folder whose name begins that of something inside it; else the folder that the photograph is in; and without
    folders, the name of the file up to its first digit.
    """
    *folders, _ = path.relative_to(below).parts
    inner = [*folders[1:], path.stem]
    for place, folder in enumerate(folders):
        if any(name.startswith(folder) for name in inner[place:]):
            return folder
    return folders[-1] if folders else _without_number(path.stem) or path.parent.name


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise InvalidArgument("PHOTO", f"there is no file and no folder {place}")
    found = sorted(
        each
        for each in place.rglob("*")
        if each.suffix.lower() in PHOTOGRAPH_SUFFIXES and not any(map(is_hidden, each.relative_to(place).parts))
    )
    if not found:
        raise InvalidArgument("PHOTO", f"{place} holds no photographs; give photographs, or a folder of them")
    return found


def _without_number(stem: str) -> str:
    return re.split(r"\d", stem, maxsplit=1)[0].rstrip(" _-.(")


def _acquire_one(pipeline: FacePipeline, photograph: Photograph) -> AcquiredFace | NotAcquired:
    try:
        detection = pipeline.detect(photograph.path.read_bytes())
    except OSError as error:
        message = f"the file cannot be read: {error.strerror}"
        return NotAcquired(photograph, AcquisitionFailure.UNREADABLE, message)
    except ImageRefused as error:
        return NotAcquired(photograph, AcquisitionFailure.UNREADABLE, str(error))
    if not detection.faces:
        return NotAcquired(photograph, AcquisitionFailure.NO_FACE, "no face was found: take it out, or another picture")
    largest = detection.faces[0]
    return AcquiredFace(photograph, pipeline.embed([largest.crop])[0], largest.crop, largest.face.quality)
