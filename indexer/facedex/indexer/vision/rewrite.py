"""Changes to a network's graph that make it faster or wider in use and leave its results as they were.

Each is proved on random input by the caller before it is trusted: see `network.py`.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper


def has_prelu(model: ModelProto) -> bool:
    return any(node.op_type == "PRelu" for node in model.graph.node)


def split_prelu(model: ModelProto) -> ModelProto:
    """Replace PReLU(x, a) by operations that onnxruntime computes several times faster.

    Where a is a constant for each channel and at most 1, as x + relu((a − 1)·x): the product is a depthwise convolution
    that takes the relu with it, and both parts stay in the layout of the convolutions around them. Else as
    relu(x) − a·relu(−x), which is the same to the last bit: in a quantised net, a difference in the last bit becomes one
    of a whole step.
    """
    rewritten = _copy(model)
    slopes = {} if _is_quantised(model.graph) else _slopes_of_channels(model.graph)
    nodes = [new for node in model.graph.node for new in _without_prelu(node, slopes, rewritten.graph)]
    del rewritten.graph.node[:]
    rewritten.graph.node.extend(nodes)
    return rewritten


def _is_quantised(graph: GraphProto) -> bool:
    return any("QuantizeLinear" in node.op_type for node in graph.node)


def _slopes_of_channels(graph: GraphProto) -> dict[str, NDArray[np.float32]]:
    """Slopes (channels, 1, 1) by name, where each of several channels has its own and none is above 1."""
    wanted = {node.input[1] for node in graph.node if node.op_type == "PRelu"}
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer if each.name in wanted}
    return {name: slope for name, slope in constants.items() if _is_of_channels(slope) and slope.max() <= 1}


def _is_of_channels(slope: NDArray[np.float32]) -> bool:
    return slope.ndim == 3 and slope.shape[0] > 1 and slope.shape[1:] == (1, 1) and slope.dtype == np.float32


def _without_prelu(node: NodeProto, slopes: dict[str, NDArray[np.float32]], graph: GraphProto) -> Iterator[NodeProto]:
    if node.op_type != "PRelu":
        yield node
    elif node.input[1] in slopes:
        factors = numpy_helper.from_array((slopes[node.input[1]] - 1)[:, None], f"{node.output[0]}/factors")
        graph.initializer.append(factors)
        yield from _by_convolution(node, factors.name, channels=len(slopes[node.input[1]]))
    else:
        yield from _by_parts(node)


def _by_convolution(node: NodeProto, factors: str, *, channels: int) -> Iterator[NodeProto]:
    signal, (result,) = node.input[0], node.output
    scaled, lifted = f"{result}/scaled", f"{result}/lifted"
    yield helper.make_node("Conv", [signal, factors], [scaled], kernel_shape=[1, 1], group=channels)
    yield helper.make_node("Relu", [scaled], [lifted])
    yield helper.make_node("Add", [signal, lifted], [result])


def _by_parts(node: NodeProto) -> Iterator[NodeProto]:
    signal, slope = node.input
    (result,) = node.output
    kept, negated, cut, scaled = (f"{result}/{part}" for part in ("kept", "negated", "cut", "scaled"))
    yield helper.make_node("Relu", [signal], [kept])
    yield helper.make_node("Neg", [signal], [negated])
    yield helper.make_node("Relu", [negated], [cut])
    yield helper.make_node("Mul", [cut, slope], [scaled])
    yield helper.make_node("Sub", [kept, scaled], [result])


def free_input_size(model: ModelProto) -> ModelProto:
    """Let the one input take any width and height, where the graph itself does not depend on them."""
    rewritten = _copy(model)
    _free(rewritten.graph)
    return rewritten


def _free(graph: GraphProto) -> None:
    _, _, height, width = graph.input[0].type.tensor_type.shape.dim
    height.dim_param, width.dim_param = "height", "width"
    del graph.value_info[:]
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")


def _copy(model: ModelProto) -> ModelProto:
    duplicate = onnx.ModelProto()
    duplicate.CopyFrom(model)
    return duplicate
