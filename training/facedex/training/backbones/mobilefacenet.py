"""MobileFaceNet, with ReLU for PReLU, which onnxruntime runs several times slower.

Chen, Liu, Gao & Han, "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile Devices",
arXiv 1804.07573, table 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn

from facedex.training.backbones.layers import active_convolution, convolution, global_depthwise_head

_STEM: Final = 64
_HIDDEN: Final = 512
_REDUCTION: Final = 16


@dataclass(frozen=True, slots=True)
class _Stage:
    """Bottlenecks of the same width: expansion, output channels, how many, stride of the first."""

    expansion: int
    channels: int
    count: int
    stride: int


_STAGES: Final = (
    _Stage(2, 64, 5, 2),
    _Stage(4, 128, 1, 2),
    _Stage(2, 128, 6, 1),
    _Stage(4, 128, 1, 2),
    _Stage(2, 128, 2, 1),
)


class Bottleneck(nn.Module):
    """Wide in the middle, where each channel is filtered alone; what went in is added where the shape allows."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        self.change = nn.Sequential(
            active_convolution(inputs, middle, 1),
            active_convolution(middle, middle, 3, stride=stride, groups=middle),
            *convolution(middle, outputs, 1),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        changed: Tensor = self.change(inputs)
        return inputs + changed if self.adds else changed


class MobileFaceNet(nn.Module):
    """Crops (n, 3, side, side) to vectors (n, dimension); the side is a multiple of 16."""

    def __init__(self, dimension: int, *, side: int = 112) -> None:
        super().__init__()
        self.features = nn.Sequential(*_layers())
        self.head = global_depthwise_head(_STAGES[-1].channels, _HIDDEN, dimension, side=side // _REDUCTION)

    def forward(self, crops: Tensor) -> Tensor:
        vectors: Tensor = self.head(self.features(crops))
        return vectors


def _layers() -> Iterator[nn.Module]:
    yield active_convolution(3, _STEM, 3, stride=2)
    yield active_convolution(_STEM, _STEM, 3, groups=_STEM)
    inputs = _STEM
    for stage in _STAGES:
        for number in range(stage.count):
            stride = 1 if number else stage.stride
            yield Bottleneck(inputs, stage.channels, expansion=stage.expansion, stride=stride)
            inputs = stage.channels
