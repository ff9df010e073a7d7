"""Networks in 8 bits come to the very steps in torch that onnxruntime comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper

from facedex.indexer.vision.accelerated.module import GraphModule
from facedex.indexer.vision.accelerated.reading import read_graph
from facedex.indexer.vision.accelerated.whole_numbers import with_whole_numbers
from facedex.indexer.vision.network import Network

IN_STEPS = [
    helper.make_node("QuantizeLinear", ["sum", "y_scale", "y_zero"], ["rounded"]),
    helper.make_node("DequantizeLinear", ["rounded", "y_scale", "y_zero"], ["y"]),
]
AS_IT_IS = [helper.make_node("Identity", ["sum"], ["y"])]


@dataclass(frozen=True, slots=True)
class Net:
    """From `x` to `y`."""

    nodes: list[NodeProto]
    constants: Mapping[str, Any]
    shape: tuple[int, ...]

    @property
    def file(self) -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "quantised",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.asarray(each), name) for name, each in self.constants.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return bytes(made.SerializeToString())

    def answers(self, shown: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """What onnxruntime and torch make of noise, or of what is shown."""
        if shown is None:
            shown = np.random.default_rng(3).uniform(-2, 3, self.shape).astype(np.float32)
        (computed,) = GraphModule("quantised", read_graph("quantised", self.file))(torch.from_numpy(shown))
        return Network("quantised", self.file).run(shown)["y"], computed.numpy()

    @property
    def rewritten(self) -> list[str]:
        return [node.operator for node in with_whole_numbers(read_graph("quantised", self.file)).nodes]


def signal(name: str, source: str) -> list[NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [source, f"{name}_scale", f"{name}_zero"], [f"{name}_steps"]),
        helper.make_node("DequantizeLinear", [f"{name}_steps", f"{name}_scale", f"{name}_zero"], [f"{name}_again"]),
    ]


def weighed_sum(
    operator: str, weights: tuple[int, ...], *, source: str = "x", bias_factor: float = 1.0, **attributes: Any
) -> Net:
    """Products with weights that have a scale for each channel, added up."""
    generator, channels = np.random.default_rng(7), weights[0]
    scales = generator.uniform(0.001, 0.01, channels).astype(np.float32)
    constants = {
        "x_scale": np.float32(0.02),
        "x_zero": np.uint8(100),
        "w": generator.integers(-63, 64, weights).astype(np.int8),
        "w_scale": scales,
        "w_zero": np.zeros(channels, np.int8),
        "b": generator.integers(-5_000, 5_000, channels).astype(np.int32),
        "b_scale": scales * np.float32(0.02 * bias_factor),
        "b_zero": np.zeros(channels, np.int32),
        "y_scale": np.float32(0.03),
        "y_zero": np.uint8(120),
    }
    nodes = [
        *signal("x", source),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["weights"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "b_scale", "b_zero"], ["bias"], axis=0),
        helper.make_node(operator, ["x_again", "weights", "bias"], ["sum"], **attributes),
    ]
    return Net(nodes, constants, (1, 3, 64, 64))


def convolution(*behind: NodeProto, bias_factor: float = 1.0) -> Net:
    net = weighed_sum("Conv", (16, 3, 3, 3), bias_factor=bias_factor, pads=[1, 1, 1, 1])
    return Net([*net.nodes, *behind], net.constants, net.shape)


def fully_connected(*behind: NodeProto, **attributes: Any) -> Net:
    net = weighed_sum("Gemm", (32, 64), source="rows", transB=1, **attributes)
    rows = helper.make_node("Flatten", ["x"], ["rows"], axis=3)
    return Net([rows, *net.nodes, *behind], net.constants, net.shape)


@pytest.mark.parametrize("net", [convolution(*IN_STEPS), fully_connected(*IN_STEPS)], ids=["convolution", "all to all"])
def test_a_weighed_sum_comes_to_the_very_step_of_the_processor(net: Net) -> None:
    expected, computed = net.answers()
    assert len(np.unique(expected)) > 100
    np.testing.assert_array_equal(computed, expected)
    assert net.rewritten[-3:] == ["Mul", "QuantizeLinear", "DequantizeLinear"]


@pytest.mark.parametrize("net", [convolution(*AS_IT_IS), fully_connected(*AS_IT_IS)], ids=["convolution", "all to all"])
def test_a_weighed_sum_that_stays_a_number_is_the_same_number(net: Net) -> None:
    expected, computed = net.answers()
    np.testing.assert_allclose(computed, expected, rtol=1e-5, atol=1e-5)
    assert "Mul" in net.rewritten


@pytest.mark.parametrize(
    "net",
    [
        convolution(*IN_STEPS, bias_factor=3.0),
        fully_connected(*IN_STEPS, alpha=0.5),
        fully_connected(*IN_STEPS, beta=2.0),
    ],
    ids=["a bias with a scale of its own", "halved products", "a bias that counts twice"],
)
def test_what_is_no_plain_sum_is_computed_as_the_graph_says(net: Net) -> None:
    expected, computed = net.answers()
    assert "Mul" not in net.rewritten
    assert float(np.abs(computed - expected).max()) <= 0.0301  # one step


def addition(*behind: NodeProto, zeros: tuple[Any, Any, Any] = (np.uint8(0), np.uint8(131), np.uint8(0))) -> Net:
    """The first row of the picture and the second, each in 8 bits."""
    generator = np.random.default_rng(11)
    constants = {f"{name}_zero": zero for name, zero in zip("aby", zeros, strict=True)}
    constants |= {f"{name}_scale": np.float32(generator.uniform(0.01, 0.05)) for name in "aby"}
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], axis=1),
        *signal("a", "a"),
        *signal("b", "b"),
        helper.make_node("Add", ["a_again", "b_again"], ["sum"]),
        *behind,
    ]
    return Net(nodes, constants, (1, 2, 256, 256))


def all_pairs(net: Net) -> np.ndarray:
    """A picture whose two channels come to all pairs of 256 steps."""
    scales, zeros = ([net.constants[f"{name}_{what}"] for name in "ab"] for what in ("scale", "zero"))
    numbers = [
        (np.arange(256) + np.iinfo(zero.dtype).min - int(zero)) * scale
        for scale, zero in zip(scales, zeros, strict=True)
    ]
    return np.stack(np.meshgrid(*numbers, indexing="ij"))[None].astype(np.float32)


@pytest.mark.parametrize(
    "zeros",
    [
        (np.uint8(0), np.uint8(131), np.uint8(0)),
        (np.uint8(0), np.uint8(0), np.uint8(0)),
        (np.uint8(117), np.uint8(92), np.uint8(140)),
        (np.int8(0), np.int8(-7), np.int8(12)),
    ],
    ids=["behind a Relu", "of two Relus", "anywhere", "signed"],
)
def test_an_addition_comes_to_the_very_step_of_the_processor_for_every_pair(zeros: tuple[Any, Any, Any]) -> None:
    net = addition(*IN_STEPS, zeros=zeros)
    expected, computed = net.answers(all_pairs(net))
    assert len(np.unique(expected)) > 100
    np.testing.assert_array_equal(computed, expected)
    assert "QLinearAdd" in net.rewritten


def test_an_addition_that_others_take_too_is_computed_as_the_graph_says() -> None:
    again = [*IN_STEPS[:1], helper.make_node("DequantizeLinear", ["rounded", "y_scale", "y_zero"], ["z"])]
    net = addition(*again, helper.make_node("Sub", ["z", "sum"], ["y"]))
    expected, computed = net.answers(all_pairs(net))
    np.testing.assert_allclose(computed, expected, atol=1e-5)
    assert "Add" in net.rewritten


def test_nothing_is_computed_that_nobody_takes() -> None:
    idle = helper.make_node("Neg", ["x"], ["idle"])
    net = convolution(*IN_STEPS)
    assert "Neg" not in Net([idle, *net.nodes], net.constants, net.shape).rewritten
