"""A second look at each face that a detector found: its landmarks more closely, and whether it is a face at all.

The first look sees a face as a few cells of a large picture; the second one sees it alone, upright and always of the same
size. So a small network does well at what costs a large one much. The idea is that of the cascades: Viola & Jones, CVPR
2001, and MTCNN's last stages, Zhang et al., IEEE SPL 23(10), 2016.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from facedex.indexer.vision.alignment import Similarity, align, fit_similarity
from facedex.indexer.vision.errors import ModelUnusable
from facedex.indexer.vision.findings import Findings, Floats
from facedex.indexer.vision.manifest import Border, ModelManifest, RefinerContract
from facedex.indexer.vision.network import FaceNetwork, tensor_of

_MOST_AT_ONCE: Final = 32
"""Crops of one run: a crowd must not need the more memory, the larger it is."""
_POINTS: Final = 10


class Refiner:
    """Judges findings one by one, on crops of the picture they were found on. Threads may share it."""

    def __init__(self, manifest: ModelManifest, contract: RefinerContract, network: FaceNetwork) -> None:
        self._manifest = manifest
        self._contract = contract
        self._network = network
        if missing := {"landmarks", "score"}.difference(network.output_names):
            raise ModelUnusable(manifest.name, f"its refiner's outputs lack {', '.join(sorted(missing))}")

    def refine(self, picture: NDArray[np.uint8], found: Findings) -> Findings:
        """Those that are faces, in their order, with their landmarks; all in pixels of the picture (height × width × 3, BGR)."""
        if not len(found):
            return found
        similarities = [fit_similarity(found.points(row), self._contract.alignment) for row in range(len(found))]
        crops = [self._crop(picture, similarity) for similarity in similarities]
        landmarks, scores = self._judge(crops)
        placed = np.stack(
            [_moved_back(points, similarity) for points, similarity in zip(landmarks, similarities, strict=True)]
        )
        refined = Findings(found.scores, found.corners, placed.astype(np.float32))
        return refined.select((scores >= self._contract.score_threshold) & refined.are_plausible)

    def try_out(self) -> None:
        """Look at an empty crop; `ModelUnusable` where the outputs are not those of the layout."""
        self._judge([np.zeros((self._contract.side, self._contract.side, 3), np.uint8)])

    def _crop(self, picture: NDArray[np.uint8], similarity: Similarity) -> NDArray[np.uint8]:
        side = self._contract.side
        return align(picture, similarity, size=(side, side), border=Border.CONSTANT)

    def _judge(self, crops: list[NDArray[np.uint8]]) -> tuple[Floats, Floats]:
        """Landmarks (n, 5, 2) in pixels of the crops, and scores (n,)."""
        most = _MOST_AT_ONCE if self._network.takes_several else 1
        runs = [self._run(crops[start : start + most]) for start in range(0, len(crops), most)]
        return np.concatenate([landmarks for landmarks, _ in runs]), np.concatenate([scores for _, scores in runs])

    def _run(self, crops: list[NDArray[np.uint8]]) -> tuple[Floats, Floats]:
        outputs = self._network.run(np.concatenate([tensor_of(crop, self._contract.input) for crop in crops]))
        landmarks, scores = outputs["landmarks"], outputs["score"]
        if landmarks.size != _POINTS * len(crops) or scores.size != len(crops):
            raise ModelUnusable(self._manifest.name, "its refiner says something else than five landmarks and a score")
        return landmarks.reshape(len(crops), 5, 2), scores.reshape(-1)


def _moved_back(landmarks: Floats, similarity: Similarity) -> NDArray[np.float64]:
    """From the crop to the picture."""
    points = (landmarks[:, 0].astype(np.float64) + 1j * landmarks[:, 1] - similarity.shift) / similarity.turn
    return np.stack([points.real, points.imag], axis=1)
