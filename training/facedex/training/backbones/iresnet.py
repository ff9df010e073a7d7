"""The improved ResNets of ArcFace, with the parameter names of InsightFace's arcface_torch, so that its weights load.

A block normalises before its first convolution and after its second, which holds the stride (Deng et al., CVPR 2019,
section 3.1, "IR"). https://github.com/deepinsight/insightface, recognition/arcface_torch.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

_CHANNELS: Final = (64, 128, 256, 512)
_REDUCTION: Final = 16


class Block(nn.Module):
    """Two 3 × 3 convolutions; `downsample` brings what went in to the shape of what comes out."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None if stride == 1 else _downsample(inputs, outputs, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        changed: Tensor = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(inputs))))))
        return changed + (inputs if self.downsample is None else self.downsample(inputs))


class IResNet(nn.Module):
    """Crops (n, 3, side, side) to vectors (n, dimension); `blocks` of the four stages, the side a multiple of 16."""

    def __init__(self, blocks: tuple[int, int, int, int], *, dimension: int = 512, side: int = 112) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _CHANNELS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_CHANNELS[0])
        self.prelu = nn.PReLU(_CHANNELS[0])
        self.layer1, self.layer2, self.layer3, self.layer4 = _layers(blocks)
        self.bn2 = nn.BatchNorm2d(_CHANNELS[-1])
        self.fc = nn.Linear(_CHANNELS[-1] * (side // _REDUCTION) ** 2, dimension)
        self.features = nn.BatchNorm1d(dimension)
        self.features.weight.requires_grad = False  # the vectors' lengths carry no meaning

    def forward(self, crops: Tensor) -> Tensor:
        stem = self.prelu(self.bn1(self.conv1(crops)))
        last = self.layer4(self.layer3(self.layer2(self.layer1(stem))))
        vectors: Tensor = self.features(self.fc(self.bn2(last).flatten(1)))
        return vectors


def _layers(blocks: tuple[int, ...]) -> list[nn.Sequential]:
    before = (_CHANNELS[0], *_CHANNELS[:-1])
    return [_layer(*shape) for shape in zip(before, _CHANNELS, blocks, strict=True)]


def _layer(inputs: int, outputs: int, count: int) -> nn.Sequential:
    first = Block(inputs, outputs, stride=2)
    return nn.Sequential(first, *(Block(outputs, outputs, stride=1) for _ in range(count - 1)))


def _downsample(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
