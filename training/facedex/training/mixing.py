"""New faces of two old ones, for a teacher to say who they look like: variety that no folder holds.

Regions are swapped with soft seams, or both are blended, and then the geometry is bent a little.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Generator, Tensor
from torch.nn import functional

from facedex.training.crops import MARGIN_PX, STORED_SIDE

_STEEPEST: Final = 30.0
_LARGEST_BEND_PX: Final = 6.0
_BENDING_POINTS: Final = 4


class FaceMixer:
    """Mixes stored crops (n, 3, 144, 144) pairwise, each pair another way."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        places = torch.arange(STORED_SIDE, device=device, dtype=torch.float32) - MARGIN_PX
        self._x, self._y = places[None, None, :], places[None, :, None]

    def __call__(self, first: Tensor, second: Tensor, chance: Generator) -> Tensor:
        mirrored = self._uniform(chance, len(first), 0, 1)[:, None] < 0.5
        second = torch.where(mirrored, second.flip(3), second)
        share = self._shares(len(first), chance)[:, None]
        return self._bent(first * share + second * (1 - share), chance)

    def _shares(self, count: int, chance: Generator) -> Tensor:
        """How much of the first face is at each place (n, 144, 144): all over, above, within an ellipse, or on one side."""
        blend = self._uniform(chance, count, 0.3, 0.7).expand(count, STORED_SIDE, STORED_SIDE)
        above = _soft((self._uniform(chance, count, 50, 85) - self._y) / self._uniform(chance, count, 1.5, 6))
        beside = _soft((self._uniform(chance, count, 40, 72) - self._x) / self._uniform(chance, count, 2, 8))
        kinds = torch.stack([each.expand_as(blend) for each in (blend, above, self._ellipse(count, chance), beside)])
        kind = torch.randint(len(kinds), (count,), generator=chance, device=self._device)
        share = kinds[kind, torch.arange(count, device=self._device)]
        return torch.where(self._uniform(chance, count, 0, 1) < 0.5, share, 1 - share)

    def _ellipse(self, count: int, chance: Generator) -> Tensor:
        down = (self._y - self._uniform(chance, count, 45, 95)) / self._uniform(chance, count, 12, 30)
        right = (self._x - self._uniform(chance, count, 35, 77)) / self._uniform(chance, count, 15, 40)
        return _soft(4 * (1 - down.square() - right.square()))

    def _bent(self, faces: Tensor, chance: Generator) -> Tensor:
        count = len(faces)
        shape = (count, 2, _BENDING_POINTS, _BENDING_POINTS)
        strength = self._uniform(chance, count, 0, _LARGEST_BEND_PX)[:, None] * 2 / STORED_SIDE
        points = (torch.rand(shape, generator=chance, device=self._device) * 2 - 1) * strength
        bend = functional.interpolate(points, size=faces.shape[2:], mode="bicubic", align_corners=True)
        straight = torch.eye(2, 3, device=self._device).expand(count, 2, 3)
        grid = functional.affine_grid(straight, list(faces.shape), align_corners=False)
        grid = grid + bend.permute(0, 2, 3, 1)
        return functional.grid_sample(faces, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _uniform(self, chance: Generator, count: int, low: float, high: float) -> Tensor:
        return torch.rand((count, 1, 1), generator=chance, device=self._device) * (high - low) + low


def _soft(height: Tensor) -> Tensor:
    return torch.sigmoid(height.clamp(-_STEEPEST, _STEEPEST))
