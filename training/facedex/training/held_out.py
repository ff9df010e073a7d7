"""How well exported models do on photographs that they never learnt from, through the pipeline that users have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from facedex.indexer.calibration.uncertainty import RateInterval, proportion_interval
from facedex.indexer.errors import InvalidArgument
from facedex.indexer.evaluation.acquisition import acquire
from facedex.indexer.evaluation.evaluation import Evaluation, Faces, OpenSet, evaluate
from facedex.indexer.jobs.folder import photographs_of
from facedex.indexer.vision.findings import Findings
from facedex.indexer.vision.pipeline import FacePipeline, prominence, unhurried
from facedex.indexer.vision.scan import Scan
from facedex.training.errors import DataUnusable
from facedex.training.photographs import read_or_report
from facedex.training.progress import Observer

SAME_FACE: Final = 0.5
"""IoU from which two detectors mean the same face."""


def evaluate_embedder(pipeline: FacePipeline, people: Path, *, workers: int) -> Evaluation:
    """The open set of a folder a person: the first photograph of those with several is enrolled, the rest are searched for.

    Raises:
        DataUnusable: the folder holds no two people, nobody twice, or no face.

    """
    try:
        photographs = photographs_of(people)
        parts = OpenSet.of(photographs)
        faces = Faces.of(acquire(pipeline, photographs, workers=workers))
        return evaluate(parts, faces, default_threshold=None)
    except InvalidArgument as problem:
        raise DataUnusable(str(problem)) from problem


@dataclass(frozen=True, slots=True)
class DetectorFigures:
    """A detector beside its teacher.

    photographs: those on which the teacher finds a face. main_found: how many of their main faces are found.
    landmark_errors (found,): mean distance of the five points from the teacher's, as a part of the box's side.
    """

    photographs: int
    main_found: int
    landmark_errors: NDArray[np.float64]

    @property
    def found_rate(self) -> RateInterval:
        """With its 95 % interval."""
        missed = proportion_interval(self.photographs - self.main_found, self.photographs)
        return RateInterval(1 - missed.upper, 1 - missed.estimate, 1 - missed.lower)

    @property
    def median_landmark_error(self) -> float:
        return float(np.median(self.landmark_errors)) if len(self.landmark_errors) else float("nan")


def evaluate_detector(own: Scan, teacher: Scan, pictures: Iterator[NDArray[np.uint8]]) -> DetectorFigures:
    """Of pictures (height, width, 3), BGR; those on which the teacher finds nothing do not count."""
    taught = found = 0
    errors: list[float] = []
    for picture in pictures:
        expected = _main_face(picture, teacher.find(picture, shrunk_by=1, checkpoint=unhurried))
        if expected is None:
            continue
        taught += 1
        actual = _main_face(picture, own.find(picture, shrunk_by=1, checkpoint=unhurried))
        if actual is not None and overlap(expected.corners[0], actual.corners[0]) >= SAME_FACE:
            found += 1
            errors.append(_landmark_error(expected, actual))
    return DetectorFigures(taught, found, np.array(errors))


def pictures_below(folder: Path, observer: Observer) -> Iterator[NDArray[np.uint8]]:
    """All photographs of a folder a person; what cannot be read is reported and left out."""
    for photograph in observer.track(photographs_of(folder), "held-out"):
        picture = read_or_report(photograph.path, observer)
        if picture is not None:
            yield picture


def overlap(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """IoU of two boxes (left, top, right, bottom)."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    common = float(np.maximum(sides, 0).prod())
    union = float((first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod()) - common
    return common / union


def _main_face(picture: NDArray[np.uint8], found: Findings) -> Findings | None:
    if not len(found):
        return None
    return found.select(np.array([prominence(found, picture.shape[1], picture.shape[0]).argmax()]))


def _landmark_error(expected: Findings, actual: Findings) -> float:
    distances = np.linalg.norm(expected.landmarks[0] - actual.landmarks[0], axis=1)
    return float(distances.mean() / np.sqrt(expected.sides[0].prod()))
