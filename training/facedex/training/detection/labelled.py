"""Photographs with the faces that a teacher finds on them, in one memory-mapped file and one of labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facedex.indexer.vision.findings import Findings, join
from facedex.indexer.vision.pipeline import unhurried
from facedex.indexer.vision.scan import Scan, shrink
from facedex.training.errors import DataUnusable, OfOtherData
from facedex.training.photographs import photographs_below, read_or_report
from facedex.training.progress import Observer

STORED_SIDE: Final = 320
"""Longer side of a stored photograph; larger ones are made smaller."""
_PIXELS, _LABELS = "photographs.raw", "photographs.npz"


@dataclass(frozen=True, slots=True)
class LabelledPhotograph:
    """pixels (height, width, 3) BGR, and the faces in its pixels."""

    pixels: NDArray[np.uint8]
    faces: Findings


@dataclass(frozen=True, slots=True)
class LabelledPhotographs:
    """Photographs with numbers from 0.

    pictures (n, 320, 320, 3), mapped; sizes (n, 2): height, width. The faces of number k are rows starts[k] to
    starts[k + 1] of `faces`.
    """

    pictures: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    starts: NDArray[np.int64]
    faces: Findings

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, number: int) -> LabelledPhotograph:
        height, width = self.sizes[number]
        rows = np.arange(self.starts[number], self.starts[number + 1])
        return LabelledPhotograph(self.pictures[number, :height, :width], self.faces.select(rows))


def open_labelled(folder: Path, source: Path) -> LabelledPhotographs | None:
    """What was labelled in a folder; None where that was not finished.

    Raises:
        OfOtherData: it is not of `source`.

    """
    if not (folder / _LABELS).exists():
        return None
    with np.load(folder / _LABELS, allow_pickle=False) as arrays:
        if str(arrays["source"]) != str(source.resolve()):
            raise OfOtherData(folder, was=str(arrays["source"]), wanted=source)
        faces = Findings(arrays["scores"], arrays["corners"], arrays["landmarks"])
        sizes, starts = arrays["sizes"], arrays["starts"]
    pictures = np.memmap(folder / _PIXELS, np.uint8, "r", shape=(len(sizes), STORED_SIDE, STORED_SIDE, 3))
    return LabelledPhotographs(pictures, sizes, starts, faces)


def label_photographs(photographs: Path, folder: Path, teacher: Scan, observer: Observer) -> LabelledPhotographs:
    """Looks at all photographs at any depth; what cannot be read is reported and left out.

    Raises:
        DataUnusable: no photograph can be read.

    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes: list[tuple[int, int]] = []
    found: list[Findings] = []
    with (folder / _PIXELS).open("wb") as file:
        for path in observer.track(photographs_below(photographs), "teacher"):
            original = read_or_report(path, observer)
            if original is not None:
                picture = shrink(original, min(1.0, STORED_SIDE / max(original.shape[:2])))
                sizes.append((picture.shape[0], picture.shape[1]))
                found.append(teacher.find(picture, shrunk_by=1, checkpoint=unhurried))
                file.write(_framed(picture).tobytes())
    if not found:
        raise DataUnusable(f"{photographs} holds no photograph that can be read")
    _write_labels(folder, photographs, sizes, found)
    written = open_labelled(folder, photographs)
    if written is None:
        raise DataUnusable(f"{folder} was emptied while it was written")
    return written


def _framed(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    down, right = STORED_SIDE - picture.shape[0], STORED_SIDE - picture.shape[1]
    return np.asarray(cv2.copyMakeBorder(picture, 0, down, 0, right, cv2.BORDER_CONSTANT), np.uint8)


def _write_labels(folder: Path, source: Path, sizes: list[tuple[int, int]], found: list[Findings]) -> None:
    """Last of all: without labels nothing was finished."""
    faces = join(found)
    starts = np.concatenate([[0], np.cumsum([len(each) for each in found])]).astype(np.int64)
    partial = folder / "photographs.part.npz"
    np.savez(
        partial,
        source=np.array(str(source.resolve())),
        sizes=np.array(sizes, np.int64),
        starts=starts,
        scores=faces.scores,
        corners=faces.corners,
        landmarks=faces.landmarks,
    )
    partial.replace(folder / _LABELS)
