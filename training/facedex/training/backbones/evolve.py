"""IR-50 with the parameter names of face.evoLVe, so that `backbone_ir50_ms1m_epoch120.pth` loads.

Unlike arcface_torch's, a block has no normalisation between its convolutions, and one that keeps the number of channels
takes what went in at every second pixel. https://github.com/ZhaoJ9014/face.evoLVe, backbone/model_irse.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from torch import Tensor, nn

_STAGES: Final = ((64, 3), (128, 4), (256, 14), (512, 3))
"""Channels, and how many blocks."""
_REDUCTION: Final = 16


class EvolveBlock(nn.Module):
    """Two 3 × 3 convolutions and the shortcut around them."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.shortcut_layer = _shortcut(inputs, outputs, stride)
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        changed: Tensor = self.res_layer(inputs)
        kept: Tensor = self.shortcut_layer(inputs)
        return changed + kept


class EvolveIR50(nn.Module):
    """Crops (n, 3, side, side) to vectors (n, dimension); the side is a multiple of 16."""

    def __init__(self, *, dimension: int = 512, side: int = 112) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        self.body = nn.Sequential(*_blocks())
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(),
            nn.Flatten(),
            nn.Linear(512 * (side // _REDUCTION) ** 2, dimension),
            nn.BatchNorm1d(dimension),
        )

    def forward(self, crops: Tensor) -> Tensor:
        vectors: Tensor = self.output_layer(self.body(self.input_layer(crops)))
        return vectors


def _blocks() -> Iterator[nn.Module]:
    inputs = 64
    for channels, count in _STAGES:
        for number in range(count):
            yield EvolveBlock(inputs, channels, stride=1 if number else 2)
            inputs = channels


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if inputs == outputs:
        return nn.MaxPool2d(1, stride)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
