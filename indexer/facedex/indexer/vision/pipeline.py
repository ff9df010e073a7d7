"""From the bytes of a photograph to aligned faces, and from those to unit vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facedex.indexer.tracing import Traced, Work, untraced
from facedex.indexer.vision import quality
from facedex.indexer.vision.alignment import Similarity, align, fit_similarity, from_reduced
from facedex.indexer.vision.decode import ImageLimits, Photograph, Picture, Reduction, read_photograph
from facedex.indexer.vision.detector import Detector
from facedex.indexer.vision.embedder import Embedder
from facedex.indexer.vision.face import Box, Face, Landmarks, Quality
from facedex.indexer.vision.findings import Findings
from facedex.indexer.vision.manifest import EmbedderContract
from facedex.indexer.vision.scan import SMALLEST_FACE_PX, Checkpoint, Scan
from facedex.indexer.vision.workbench import Workbench, available_cores


def unhurried() -> None:
    """The checkpoint of a caller without a deadline."""


@dataclass(frozen=True, slots=True)
class FaceCrop:
    """A face and its picture: aligned, of the embedder's input size, BGR."""

    face: Face
    crop: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Detection:
    """What is on one photograph: the upright size in pixels, and the faces, largest first."""

    width: int
    height: int
    faces: tuple[FaceCrop, ...]


@dataclass(frozen=True, slots=True)
class _View:
    """The photograph's pixels, its sides divided by `reduction`."""

    picture: Picture
    reduction: Reduction


@dataclass(frozen=True, slots=True)
class _Sighting:
    """A face before its pixels were looked at; box and landmarks in pixels of the full-size photograph."""

    box: Box
    landmarks: Landmarks
    score: float


class FacePipeline:
    """One detector and one embedder under limits. Any number of threads may use it at the same time."""

    def __init__(
        self,
        *,
        detector: Detector,
        embedder: Embedder,
        limits: ImageLimits | None = None,
        workbench: Workbench | None = None,
        smallest_face_px: float = SMALLEST_FACE_PX,
        traced: Traced = untraced,
    ) -> None:
        self.detector = detector
        self.embedder = embedder
        self.limits = limits or ImageLimits()
        self._workbench = workbench or Workbench(available_cores())
        self._scan = Scan(detector, smallest_face_px=smallest_face_px)
        self._traced = traced

    def detect(self, photograph: bytes, *, checkpoint: Checkpoint = unhurried) -> Detection:
        """All faces of a photograph, largest first. Raises `ImageRefused`, and whatever `checkpoint` raises."""
        opened = read_photograph(photograph, self.limits)
        with self._workbench.place(checkpoint):
            return self._detect(opened, checkpoint)

    def finest_side(self, longer_side: int) -> int:
        """Longer side of the finest look at a photograph, in pixels."""
        return self._scan.finest_side(longer_side)

    def _detect(self, opened: Photograph, checkpoint: Checkpoint) -> Detection:
        finest_side = self.finest_side(max(opened.width, opened.height))
        view = self._view(opened, opened.strongest_reduction(finest_side))
        with self._traced(Work.DETECT):
            found = self._scan.find(view.picture, shrunk_by=view.reduction, checkpoint=checkpoint)
        sightings = _largest_first(found, view)
        checkpoint()
        closest = self._close_enough(opened, view, sightings)
        faces = tuple(self._face_crop(closest, sighting) for sighting in sightings)
        return Detection(width=opened.width, height=opened.height, faces=faces)

    def embed(self, crops: Sequence[NDArray[np.uint8]], *, checkpoint: Checkpoint = unhurried) -> NDArray[np.float32]:
        """Unit vectors (n, dimension) of aligned crops, in their order."""
        if crops and self.embedder.most_at_once > 1:
            checkpoint()  # no core is held while a device works
            with self._traced(Work.EMBED):
                return self.embedder.embed_together(crops)
        vectors = np.empty((len(crops), self.embedder.manifest.dimension), dtype=np.float32)
        for row, crop in enumerate(crops):
            with self._workbench.place(checkpoint), self._traced(Work.EMBED):
                vectors[row] = self.embedder.embed(crop)
        return vectors

    def realigned(self, crop: NDArray[np.uint8], made_for: EmbedderContract) -> NDArray[np.uint8]:
        """A crop that was aligned for another embedder, as this one's wants it."""
        contract = self.embedder.contract
        move = fit_similarity(made_for.alignment, contract.alignment)
        return align(crop, move, size=self.embedder.size, border=contract.border)

    def _close_enough(self, opened: Photograph, view: _View, sightings: Sequence[_Sighting]) -> _View:
        """The view itself, or a less reduced one where the crop of some face would have to be enlarged."""
        largest_scale = max((self._to_crop(sighting.landmarks).scale for sighting in sightings), default=0.0)
        fitting = max(step for step in Reduction if step is Reduction.NONE or step * largest_scale <= 1)
        return view if view.reduction <= fitting else self._view(opened, fitting)

    def _view(self, opened: Photograph, reduction: Reduction) -> _View:
        with self._traced(Work.DECODE):
            return _View(opened.decode(reduction), reduction)

    def _face_crop(self, view: _View, sighting: _Sighting) -> FaceCrop:
        contract = self.embedder.contract
        to_crop = from_reduced(self._to_crop(sighting.landmarks), view.reduction)
        crop = align(view.picture, to_crop, size=self.embedder.size, border=contract.border)
        return FaceCrop(Face(sighting.box, sighting.landmarks, _assess(view, sighting)), crop)

    def _to_crop(self, landmarks: Landmarks) -> Similarity:
        return fit_similarity(landmarks, self.embedder.contract.alignment)


def _largest_first(found: Findings, view: _View) -> list[_Sighting]:
    order = np.argsort(-prominence(found, view.picture.shape[1], view.picture.shape[0]), kind="stable")
    in_photograph = found.placed(scale=view.reduction, left=0, top=0)
    return [_sighting(in_photograph, int(row)) for row in order]


def prominence(found: Findings, width: int, height: int) -> NDArray[np.float32]:
    """How large each face appears, (n,): its area within the picture, less the further it is from the middle.

    The middle counts in full and the corners not at all. A person who walks past the edge of somebody's portrait, often
    nearer to the camera and cut off, is not taken for its subject; one who is 1.5 times as large as those in the middle is.
    """
    size = np.array([width, height], dtype=np.float32)
    first, last = found.corners[:, :2], found.corners[:, 2:]
    visible = np.maximum(np.minimum(last, size) - np.maximum(first, 0), 0).prod(axis=1)
    distance = np.linalg.norm((first + last - size) / 2, axis=1) / (np.linalg.norm(size) / 2)
    return np.asarray(visible * np.maximum(1 - distance, 0), dtype=np.float32)


def _sighting(found: Findings, row: int) -> _Sighting:
    left, top, right, bottom = (float(edge) for edge in found.corners[row])
    return _Sighting(Box(left, top, right - left, bottom - top), found.points(row), float(found.scores[row]))


def _assess(view: _View, sighting: _Sighting) -> Quality:
    grey = quality.grey_crop(view.picture, sighting.landmarks, view.reduction)
    return Quality(
        detector_score=sighting.score,
        size_px=min(sighting.box.width, sighting.box.height),
        sharpness=quality.sharpness(grey),
        brightness=quality.brightness(grey),
        yaw_degrees=quality.yaw_degrees(sighting.landmarks),
        pitch_degrees=quality.pitch_degrees(sighting.landmarks),
        roll_degrees=quality.roll_degrees(sighting.landmarks),
    )
