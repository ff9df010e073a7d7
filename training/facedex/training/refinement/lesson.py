"""Learning to look a second time: where the landmarks are, and whether it is a face."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from facedex.training.augmentation import MIRRORED_LANDMARKS, Augmentation, Augmenter, sampled
from facedex.training.detection.losses import distance_loss
from facedex.training.devices import Workplace
from facedex.training.embedding import prepared
from facedex.training.refinement.looks import STORED_PX, STORED_SIDE, VIEW_PX, Looks
from facedex.training.refinement.network import POINTS, SIDE, RefinerNet

_SURENESS: Final = 0.98
"""A teacher errs too."""


def _usual() -> Augmentation:
    return Augmentation(
        turn_degrees=5.0,
        zoom=0.07,
        shift_px=2.0,
        contrast=0.35,
        brightness=0.4,
        tint=0.15,
        grey_share=0.15,
        blurred_share=0.1,
        coarse_share=0.15,
        noisy_share=0.1,
        covered_share=0.1,
    )


@dataclass(frozen=True, slots=True)
class RefinerSettings:
    """What is learnt in which amounts."""

    batch: int = 64
    face_share: float = 0.6
    """Of a batch, faces; the rest is what the detector took for faces."""
    landmark_weight: float = 20.0
    augmentation: Augmentation = field(default_factory=_usual)


@dataclass(frozen=True, slots=True)
class _Views:
    """pixels (n, 3, 64, 64), landmarks (n, 5, 2) from −1 to 1 across them, and the face's side (n,) in the same unit."""

    pixels: Tensor
    landmarks: Tensor
    sides: Tensor


class RefinerLesson:
    """A `Lesson`: batches of findings, right and wrong."""

    def __init__(self, settings: RefinerSettings, looks: Looks, *, workplace: Workplace) -> None:
        self.settings = settings
        self._looks = looks
        self._device = workplace.device
        self._workplace = workplace
        self._augment = Augmenter(settings.augmentation, workplace.device, side=SIDE)
        self._faces = torch.from_numpy(np.flatnonzero(looks.is_face))
        self._others = torch.from_numpy(np.flatnonzero(~looks.is_face))
        self.student = RefinerNet().to(workplace.device)
        self.network: nn.Module = self.student

    def losses(self, chance: Generator, *, share_done: float) -> dict[str, Tensor]:
        del share_done
        faces = round(self.settings.face_share * self.settings.batch)
        rows = torch.cat(
            [
                _drawn(self._faces, faces, chance),
                _drawn(self._others, self.settings.batch - faces, chance),
            ]
        )
        views = self._views(rows, chance)
        pictures = prepared(self._augment.weathered(views.pixels, chance))
        with self._workplace.computing():
            values = self.student(pictures)
        values = values.float()
        landmarks = values[:faces, :POINTS].reshape(-1, 5, 2)
        errors = (landmarks - views.landmarks[:faces]) / views.sides[:faces, None, None]
        is_face = torch.zeros(len(rows), device=self._device)
        is_face[:faces] = 1
        wanted = is_face * _SURENESS + (1 - _SURENESS) / 2
        return {
            "landmarks": self.settings.landmark_weight * distance_loss(errors),
            "score": functional.binary_cross_entropy_with_logits(values[:, POINTS], wanted),
        }

    def examine(self, student: nn.Module) -> dict[str, float]:
        del student
        return {}

    def _views(self, rows: Tensor, chance: Generator) -> _Views:
        """Each turned, zoomed and moved, half of them mirrored."""
        wanted = rows.numpy()
        pictures = torch.from_numpy(self._looks.pictures[wanted]).to(self._device).permute(0, 3, 1, 2).float()
        landmarks = torch.from_numpy(self._looks.landmarks[wanted]).to(self._device)
        sides = torch.from_numpy(self._looks.sides[wanted]).to(self._device) * (2 / STORED_SIDE)
        placed = self._placement(len(rows), chance)
        inward = torch.linalg.inv(placed.linear)
        points = ((landmarks + 0.5) * (2 / STORED_SIDE) - 1 - placed.shift[:, None]) @ inward.transpose(1, 2)
        points = torch.where(placed.is_mirrored[:, None, None], points[:, MIRRORED_LANDMARKS], points)
        maps = torch.cat([placed.linear, placed.shift[:, :, None]], dim=2)
        return _Views(sampled(pictures, maps, side=SIDE), points, sides / placed.zoom)

    def _placement(self, count: int, chance: Generator) -> _Placement:
        amounts = self.settings.augmentation
        turn, zoom, across, down = torch.randn(4, count, generator=chance, device=self._device)
        turn = turn * math.radians(amounts.turn_degrees)
        scale = torch.exp(zoom * amounts.zoom) * (VIEW_PX / STORED_PX)
        is_mirrored = torch.rand(count, generator=chance, device=self._device) < 0.5
        mirror = torch.where(is_mirrored, -1.0, 1.0)
        cosine, sine = torch.cos(turn) * scale, torch.sin(turn) * scale
        linear = torch.stack([cosine * mirror, -sine, sine * mirror, cosine], dim=1).reshape(count, 2, 2)
        shift = torch.stack([across, down], dim=1) * (2 * amounts.shift_px / STORED_SIDE)
        return _Placement(linear, shift, scale, is_mirrored)


@dataclass(frozen=True, slots=True)
class _Placement:
    """Maps from view to stored crop, both from −1 to 1: linear (n, 2, 2), shift (n, 2), zoom (n,)."""

    linear: Tensor
    shift: Tensor
    zoom: Tensor
    is_mirrored: Tensor


def _drawn(rows: Tensor, count: int, chance: Generator) -> Tensor:
    return rows[torch.randint(len(rows), (count,), generator=chance, device=chance.device).cpu()]
