"""Aligned faces in one memory-mapped file: however many there are, only those of a batch are in memory.

A crop shows a face as ArcFace networks expect it, with a margin around, so that it can still be turned, moved and zoomed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facedex.indexer.vision.alignment import ARCFACE_LANDMARKS, ARCFACE_SIDE, align, fit_similarity
from facedex.indexer.vision.face import Landmarks
from facedex.indexer.vision.manifest import Border
from facedex.indexer.vision.pipeline import prominence, unhurried
from facedex.indexer.vision.scan import Scan
from facedex.training.errors import DataUnusable, OfOtherData
from facedex.training.photographs import photographs_in, read_or_report
from facedex.training.progress import Observer

MARGIN_PX: Final = 16
SIDE: Final = ARCFACE_SIDE
STORED_SIDE: Final = SIDE + 2 * MARGIN_PX
UNLABELLED: Final = -1


def _with_margin(landmarks: Landmarks) -> Landmarks:
    left_eye, right_eye, nose, left_mouth, right_mouth = ((x + MARGIN_PX, y + MARGIN_PX) for x, y in landmarks)
    return left_eye, right_eye, nose, left_mouth, right_mouth


STORED_LANDMARKS: Final = _with_margin(ARCFACE_LANDMARKS)
_PIXELS, _LABELS = "crops.raw", "crops.json"


@dataclass(frozen=True, slots=True)
class Crops:
    """pictures (n, 144, 144, 3) BGR, mapped; identities (n,), from 0 without gaps, −1 where nobody knows who it is."""

    pictures: NDArray[np.uint8]
    identities: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.identities)

    @property
    def people(self) -> int:
        """How many persons have a name."""
        return int(self.identities.max(initial=UNLABELLED)) + 1


@dataclass(frozen=True, slots=True)
class _Source:
    path: Path
    person: str | None


def open_crops(folder: Path, source: Path) -> Crops | None:
    """The crops in a folder; None where none were finished.

    Raises:
        OfOtherData: they were not cut from `source`.

    """
    if not (folder / _LABELS).exists():
        return None
    labels = json.loads((folder / _LABELS).read_text(encoding="utf-8"))
    if labels["source"] != str(source.resolve()):
        raise OfOtherData(folder, was=labels["source"], wanted=source)
    identities = np.array(labels["identities"], np.int64)
    shape = (len(identities), STORED_SIDE, STORED_SIDE, 3)
    return Crops(np.memmap(folder / _PIXELS, np.uint8, "c", shape=shape), identities)


def cut_crops(photographs: Path, folder: Path, scan: Scan, observer: Observer) -> Crops:
    """The most prominent face of each photograph; those in a folder of their own show the person it is named after.

    What cannot be read, or shows no face, is reported to the observer and left out.

    Raises:
        DataUnusable: no photograph shows a face.

    """
    sources = _sources(photographs)
    names: dict[str, int] = {}

    def found() -> Iterator[tuple[NDArray[np.uint8], int]]:
        for source in observer.track(sources, "faces"):
            crop = _crop_or_report(source.path, scan, observer)
            if crop is not None:
                person = source.person
                yield crop, UNLABELLED if person is None else names.setdefault(person, len(names))

    return _write(folder, photographs, found())


def unpack_crops(archive: Path, folder: Path, observer: Observer) -> Crops:
    """The crops of an NPZ file: `buf`, encoded pictures of 144 × 144 after one another, `len`, their bytes, and `lab`.

    Raises:
        DataUnusable: the file holds something else.

    """
    try:
        with np.load(archive, allow_pickle=False) as arrays:
            buffer, lengths, identities = arrays["buf"], arrays["len"], arrays["lab"].astype(np.int64)
    except (OSError, ValueError, KeyError) as problem:
        raise DataUnusable(f"{archive} is no archive of crops: it needs the arrays buf, len and lab") from problem
    ends = lengths.astype(np.int64).cumsum()

    def unpacked() -> Iterator[tuple[NDArray[np.uint8], int]]:
        for row in observer.track(range(len(identities)), "crops"):
            picture = cv2.imdecode(buffer[ends[row] - lengths[row] : ends[row]], cv2.IMREAD_COLOR)
            if picture is None or picture.shape != (STORED_SIDE, STORED_SIDE, 3):
                observer.report(f"{archive}: crop {row} is damaged, and left out")
            else:
                yield np.asarray(picture, np.uint8), int(identities[row])

    return _write(folder, archive, unpacked())


def _sources(folder: Path) -> list[_Source]:
    if not folder.is_dir():
        raise DataUnusable(f"{folder} is no folder: give one with photographs, or with a folder for each person")
    people = sorted(each for each in folder.iterdir() if each.is_dir())
    named = [_Source(path, person.name) for person in people for path in photographs_in(person)]
    return [*named, *(_Source(path, None) for path in photographs_in(folder))]


def _crop_or_report(path: Path, scan: Scan, observer: Observer) -> NDArray[np.uint8] | None:
    picture = read_or_report(path, observer)
    if picture is None:
        return None
    crop = _most_prominent(picture, scan)
    if crop is None:
        observer.report(f"{path} is left out: no face was found")
    return crop


def _most_prominent(picture: NDArray[np.uint8], scan: Scan) -> NDArray[np.uint8] | None:
    found = scan.find(picture, shrunk_by=1, checkpoint=unhurried)
    if not len(found):
        return None
    row = int(prominence(found, picture.shape[1], picture.shape[0]).argmax())
    similarity = fit_similarity(found.points(row), STORED_LANDMARKS)
    return align(picture, similarity, size=(STORED_SIDE, STORED_SIDE), border=Border.REPLICATE)


def _write(folder: Path, source: Path, crops: Iterable[tuple[NDArray[np.uint8], int]]) -> Crops:
    """The labels come last: without them nothing was finished."""
    folder.mkdir(parents=True, exist_ok=True)
    identities: list[int] = []
    with (folder / _PIXELS).open("wb") as file:
        for picture, identity in crops:
            file.write(np.ascontiguousarray(picture).tobytes())
            identities.append(identity)
    if not identities:
        raise DataUnusable("there is no face to learn from: no photograph could be read and shows one")
    partial = folder / f"{_LABELS}.part"
    partial.write_text(json.dumps({"source": str(source.resolve()), "identities": identities}), encoding="utf-8")
    partial.replace(folder / _LABELS)
    written = open_crops(folder, source)
    if written is None:
        raise DataUnusable(f"{folder} was emptied while it was written")
    return written
