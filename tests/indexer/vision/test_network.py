"""Rewritten graphs give the results of the original, or are not used."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from facedex.indexer.vision import network as network_module
from facedex.indexer.vision.errors import ModelUnusable
from facedex.indexer.vision.manifest import ChannelOrder, ModelInput
from facedex.indexer.vision.network import (
    TOLERANCE,
    Network,
    Tensor,
    largest_deviation,
    open_network,
    open_with_free_size,
    prefer_rewritten,
    random_input,
)
from facedex.indexer.vision.rewrite import has_prelu, split_prelu

INPUT = ModelInput(channels=ChannelOrder.BGR, mean=127.5, scale=1 / 127.5)


def small_net(*, height: int | str = 16, width: int | str = 16, steepest: float = 0.5) -> ModelProto:
    """Convolution, PReLU, convolution, PReLU, mean: the building blocks of an ArcFace net; slopes up to `steepest`."""
    generator = np.random.default_rng(3)
    weights = {
        "first": generator.normal(size=(8, 3, 3, 3)),
        "first_slope": generator.uniform(-0.5, steepest, size=(8, 1, 1)),
        "second": generator.normal(size=(4, 8, 3, 3)),
        "second_slope": generator.uniform(-0.5, steepest, size=(4, 1, 1)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"]),
        helper.make_node("PRelu", ["a", "first_slope"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"]),
        helper.make_node("PRelu", ["c", "second_slope"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 1, 1])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def flattening_net() -> ModelProto:
    """A net whose weights depend on the input size, which can therefore not be freed."""
    weights = numpy_helper.from_array(np.ones((3 * 16 * 16, 4), np.float32), "w")
    nodes = [helper.make_node("Flatten", ["x"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "flattening",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def with_other_slopes(model: ModelProto) -> ModelProto:
    """A wrong rewrite: it has no PReLU any more, and other results."""
    rewritten = split_prelu(model)
    for tensor in rewritten.graph.initializer:
        if tensor.name == "d/factors":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.01, tensor.name))
    return rewritten


def with_a_loose_end(model: ModelProto) -> ModelProto:
    """A wrong rewrite that no runtime can load."""
    rewritten = split_prelu(model)
    del rewritten.graph.node[2]
    return rewritten


def with_a_shared_slope(model: ModelProto) -> ModelProto:
    """One slope for all channels of the first PReLU."""
    for tensor in model.graph.initializer:
        if tensor.name == "first_slope":
            tensor.CopyFrom(numpy_helper.from_array(np.full((1, 1, 1), 0.25, np.float32), tensor.name))
    return model


def written_out(model: ModelProto, *, factor_first: bool = False) -> ModelProto:
    """Each PReLU(x, a) as relu(x) + (−a)·relu(−x), as some converters write it; or with the second part first."""
    graph = model.graph
    for slope in [each for each in graph.initializer if each.name.endswith("slope")]:
        slope.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(slope), slope.name))
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "PRelu":
            nodes.append(node)
            continue
        (x, slope_name), (y,) = node.input, node.output
        parts = [f"{y}/kept", f"{y}/scaled"]
        nodes += [
            helper.make_node("Relu", [x], [parts[0]]),
            helper.make_node("Neg", [x], [f"{y}/negated"]),
            helper.make_node("Relu", [f"{y}/negated"], [f"{y}/cut"]),
            helper.make_node("Mul", [f"{y}/cut", slope_name], [parts[1]]),
            helper.make_node("Add", parts[::-1] if factor_first else parts, [y]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


@pytest.mark.parametrize(
    "model",
    [
        small_net(),
        small_net(steepest=3.0),
        with_a_shared_slope(small_net()),
        written_out(small_net()),
        written_out(small_net(), factor_first=True),
        written_out(with_a_shared_slope(small_net(steepest=3.0))),
    ],
    ids=["gentle", "steep", "shared slope", "written out", "written out, other order", "shared slope written out"],
)
def test_a_net_without_prelu_gives_the_same_result(model: ModelProto) -> None:
    original = Network("small", model.SerializeToString())
    rewritten = Network("small", split_prelu(model).SerializeToString())
    tensor = random_input(INPUT, (16, 16))
    assert "PRelu" not in {node.op_type for node in split_prelu(model).graph.node}
    assert largest_deviation(original.run(tensor), rewritten.run(tensor)) < 1e-6


def operations(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_one_slope_for_all_channels_is_a_leaky_relu_to_the_last_bit() -> None:
    tensor = random_input(INPUT, (16, 16))
    model = with_a_shared_slope(small_net())
    second = next(each for each in model.graph.initializer if each.name == "second_slope")
    second.CopyFrom(numpy_helper.from_array(np.full((1, 1, 1), 3.5, np.float32), second.name))
    expected = Network("small", model.SerializeToString()).run(tensor)
    for form in (model, written_out(model)):
        rewritten = split_prelu(form)
        assert operations(rewritten) == ["Conv", "LeakyRelu", "Conv", "LeakyRelu", "GlobalAveragePool"]
        assert largest_deviation(expected, Network("small", rewritten.SerializeToString()).run(tensor)) == 0


def test_files_of_the_oldest_format_that_onnxruntime_takes_are_rewritten_too() -> None:
    """There, every constant is an input of the graph as well."""
    model = written_out(with_a_shared_slope(small_net()))
    model.ir_version = 3
    for each in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(each.name, TensorProto.FLOAT, each.dims))
    del model.graph.node[6:]  # up to the first PReLU, which has one slope
    model.graph.node[-1].output[0] = "y"
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 14, 14]))
    rewritten = split_prelu(model)
    assert operations(rewritten) == ["Conv", "LeakyRelu"]
    Network("small", rewritten.SerializeToString())


def test_what_a_branch_takes_from_outside_stays() -> None:
    model = written_out(with_a_shared_slope(small_net()))
    body = helper.make_graph(
        [helper.make_node("Identity", ["b/cut"], ["taken"])],
        "body",
        [],
        [helper.make_tensor_value_info("taken", TensorProto.FLOAT, None)],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.ones((), np.bool_), "always"))
    model.graph.node.append(helper.make_node("If", ["always"], ["z"], then_branch=body, else_branch=body))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    tensor = random_input(INPUT, (16, 16))
    original = Network("small", model.SerializeToString()).run(tensor)
    assert largest_deviation(original, Network("small", split_prelu(model).SerializeToString()).run(tensor)) < 1e-6


@pytest.mark.parametrize(
    "other", [np.zeros((1, 1, 4), np.float32), np.full((1, 4), np.nan, np.float32), np.full((1, 4), 2, np.float32)]
)
def test_outputs_of_another_shape_or_without_numbers_are_no_agreement(other: Tensor) -> None:
    right = np.ones((1, 4), np.float32)
    assert largest_deviation({"x": right, "y": right}, {"x": right, "y": right}) == 0
    assert largest_deviation({"x": right, "y": right}, {"x": right, "y": other}) >= 1


def test_a_sum_that_only_looks_like_a_prelu_stays() -> None:
    model = written_out(small_net())
    negations = [node for node in model.graph.node if node.op_type == "Neg"]
    for node in negations:
        node.input[0] = f"{node.input[0]}/other"
    assert not has_prelu(model)
    assert operations(split_prelu(model)) == operations(model)


def test_parts_of_a_prelu_that_others_need_stay() -> None:
    model = written_out(with_a_shared_slope(small_net()))
    model.graph.output.append(helper.make_tensor_value_info("b/cut", TensorProto.FLOAT, [1, 8, 14, 14]))
    tensor = random_input(INPUT, (16, 16))
    original = Network("small", model.SerializeToString()).run(tensor)
    rewritten = Network("small", split_prelu(model).SerializeToString()).run(tensor)
    assert original.keys() == rewritten.keys() == {"y", "b/cut"}
    assert largest_deviation(original, rewritten) < 1e-6


def quantised_net() -> ModelProto:
    """The same net with its input rounded to eight bits, as quantised nets round between layers."""
    model = small_net()
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.01, np.float32), "step"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(128, np.uint8), "zero"))
    rounding = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["rounded"]),
    ]
    nodes = list(model.graph.node)
    nodes[0].input[0] = "rounded"
    del model.graph.node[:]
    model.graph.node.extend([*rounding, *nodes])
    return model


def test_a_quantised_net_without_prelu_gives_the_same_bits() -> None:
    model = quantised_net()
    rewritten = Network("small", split_prelu(model).SerializeToString())
    tensor = random_input(INPUT, (16, 16))
    assert "PRelu" not in {node.op_type for node in split_prelu(model).graph.node}
    assert largest_deviation(Network("small", model.SerializeToString()).run(tensor), rewritten.run(tensor)) == 0


@pytest.mark.parametrize("wrong_rewrite", [with_other_slopes, with_a_loose_end])
def test_a_wrong_rewrite_is_noticed_and_the_original_used(
    wrong_rewrite: Callable[[ModelProto], ModelProto], caplog: pytest.LogCaptureFixture
) -> None:
    model = small_net()
    original = Network("small", model.SerializeToString())
    with caplog.at_level(logging.WARNING, logger=network_module.__name__):
        chosen = prefer_rewritten(original, wrong_rewrite(model), random_input(INPUT, (16, 16)))
    assert chosen is original
    assert "small" in caplog.text


def test_a_right_rewrite_is_used_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    model = small_net()
    original = Network("small", model.SerializeToString())
    assert prefer_rewritten(original, split_prelu(model), random_input(INPUT, (16, 16))) is not original
    assert caplog.text == ""


def test_opening_a_net_with_prelu_keeps_its_results() -> None:
    model = small_net()
    tensor = random_input(INPUT, (16, 16))
    opened = open_network("small", model.SerializeToString(), INPUT)
    original = Network("small", model.SerializeToString())
    assert largest_deviation(original.run(tensor), opened.run(tensor)) <= TOLERANCE


def test_an_input_size_that_a_graph_fixes_without_need_is_freed() -> None:
    opened = open_with_free_size("small", small_net().SerializeToString(), INPUT)
    assert opened.input_size is None
    assert opened.run(random_input(INPUT, (40, 24)))["y"].shape == (1, 4, 1, 1)


def test_an_input_size_that_the_weights_depend_on_stays() -> None:
    opened = open_with_free_size("flattening", flattening_net().SerializeToString(), INPUT)
    assert opened.input_size == (16, 16)


@pytest.mark.parametrize("graph", [b"", b"no network", small_net().SerializeToString()[:200]])
def test_what_is_no_network_is_unusable(graph: bytes) -> None:
    with pytest.raises(ModelUnusable):
        open_network("broken", graph, INPUT)


def test_a_net_with_another_kind_of_input_is_unusable() -> None:
    model = small_net()
    del model.graph.input[0].type.tensor_type.shape.dim[0]
    model.graph.node.remove(model.graph.node[0])
    model.graph.node[0].input[0] = "x"
    with pytest.raises(ModelUnusable):
        open_network("flat", model.SerializeToString(), INPUT)


def test_an_input_of_the_wrong_size_is_named() -> None:
    opened = open_network("small", small_net().SerializeToString(), INPUT)
    with pytest.raises(ModelUnusable, match=r"\(1, 3, 8, 8\)"):
        opened.run(np.zeros((1, 3, 8, 8), np.float32))


def test_the_rewrite_leaves_the_model_that_it_was_given_as_it_was() -> None:
    model = small_net()
    before = model.SerializeToString()
    split_prelu(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(split_prelu(model))
