"""One look of a YuNet-type detector at one picture: from pixels to findings. Some look at each face a second time.

The layout is that of YuNet (Wu, Peng & Yu, Machine Intelligence Research 20, 2023): at each stride s, and for each cell
(column c, row r) of s × s pixels, the outputs `cls_s` and `obj_s` (score = √(cls·obj)), `bbox_s` (offset of the centre
and logarithm of the size, in strides) and `kps_s` (five offsets, in strides).
"""

from dataclasses import replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facedex.indexer.vision.errors import ModelUnusable
from facedex.indexer.vision.findings import Findings, Floats, join
from facedex.indexer.vision.manifest import DetectorContract, ModelManifest
from facedex.indexer.vision.network import FaceNetwork, tensor_of
from facedex.indexer.vision.refiner import Refiner

_LARGEST_SIZE_LOGARITHM: Final = 8.0
"""A box of e⁸ strides is larger than any picture; it keeps the exponential finite."""


class Detector:
    """Finds faces of about 10 px and more. Any number of threads may use it at the same time."""

    def __init__(self, manifest: ModelManifest, network: FaceNetwork, refiner: Refiner | None = None) -> None:
        if manifest.detector is None:
            raise ModelUnusable(manifest.name, "it is no detector")
        self.manifest = manifest
        self._contract: DetectorContract = manifest.detector
        self._network = network
        self._refiner = refiner
        self._check_outputs()

    @property
    def contract(self) -> DetectorContract:
        return self._contract

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """Width and height, where the network takes no others."""
        return self._network.input_size

    def with_threshold(self, score: float) -> "Detector":
        """The same networks; what scores less than this is not reported."""
        contract = replace(self._contract, score_threshold=score)
        return Detector(replace(self.manifest, detector=contract), self._network, self._refiner)

    def look(self, picture: NDArray[np.uint8]) -> Findings:
        """Findings above the score threshold, overlapping, in pixels of the picture (height × width × 3, BGR)."""
        canvas = self._on_canvas(picture)
        outputs = self._network.run(tensor_of(canvas, self.manifest.input))
        height, width = canvas.shape[:2]
        return join(
            [self._read_stride(outputs, stride, width // stride, height // stride) for stride in self._contract.strides]
        )

    def refine(self, picture: NDArray[np.uint8], found: Findings) -> Findings:
        """What is left of findings after a second look at each, where the detector has one."""
        return found if self._refiner is None else self._refiner.refine(picture, found)

    def try_out(self) -> None:
        """Look at an empty picture; `ModelUnusable` where the outputs are not those of the layout."""
        self.look(np.zeros((320, 320, 3), dtype=np.uint8))
        if self._refiner is not None:
            self._refiner.try_out()

    def _check_outputs(self) -> None:
        wanted = {f"{part}_{stride}" for stride in self._contract.strides for part in ("cls", "obj", "bbox", "kps")}
        if missing := wanted.difference(self._network.output_names):
            raise ModelUnusable(self.manifest.name, f"its outputs lack {', '.join(sorted(missing))}")

    def _on_canvas(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture with black to its right and below, up to a size that the network takes."""
        height, width = picture.shape[:2]
        full_width, full_height = self.fixed_size or (self._round_up(width), self._round_up(height))
        if (full_width, full_height) == (width, height):
            return picture
        right, bottom = full_width - width, full_height - height
        return np.asarray(cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_CONSTANT), dtype=np.uint8)

    def _round_up(self, side: int) -> int:
        return -(-side // self._contract.multiple_of) * self._contract.multiple_of

    def _read_stride(self, outputs: dict[str, Floats], stride: int, columns: int, rows: int) -> Findings:
        scores = np.sqrt(np.clip(outputs[f"cls_{stride}"], 0, 1) * np.clip(outputs[f"obj_{stride}"], 0, 1)).reshape(-1)
        if len(scores) != columns * rows:
            raise ModelUnusable(
                self.manifest.name, f"stride {stride} gives {len(scores)} cells instead of {columns * rows}"
            )
        cells = np.flatnonzero(scores >= self._contract.score_threshold)
        origins = np.stack([cells % columns, cells // columns], axis=1).astype(np.float32)
        boxes = outputs[f"bbox_{stride}"].reshape(-1, 4)[cells]
        points = outputs[f"kps_{stride}"].reshape(-1, 5, 2)[cells]
        centres = origins + boxes[:, :2]
        halves = np.exp(np.minimum(boxes[:, 2:], _LARGEST_SIZE_LOGARITHM)) / 2
        corners = np.concatenate([centres - halves, centres + halves], axis=1)
        landmarks = points + origins[:, None]
        return Findings(scores[cells], (corners * stride).astype(np.float32), (landmarks * stride).astype(np.float32))
