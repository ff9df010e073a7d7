"""The built-in embedder's network: few plain 3 × 3 convolutions.

They have three times the multiplications of depthwise ones for what they learn, and still win: on a CPU they train four to
five times as fast, run as fast, and lose little as int8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, cast

from torch import Tensor, nn
from torch.nn import functional

from facedex.training.backbones.layers import Mean, active_convolution, convolution, global_depthwise_head

_REDUCTION: Final = 16


@dataclass(frozen=True, slots=True)
class CompactShape:
    """Channels and residual blocks of the three stages (28, 14 and 7 px for a crop of 112 px), and the head's channels."""

    channels: tuple[int, int, int] = (32, 64, 128)
    blocks: tuple[int, int, int] = (1, 2, 2)
    hidden: int = 256
    inner: tuple[int, int, int] | None = None
    """Channels between the two convolutions of a stage's blocks; else as many as before and behind them."""
    mirrored: int = 0
    """How many of the first layers look at the face's mirror image too; what follows sees the mean of both."""


class Residual(nn.Module):
    """Two convolutions and what went in."""

    def __init__(self, channels: int, inner: int | None = None) -> None:
        super().__init__()
        self.inner = inner or channels
        self.change = nn.Sequential(active_convolution(channels, self.inner, 3), *convolution(self.inner, channels, 3))

    def forward(self, inputs: Tensor, *, mirrored: bool = False) -> Tensor:
        change = mirrored_through(self.change, inputs) if mirrored else self.change(inputs)
        return functional.relu(inputs + change)


class CompactNet(nn.Module):
    """Crops (n, 3, side, side) to vectors (n, dimension); the side is a multiple of 16."""

    def __init__(self, dimension: int, *, side: int = 112, shape: CompactShape | None = None) -> None:
        super().__init__()
        shape = shape or CompactShape()
        self.features = nn.Sequential(*_stages(shape))
        self.mean = Mean()
        self.head = global_depthwise_head(shape.channels[-1], shape.hidden, dimension, side=side // _REDUCTION)
        self._mirrored = shape.mirrored

    def forward(self, crops: Tensor) -> Tensor:
        first, rest = self.features[: self._mirrored], self.features[self._mirrored :]
        maps = first(crops)
        if self._mirrored:
            maps = self.mean(maps, mirrored_through(first, crops))
        vectors: Tensor = self.head(rest(maps))
        return vectors


def mirrored_through(layer: nn.Module, maps: Tensor) -> Tensor:
    """What a layer makes of the mirror images of maps, mirrored back: it sees the maps with its kernels mirrored.

    So both views lie upon each other. Mirrored maps themselves would, at stride 2, be seen one place aside.
    """
    if isinstance(layer, nn.Conv2d):
        kernels = layer.weight.flip(3)
        return functional.conv2d(maps, kernels, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    if isinstance(layer, Residual):
        return cast("Tensor", layer(maps, mirrored=True))
    if isinstance(layer, nn.Sequential):
        for each in layer:
            maps = mirrored_through(each, maps)
        return maps
    return cast("Tensor", layer(maps))


def _stages(shape: CompactShape) -> Iterator[nn.Module]:
    before, side, stride = 3, 7, 4
    for channels, inner, count in zip(shape.channels, shape.inner or shape.channels, shape.blocks, strict=True):
        yield active_convolution(before, channels, side, stride=stride)
        yield from (Residual(channels, inner) for _ in range(count))
        before, side, stride = channels, 3, 2
