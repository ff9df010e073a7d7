"""Learning to find faces on photographs that a teacher labelled."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from facedex.training.detection.hard import draw_faceless
from facedex.training.detection.labelled import LabelledPhotographs
from facedex.training.detection.losses import landmark_loss, overlaps_of, score_loss
from facedex.training.detection.mosaics import Canvas, MosaicSettings, draw_canvas
from facedex.training.detection.network import VALUES, FaceFinder
from facedex.training.detection.targets import CellTargets, targets_of
from facedex.training.devices import Workplace


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """What is learnt in which amounts."""

    batch: int = 32
    mosaics: MosaicSettings = field(default_factory=MosaicSettings)
    box_weight: float = 2.0
    landmark_weight: float = 20.0
    large_side: int | None = None
    """Side of the canvas in the last third, for large faces; else that of the beginning."""
    hard_share: float = 0.0
    """Of a batch, canvases without a face on which the detector saw one before the run."""
    workers: int = 1
    """Threads that draw canvases."""


class DetectorLesson:
    """A `Lesson`: batches of mosaics."""

    def __init__(
        self,
        settings: DetectorSettings,
        photographs: LabelledPhotographs,
        *,
        workplace: Workplace,
        hard: NDArray[np.int64] | None = None,
    ) -> None:
        self.settings = settings
        self._photographs = photographs
        self._hard = np.zeros(0, np.int64) if hard is None else hard
        self._workplace = workplace
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="mosaics")
        self.student = FaceFinder().to(workplace.device)
        self.network: nn.Module = self.student

    def losses(self, chance: Generator, *, share_done: float) -> dict[str, Tensor]:
        canvases = self._canvases(chance, share_done)
        pixels = np.stack([canvas.pixels for canvas in canvases])
        pictures = torch.from_numpy(pixels).to(self._workplace.device).permute(0, 3, 1, 2).float()
        with self._workplace.computing():
            maps = self.student(((pictures - 127.5) / 128).contiguous(memory_format=torch.channels_last))
        return self._of_cells(cells_of(maps), _joined(canvases, self._workplace.device))

    def examine(self, student: nn.Module) -> dict[str, float]:
        del student
        return {}

    def _canvases(self, chance: Generator, share_done: float) -> list[Canvas]:
        """Each with a seed of its own, so that threads change nothing."""
        settings = self.settings.mosaics
        large = self.settings.large_side
        if large is not None and share_done >= 2 / 3:
            settings = replace(settings, side=large)
        count = max(2, round(self.settings.batch * (self.settings.mosaics.side / settings.side) ** 2))
        seeds: list[int] = torch.randint(2**31, (count,), generator=chance, device=chance.device).tolist()
        hard = round(self.settings.hard_share * count) if len(self._hard) else 0

        def drawn(number: int) -> Canvas:
            if number < hard:
                return draw_faceless(self._photographs, settings, int(self._hard[seeds[number] % len(self._hard)]))
            return draw_canvas(self._photographs, settings, np.random.default_rng(seeds[number]))

        return list(self._pool.map(drawn, range(count)))

    def _of_cells(self, cells: Tensor, targets: _Batch) -> dict[str, Tensor]:
        if not bool(targets.is_face.any()):
            nothing = torch.zeros(0, device=cells.device)
            return {"score": score_loss(cells[:, 0], targets.is_face, targets.is_ignored, nothing)}
        boxes, wanted = cells[targets.is_face, 1:5], targets.boxes[targets.is_face]
        overlap, generalised = overlaps_of(boxes, wanted)
        landmarks = landmark_loss(cells[targets.is_face, 5:], targets.landmarks[targets.is_face], wanted)
        return {
            "score": score_loss(cells[:, 0], targets.is_face, targets.is_ignored, overlap.detach().clamp(0, 1)),
            "box": self.settings.box_weight * (1 - generalised).mean(),
            "landmarks": self.settings.landmark_weight * landmarks,
        }


@dataclass(frozen=True, slots=True)
class _Batch:
    """`CellTargets` of all canvases after one another."""

    is_face: Tensor
    is_ignored: Tensor
    boxes: Tensor
    landmarks: Tensor


def cells_of(maps: Sequence[Tensor]) -> Tensor:
    """All cells (n, 15) of the detector's maps: canvas after canvas, stride after stride, row after row."""
    rows = [each.float().permute(0, 2, 3, 1).flatten(1, 2) for each in maps]
    return torch.cat(rows, dim=1).reshape(-1, VALUES)


def _joined(canvases: Sequence[Canvas], device: torch.device) -> _Batch:
    each: list[CellTargets] = [targets_of(canvas) for canvas in canvases]
    return _Batch(
        torch.from_numpy(np.concatenate([one.is_face for one in each])).to(device),
        torch.from_numpy(np.concatenate([one.is_ignored for one in each])).to(device),
        torch.from_numpy(np.concatenate([one.boxes for one in each])).to(device),
        torch.from_numpy(np.concatenate([one.landmarks for one in each])).to(device),
    )
