"""The second look's network: one upright face at a time, so few channels see much."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from facedex.training.backbones.compact import Residual
from facedex.training.backbones.layers import active_convolution

SIDE: Final = 64
"""Width and height of its crops."""
_CHANNELS: Final = (16, 24, 48, 64)
_LAST_SIDE: Final = 4
POINTS: Final = 10


class RefinerNet(nn.Module):
    """Crops (n, 3, 64, 64) to (n, 11): five landmarks from −1 to 1 across the crop, x before y, and a logit."""

    def __init__(self) -> None:
        super().__init__()
        stages: list[nn.Module] = [active_convolution(3, _CHANNELS[0], 5, stride=2)]
        for before, after in pairwise(_CHANNELS):
            stages += [Residual(before), active_convolution(before, after, 3, stride=2)]
        self.features = nn.Sequential(*stages)
        self.head = nn.Linear(_CHANNELS[-1] * _LAST_SIDE**2, POINTS + 1)

    def forward(self, crops: Tensor) -> Tensor:
        values: Tensor = self.head(self.features(crops).flatten(1))
        return values


class RefinerOutputs(nn.Module):
    """What is exported: `landmarks` (n, 5, 2), in pixels of the crop, and `score` (n, 1)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        values = self.network(crops)
        landmarks = values[:, :POINTS].reshape(-1, 5, 2)
        return landmarks * (SIDE / 2) + (SIDE - 1) / 2, torch.sigmoid(values[:, POINTS:])
