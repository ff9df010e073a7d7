"""What a detector finds before anything is decided about it: many overlapping boxes with scores and landmarks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from facedex.indexer.vision.face import Landmarks

Floats = NDArray[np.float32]
_LEAST_EYE_DISTANCE_PX: Final = 1.0
_MAX_SHARE_INSIDE: Final = 0.45
"""Faces cheek to cheek share less of their boxes than that."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Rows, in pixels: scores (n,), corners (n, 4) as left, top, right, bottom, landmarks (n, 5, 2) as x, y."""

    scores: Floats
    corners: Floats
    landmarks: Floats

    def __len__(self) -> int:
        return len(self.scores)

    def points(self, row: int) -> Landmarks:
        """The landmarks of one row."""
        left_eye, right_eye, nose, left_mouth, right_mouth = ((float(x), float(y)) for x, y in self.landmarks[row])
        return left_eye, right_eye, nose, left_mouth, right_mouth

    def select(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "Findings":
        return Findings(self.scores[rows], self.corners[rows], self.landmarks[rows])

    def placed(self, *, scale: float, left: float, top: float) -> "Findings":
        """Each position p becomes p · scale + (left, top)."""
        shift = np.array([left, top], dtype=np.float32)
        return Findings(
            self.scores,
            self.corners * np.float32(scale) + np.tile(shift, 2),
            self.landmarks * np.float32(scale) + shift,
        )

    @property
    def sides(self) -> Floats:
        """Widths and heights, (n, 2)."""
        return self.corners[:, 2:] - self.corners[:, :2]

    @property
    def are_plausible(self) -> NDArray[np.bool_]:
        """Which rows are finite, have an area, and eyes that are apart: what alignment needs."""
        finite = np.isfinite(self.corners).all(axis=1) & np.isfinite(self.landmarks).all(axis=(1, 2))
        with np.errstate(invalid="ignore"):
            apart = np.abs(self.landmarks[:, 0] - self.landmarks[:, 1]).max(axis=1) > _LEAST_EYE_DISTANCE_PX
        return np.asarray(finite & (self.sides > 0).all(axis=1) & apart, dtype=np.bool_)


def join(parts: Sequence[Findings]) -> Findings:
    """All rows of all parts; at least one part."""
    return Findings(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.corners for part in parts]),
        np.concatenate([part.landmarks for part in parts]),
    )


def suppress_overlaps(findings: Findings, *, max_iou: float) -> Findings:
    """Keep the best of each heap of boxes, in descending score: greedy non-maximum suppression.

    A box that lies largely within a better one goes too: it is an eye, or half of a face, taken for a whole one.
    """
    remaining = np.argsort(-findings.scores, kind="stable")
    kept: list[int] = []
    while len(remaining):
        best, others = remaining[0], remaining[1:]
        kept.append(int(best))
        remaining = others[_are_apart(findings.corners[best], findings.corners[others], max_iou)]
    return findings.select(np.array(kept, dtype=np.intp))


def _are_apart(box: Floats, boxes: Floats, max_iou: float) -> NDArray[np.bool_]:
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = np.maximum(sides, 0).prod(axis=1)
    area, areas = (box[2:] - box[:2]).prod(), (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    overlap_is_small = common <= max_iou * (area + areas - common)
    return np.asarray(overlap_is_small & (common <= _MAX_SHARE_INSIDE * areas), dtype=np.bool_)
