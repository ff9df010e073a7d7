"""What a detector takes for faces, right or wrong, as crops in one memory-mapped file, and what a teacher says to each.

A crop shows a finding upright, by the detector's own landmarks, with a margin, so that it can still be turned and moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facedex.indexer.vision.alignment import ARCFACE_LANDMARKS, ARCFACE_SIDE, align, fit_similarity
from facedex.indexer.vision.face import Landmarks
from facedex.indexer.vision.findings import Findings
from facedex.indexer.vision.manifest import Border
from facedex.indexer.vision.scan import Scan
from facedex.training.crops import Crops
from facedex.training.errors import DataUnusable, OfOtherData
from facedex.training.held_out import SAME_FACE, overlap
from facedex.training.photographs import photographs_below, read_or_report
from facedex.training.progress import Observer
from facedex.training.refinement.agreement import agreed_faces, look
from facedex.training.refinement.network import SIDE

VIEW_PX: Final = 128
"""What a view shows, in pixels of an ArcFace crop of 112: the face and what is around it."""
STORED_PX: Final = 192
STORED_SIDE: Final = 96
_NOT_A_FACE: Final = 0.25
_LEAST_SURE: Final = 0.6
_LEAST_SIDE_PX: Final = 9.0
_FRAME_PX: Final = 53
_PIXELS, _LABELS = "looks.raw", "looks.npz"


@dataclass(frozen=True, slots=True)
class Looks:
    """Findings, right and wrong.

    pictures (n, 96, 96, 3) BGR, mapped; is_face (n,); landmarks (n, 5, 2) and the face's side (n,), in pixels of the picture.
    """

    pictures: NDArray[np.uint8]
    is_face: NDArray[np.bool_]
    landmarks: NDArray[np.float32]
    sides: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.is_face)


@dataclass(frozen=True, slots=True)
class _Look:
    """Without landmarks it is no face."""

    picture: NDArray[np.uint8]
    landmarks: NDArray[np.float32] | None = None
    side: float = 0.0


_NOWHERE: Final = np.zeros((5, 2), np.float32)
_NO_PICTURE: Final = np.zeros((0, 0, 3), np.uint8)


def template(shown_px: int, side: int) -> Landmarks:
    """Where landmarks lie on crops of side × side pixels that show `shown_px` around the middle of an ArcFace crop."""
    margin, scale = (shown_px - ARCFACE_SIDE) / 2, side / shown_px
    left_eye, right_eye, nose, left_mouth, right_mouth = (
        ((x + 0.5 + margin) * scale - 0.5, (y + 0.5 + margin) * scale - 0.5) for x, y in ARCFACE_LANDMARKS
    )
    return left_eye, right_eye, nose, left_mouth, right_mouth


VIEW_LANDMARKS: Final = template(VIEW_PX, SIDE)
_STORED_LANDMARKS: Final = template(STORED_PX, STORED_SIDE)


@dataclass(frozen=True, slots=True)
class Judges:
    """The detector whose findings are looked at, below its threshold too, and the teacher, asked so many times a picture."""

    detector: Scan
    teacher: Scan
    views: int = 5


def open_looks(folder: Path, source: str) -> Looks | None:
    """What was collected in a folder; None where that was not finished.

    Raises:
        OfOtherData: it is not of `source`.
        DataUnusable: no photograph shows a face, or the detector never errs.

    """
    if not (folder / _LABELS).exists():
        return None
    with np.load(folder / _LABELS, allow_pickle=False) as arrays:
        if str(arrays["source"]) != source:
            raise OfOtherData(folder, was=str(arrays["source"]), wanted=source)
        is_face, landmarks, sides = arrays["is_face"], arrays["landmarks"], arrays["sides"]
    if not is_face.any() or is_face.all():
        raise DataUnusable(
            "a refiner learns from faces and from what a detector wrongly takes for them: one is missing"
        )
    pictures = np.memmap(folder / _PIXELS, np.uint8, "c", shape=(len(is_face), STORED_SIDE, STORED_SIDE, 3))
    return Looks(pictures, is_face, landmarks, sides)


def collect_looks(
    photographs: Path,
    folder: Path,
    judges: Judges,
    observer: Observer,
    *,
    crops: Crops | None,
    source: str,
    workers: int,
) -> Looks:
    """Looks at all photographs at any depth, each in several sizes; crops are put into a frame first.

    `source` says of what, and by whom, so that looks of something else are not taken for these.

    Raises:
        DataUnusable: no photograph shows a face, or the detector never errs.

    """
    files = photographs_below(photographs)
    aligned = _NO_PICTURE if crops is None else crops.pictures

    def of_file(number: int) -> list[_Look]:
        picture = read_or_report(files[number], observer)
        return [] if picture is None else _looks(picture, judges, number, _sizes(number))

    def of_crop(number: int) -> list[_Look]:
        """Around a crop there is only what we put there, so nothing there is learnt from."""
        framed = _framed(np.asarray(aligned[number]), number)
        return [each for each in _looks(framed, judges, number, _one_size(number)) if each.landmarks is not None]

    folder.mkdir(parents=True, exist_ok=True)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="looks")
    try:
        with (folder / _PIXELS).open("wb") as file:
            numbers = range(len(files))
            found = [*_written(observer.track(numbers, "photographs"), pool.map(of_file, numbers), file)]
            numbers = range(len(aligned))
            found += _written(observer.track(numbers, "crops"), pool.map(of_crop, numbers), file)
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, nobody wants the thousands that wait
    _write_labels(folder, source, found)
    written = open_looks(folder, source)
    if written is None:
        raise DataUnusable(f"{folder} was emptied while it was written")
    return written


def below_threshold(scan: Scan, score: float) -> Scan:
    """The same detector, reporting what scores less."""
    detector = scan.detector.with_threshold(score)
    return replace(scan, detector=detector)


def _written(numbers: Iterator[int], parts: Iterable[list[_Look]], file: BinaryIO) -> Iterator[_Look]:
    """Pixels go to the file; what is kept in memory has none."""
    for _, part in zip(numbers, parts, strict=False):
        for each in part:
            file.write(each.picture.tobytes())
            yield replace(each, picture=_NO_PICTURE)


def _looks(picture: NDArray[np.uint8], judges: Judges, number: int, longer_sides: Sequence[int]) -> list[_Look]:
    """The chance of a picture comes from its number, so that threads change nothing."""
    agreed = agreed_faces(judges.teacher, picture, judges.views, np.random.default_rng([number, 1]))
    return [each for side in longer_sides for each in _looks_at(picture, judges, agreed, side)]


def _looks_at(picture: NDArray[np.uint8], judges: Judges, agreed: Findings, side: int) -> Iterator[_Look]:
    scaled = _scaled(picture, side)
    widening = scaled.shape[1] / picture.shape[1]
    taught = look(judges.teacher, scaled)
    known = agreed.placed(scale=widening, left=(widening - 1) / 2, top=(widening - 1) / 2)
    for finding in _one_by_one(look(judges.detector, scaled)):
        judged = _judged(scaled, finding, taught, known)
        if judged is not None:
            yield judged


def _judged(picture: NDArray[np.uint8], finding: Findings, taught: Findings, known: Findings) -> _Look | None:
    """A face that the teacher is sure of, or none at all; what lies between teaches nothing."""
    box = finding.corners[0]
    similarity = fit_similarity(finding.points(0), _STORED_LANDMARKS)
    crop = align(picture, similarity, size=(STORED_SIDE, STORED_SIDE), border=Border.CONSTANT)
    overlaps = [overlap(box, other) for other in known.corners]
    if overlaps and max(overlaps) >= SAME_FACE:
        face = known.select(np.array([int(np.argmax(overlaps))]))
        if face.scores[0] < _LEAST_SURE:
            return None
        points = np.stack([_moved(point, similarity.matrix) for point in face.landmarks[0]])
        return _Look(crop, points.astype(np.float32), float(np.sqrt(face.sides[0].prod()) * similarity.scale))
    nearest = max((overlap(box, other) for other in (*taught.corners, *known.corners)), default=0.0)
    is_large = float(np.sqrt(finding.sides[0].prod())) >= _LEAST_SIDE_PX
    return _Look(crop) if nearest < _NOT_A_FACE and is_large else None


def _moved(point: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(matrix[:, :2] @ point + matrix[:, 2], np.float64)


def _one_by_one(found: Findings) -> Iterator[Findings]:
    for row in range(len(found)):
        yield found.select(np.array([row]))


def _sizes(number: int) -> list[int]:
    """Longer sides at which a photograph is looked at: small, as photographs on the web, large, and now and then larger."""
    chance = np.random.default_rng([number, 2])
    small, large = int(chance.integers(100, 210)), int(chance.integers(320, 660))
    return [250, small, large, *([1000] if number % 8 == 0 else [])]


def _one_size(number: int) -> list[int]:
    return [int(np.random.default_rng([number, 2]).integers(130, 510))]


def _framed(crop: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    chance = np.random.default_rng([number, 3])
    how = cv2.BORDER_REPLICATE if chance.random() < 0.4 else cv2.BORDER_CONSTANT
    frame = _FRAME_PX
    colour = chance.integers(0, 256, 3).tolist()
    return np.asarray(cv2.copyMakeBorder(crop, frame, frame, frame, frame, how, value=colour), np.uint8)


def _scaled(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    scale = side / max(picture.shape[:2])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.ascontiguousarray(cv2.resize(picture, size, interpolation=how), np.uint8)


def _write_labels(folder: Path, source: str, found: Sequence[_Look]) -> None:
    """Last of all: without labels nothing was finished."""
    partial = folder / "looks.part.npz"
    np.savez(
        partial,
        source=np.array(source),
        is_face=np.array([each.landmarks is not None for each in found], np.bool_),
        landmarks=np.array([_NOWHERE if each.landmarks is None else each.landmarks for each in found], np.float32),
        sides=np.array([each.side for each in found], np.float32),
    )
    partial.replace(folder / _LABELS)
