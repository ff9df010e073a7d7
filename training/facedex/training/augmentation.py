"""What may happen to a face before a camera: turned, moved, blurred, badly lit, covered. On the device, a batch at a time.

Pictures are (n, 3, side, side), BGR, 0 to 255. All chance comes from the generator that is handed in, so that a run that
goes on after a kill sees what it would have seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Generator, Tensor
from torch.nn import functional

from facedex.training.crops import SIDE, STORED_SIDE

_BLUR_REACH: Final = 3
MIRRORED_LANDMARKS: Final = [1, 0, 2, 4, 3]
"""Which landmark is which in a mirror."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How much may happen. Standard deviations for the place, half-widths for the light, shares of faces for the rest."""

    turn_degrees: float = 4.0
    zoom: float = 0.05
    shift_px: float = 1.8
    contrast: float = 0.25
    brightness: float = 0.25
    tint: float = 0.08
    grey_share: float = 0.08
    blurred_share: float = 0.08
    coarse_share: float = 0.1
    noisy_share: float = 0.1
    covered_share: float = 0.08


class Augmenter:
    """Makes views of 112 × 112 of stored crops of 144 × 144, each another one; or only weathers views of another side."""

    def __init__(self, settings: Augmentation, device: torch.device, *, side: int = SIDE) -> None:
        self._settings = settings
        self._device = device
        self._side = side

    def __call__(self, crops: Tensor, chance: Generator) -> Tensor:
        return self.weathered(self._placed(crops, chance), chance)

    def weathered(self, views: Tensor, chance: Generator) -> Tensor:
        """Views (n, 3, side, side), worse than they were; nothing moves."""
        for share, change in (
            (self._settings.coarse_share, self._coarse),
            (self._settings.blurred_share, self._blurred),
            (self._settings.noisy_share, self._noisy),
            (self._settings.grey_share, self._grey),
            (self._settings.covered_share, self._covered),
        ):
            chosen = torch.nonzero(self._uniform(chance, len(views), 0, 1) < share)[:, 0]
            if len(chosen):
                views[chosen] = change(views[chosen], chance)
        return self._lit(views, chance).clamp(0, 255)

    def _placed(self, crops: Tensor, chance: Generator) -> Tensor:
        """Half of them mirrored."""
        count = len(crops)
        turn = self._normal(chance, count) * math.radians(self._settings.turn_degrees)
        zoom = torch.exp(self._normal(chance, count) * self._settings.zoom) * (SIDE / STORED_SIDE)
        mirror = torch.where(self._uniform(chance, count, 0, 1) < 0.5, -1.0, 1.0)
        shift = self._normal(chance, 2 * count).reshape(2, count) * (2 * self._settings.shift_px / STORED_SIDE)
        cosine, sine = torch.cos(turn) * zoom, torch.sin(turn) * zoom
        rows = torch.stack([cosine * mirror, -sine * mirror, shift[0], sine, cosine, shift[1]], dim=1)
        return sampled(crops, rows.reshape(count, 2, 3), side=SIDE)

    def _coarse(self, views: Tensor, chance: Generator) -> Tensor:
        side = int(torch.randint(self._part(28), self._part(80), (1,), generator=chance, device=self._device))
        small = functional.interpolate(views, size=(side, side), mode="bilinear", antialias=True)
        return functional.interpolate(small, size=views.shape[2:], mode="bilinear")

    def _blurred(self, views: Tensor, chance: Generator) -> Tensor:
        deviation = self._uniform(chance, 1, 0.5, 1.6)
        places = torch.arange(-_BLUR_REACH, _BLUR_REACH + 1, device=self._device, dtype=views.dtype)
        weights = torch.exp(-places.square() / (2 * deviation.square()))
        kernel = (weights / weights.sum()).reshape(1, 1, 1, -1).expand(3, 1, 1, -1)
        across = functional.conv2d(views, kernel, padding=(0, _BLUR_REACH), groups=3)
        return functional.conv2d(across, kernel.transpose(2, 3), padding=(_BLUR_REACH, 0), groups=3)

    def _noisy(self, views: Tensor, chance: Generator) -> Tensor:
        noise = torch.randn(views.shape, generator=chance, device=self._device)
        return views + noise * self._per_face(chance, len(views), 0, 12)

    def _grey(self, views: Tensor, chance: Generator) -> Tensor:
        del chance
        return views.mean(dim=1, keepdim=True).expand_as(views)

    def _covered(self, views: Tensor, chance: Generator) -> Tensor:
        """One rectangle of one grey over each face."""
        places = torch.arange(self._side, device=self._device)
        covered = [self._stretch(chance, len(views), places) for _ in range(2)]
        mask = (covered[0][:, :, None] & covered[1][:, None, :])[:, None]
        return torch.where(mask, self._per_face(chance, len(views), 0, 255), views)

    def _stretch(self, chance: Generator, count: int, places: Tensor) -> Tensor:
        start = self._uniform(chance, count, 0, self._side - self._part(40))[:, None]
        length = self._uniform(chance, count, self._part(10), self._part(40))[:, None]
        return (places >= start) & (places < start + length)

    def _part(self, pixels: int) -> int:
        """So many pixels of a view of 112, in pixels of a view."""
        return round(pixels * self._side / SIDE)

    def _lit(self, views: Tensor, chance: Generator) -> Tensor:
        count, settings = len(views), self._settings
        mean = views.mean(dim=(1, 2, 3), keepdim=True)
        contrast = self._per_face(chance, count, 1 - settings.contrast, 1 + settings.contrast)
        brightness = self._per_face(chance, count, 1 - settings.brightness, 1 + settings.brightness)
        tint = self._uniform(chance, 3 * count, 1 - settings.tint, 1 + settings.tint).reshape(count, 3, 1, 1)
        return ((views - mean) * contrast + mean * brightness) * tint

    def _per_face(self, chance: Generator, count: int, low: float, high: float) -> Tensor:
        return self._uniform(chance, count, low, high).reshape(count, 1, 1, 1)

    def _uniform(self, chance: Generator, count: int, low: float, high: float) -> Tensor:
        return torch.rand(count, generator=chance, device=self._device) * (high - low) + low

    def _normal(self, chance: Generator, count: int) -> Tensor:
        return torch.randn(count, generator=chance, device=self._device)


def centred(crops: Tensor) -> Tensor:
    """What the network sees when nothing happens: the middle 112 × 112 of stored crops."""
    edge = (STORED_SIDE - SIDE) // 2
    return crops[:, :, edge : edge + SIDE, edge : edge + SIDE]


def sampled(pictures: Tensor, maps: Tensor, *, side: int) -> Tensor:
    """Pictures through affine maps (n, 2, 3) from output to input, both from −1 to 1; the border is replicated."""
    grid = functional.affine_grid(maps, [len(pictures), 3, side, side], align_corners=False)
    return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)
