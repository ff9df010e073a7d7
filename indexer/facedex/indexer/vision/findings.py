"""What a detector finds before anything is decided about it: many overlapping boxes with scores and landmarks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_LEAST_EYE_DISTANCE_PX = 1.0


@dataclass(frozen=True, slots=True)
class Findings:
    """Rows, in pixels: scores (n,), corners (n, 4) as left, top, right, bottom, landmarks (n, 5, 2) as x, y."""

    scores: Floats
    corners: Floats
    landmarks: Floats

    def __len__(self) -> int:
        return len(self.scores)

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
    """Keep the best of each heap of boxes, in descending score: greedy non-maximum suppression."""
    remaining = np.argsort(-findings.scores, kind="stable")
    kept: list[int] = []
    while len(remaining):
        best, others = remaining[0], remaining[1:]
        kept.append(int(best))
        remaining = others[_overlaps(findings.corners[best], findings.corners[others]) <= max_iou]
    return findings.select(np.array(kept, dtype=np.intp))


def _overlaps(box: Floats, boxes: Floats) -> Floats:
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = np.prod(np.maximum(sides, 0), axis=1)
    together = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) - common
    return np.asarray(common / together, dtype=np.float32)
