"""What several backbones are built of."""

from __future__ import annotations

from torch import Tensor, nn


def convolution(inputs: int, outputs: int, side: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution without bias that keeps the size at stride 1, and its normalisation."""
    return [
        nn.Conv2d(inputs, outputs, side, stride, side // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


def active_convolution(inputs: int, outputs: int, side: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """The same with ReLU, which onnxruntime computes within the convolution."""
    return nn.Sequential(*convolution(inputs, outputs, side, stride=stride, groups=groups), nn.ReLU(inplace=True))


def global_depthwise_head(inputs: int, hidden: int, dimension: int, *, side: int) -> nn.Sequential:
    """From a map of side × side to a vector: every channel weighs the places of the face itself.

    The global depthwise convolution of Chen, Liu, Gao & Han, arXiv 1804.07573, section 3.2.
    """
    return nn.Sequential(
        active_convolution(inputs, hidden, 1),
        nn.Conv2d(hidden, hidden, side, groups=hidden, bias=False),
        nn.BatchNorm2d(hidden),
        nn.Flatten(),
        nn.Linear(hidden, dimension),
    )


class Mean(nn.Module):
    """Of two maps: a layer of its own, so that learning with roundings rounds it as a file in 8 bits does."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return (first + second) * 0.5
