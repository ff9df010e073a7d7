"""A single-shot face detector with five landmarks, small enough for a CPU.

Three maps at strides 8, 16 and 32. Each cell (column c, row r) says, in strides: where the box's centre is, relative to
(c, r), the logarithms of its width and height, and where the five landmarks are; and how sure it is. That is the
parametrisation of YuNet (Wu, Peng & Yu, Machine Intelligence Research 20, 2023), with one score for its two.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from facedex.training.backbones.compact import Residual
from facedex.training.backbones.layers import active_convolution

STRIDES: Final = (8, 16, 32)
VALUES: Final = 15
"""Of a cell: score (a logit), box (4), landmarks (10)."""
_CHANNELS: Final = (16, 32, 48, 64)
_SHARED: Final = 32
_FIRST_SCORE: Final = -4.0
"""As if one cell in fifty were a face: else the many empty cells drown the first steps."""


class FaceFinder(nn.Module):
    """Pictures (n, 3, height, width), sides multiples of 32, to a map (n, 15, height / stride, width / stride) a stride."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            active_convolution(3, _CHANNELS[0], 3, stride=2),
            active_convolution(_CHANNELS[0], _CHANNELS[0], 3, stride=2),
        )
        self.stages = nn.ModuleList(
            nn.Sequential(active_convolution(before, after, 3, stride=2), Residual(after))
            for before, after in pairwise(_CHANNELS)
        )
        self.laterals = nn.ModuleList(active_convolution(channels, _SHARED, 1) for channels in _CHANNELS[1:])
        self.smooths = nn.ModuleList(active_convolution(_SHARED, _SHARED, 3) for _ in STRIDES)
        self.heads = nn.ModuleList(_head() for _ in STRIDES)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        seen, stages = self.stem(pictures), list[Tensor]()
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            seen = stage(seen)
            stages.append(lateral(seen))
        for fine in range(len(STRIDES) - 2, -1, -1):
            stages[fine] = stages[fine] + functional.interpolate(stages[fine + 1], scale_factor=2.0, mode="nearest")
        return [head(smooth(each)) for head, smooth, each in zip(self.heads, self.smooths, stages, strict=True)]


class YuNetOutputs(nn.Module):
    """What is exported: cls, obj, bbox and kps of each stride, (n, cells, 1, 1, 4 and 10). cls and obj are the one score."""

    def __init__(self, finder: nn.Module) -> None:
        super().__init__()
        self.finder = finder

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        cells = [each.permute(0, 2, 3, 1).flatten(1, 2) for each in self.finder(pictures)]
        scores = [torch.sigmoid(each[..., :1]) for each in cells]
        again = [score * 1.0 for score in scores]  # two outputs cannot be one tensor
        return (*scores, *again, *(each[..., 1:5] for each in cells), *(each[..., 5:] for each in cells))


def output_names() -> list[str]:
    """Of `YuNetOutputs`, in its order."""
    return [f"{part}_{stride}" for part in ("cls", "obj", "bbox", "kps") for stride in STRIDES]


def _head() -> nn.Conv2d:
    head = nn.Conv2d(_SHARED, VALUES, 1)
    with torch.no_grad():
        if head.bias is not None:
            head.bias.zero_()
            head.bias[0] = _FIRST_SCORE
    return head
