"""A MobileFaceNet with PReLU and random weights, as an ONNX graph.

Chen, Liu, Gao & Han, "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile Devices",
arXiv 1804.07573, table 1, with 512 components instead of 128 as the published ArcFace models have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE = 112
DIMENSION = 512
OPSET, IR_VERSION = 13, 8


@dataclass(frozen=True, slots=True)
class Stage:
    """Bottlenecks of the same width: expansion, output channels, how many, stride of the first."""

    expansion: int
    channels: int
    count: int
    stride: int


STAGES = (Stage(2, 64, 5, 2), Stage(4, 128, 1, 2), Stage(2, 128, 6, 1), Stage(4, 128, 1, 2), Stage(2, 128, 2, 1))


class Activation(Enum):
    PRELU = "prelu"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Filter:
    """A convolution: side of its square kernel, stride, padding, and into how many groups it parts the channels."""

    side: int
    stride: int
    padding: int
    groups: int = 1


POINT = Filter(1, 1, 0)


def mobilefacenet(*, seed: int = 1, activation: Activation = Activation.PRELU) -> bytes:
    """The graph: input 1 × 3 × 112 × 112, output 1 × 512."""
    return _Builder(np.random.default_rng(seed), activation).build().SerializeToString()


class _Builder:
    def __init__(self, rng: np.random.Generator, activation: Activation) -> None:
        self._rng = rng
        self._activation = activation
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def build(self) -> onnx.ModelProto:
        signal = self._layer("input", 3, 64, Filter(3, 2, 1), self._activation)
        signal = self._layer(signal, 64, 64, Filter(3, 1, 1, groups=64), self._activation)
        channels = 64
        for stage in STAGES:
            signal = self._stage(signal, channels, stage)
            channels = stage.channels
        signal = self._layer(signal, channels, 512, POINT, self._activation)
        signal = self._layer(signal, 512, 512, Filter(7, 1, 0, groups=512), Activation.NONE)
        signal = self._layer(signal, 512, DIMENSION, POINT, Activation.NONE)
        self._node("Flatten", [signal], "vector", axis=1)
        return self._model()

    def _stage(self, signal: str, channels: int, stage: Stage) -> str:
        for number in range(stage.count):
            incoming = channels if number == 0 else stage.channels
            stride = stage.stride if number == 0 else 1
            result = self._bottleneck(signal, incoming, stage, stride)
            keeps_shape = stride == 1 and incoming == stage.channels
            signal = self._node("Add", [signal, result]) if keeps_shape else result
        return signal

    def _bottleneck(self, signal: str, channels: int, stage: Stage, stride: int) -> str:
        wide = channels * stage.expansion
        signal = self._layer(signal, channels, wide, POINT, self._activation)
        signal = self._layer(signal, wide, wide, Filter(3, stride, 1, groups=wide), self._activation)
        return self._layer(signal, wide, stage.channels, POINT, Activation.NONE)

    def _layer(self, signal: str, channels: int, filters: int, shape: Filter, activation: Activation) -> str:
        fan_in = channels // shape.groups * shape.side**2
        kernels = self._rng.normal(0, np.sqrt(2 / fan_in), (filters, channels // shape.groups, shape.side, shape.side))
        signal = self._node(
            "Conv",
            [signal, self._weight(kernels)],
            kernel_shape=[shape.side, shape.side],
            strides=[shape.stride, shape.stride],
            pads=[shape.padding] * 4,
            group=shape.groups,
        )
        signal = self._node("BatchNormalization", [signal, *self._statistics(filters)])
        if activation is Activation.NONE:
            return signal
        return self._node("PRelu", [signal, self._weight(self._rng.uniform(0.05, 0.4, (filters, 1, 1)))])

    def _statistics(self, filters: int) -> list[str]:
        """Scale, bias, mean and variance of a batch normalisation."""
        scale, variance = (self._rng.uniform(0.8, 1.2, filters) for _ in range(2))
        bias, mean = (self._rng.normal(0, 0.1, filters) for _ in range(2))
        return [self._weight(each) for each in (scale, bias, mean, variance)]

    def _weight(self, values: NDArray[np.float64]) -> str:
        name = f"weight{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def _node(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        output = output or f"signal{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _model(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self._nodes,
            "mobilefacenet",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
            [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [1, DIMENSION])],
            self._weights,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
