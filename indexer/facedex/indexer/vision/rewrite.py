"""Changes to a network's graph that make it faster or wider in use and leave its results as they were.

Each is proved on random input by the caller before it is trusted: see `network.py`.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper


def has_prelu(model: ModelProto) -> bool:
    """Whether there is a PReLU, as one operation or written out as relu(x) + b·relu(−x)."""
    return any(node.op_type == "PRelu" for node in model.graph.node) or bool(_written_out(model.graph))


def split_prelu(model: ModelProto) -> ModelProto:
    """Replace PReLU(x, a) by operations that onnxruntime computes several times faster.

    With one slope for all channels it is a leaky ReLU, which the convolution before takes with it. Where a is a constant for
    each channel and at most 1, it is x + relu((a − 1)·x): the product is a depthwise convolution that takes the relu with
    it, and both parts stay in the layout of the convolutions around them. Else it is relu(x) − a·relu(−x), which is the same
    to the last bit: in a quantised net, a difference in the last bit becomes one of a whole step.
    """
    rewritten = _copy(model)
    _join_written_out(rewritten.graph)
    is_quantised = any("QuantizeLinear" in node.op_type for node in rewritten.graph.node)
    slopes = _slopes(rewritten.graph)
    nodes = [
        new
        for node in rewritten.graph.node
        for new in _without_prelu(node, slopes, rewritten.graph, is_quantised=is_quantised)
    ]
    _set_nodes(rewritten.graph, nodes)
    _drop_unused_constants(rewritten.graph)
    return rewritten


def _written_out(graph: GraphProto) -> dict[str, tuple[str, str]]:
    """Of each relu(x) + b·relu(−x) with a constant b: the name of the sum, and those of x and b."""
    makers = {name: node for node in graph.node for name in node.output}
    constants = {each.name for each in graph.initializer}
    found: dict[str, tuple[str, str]] = {}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for kept, scaled in (node.input, reversed(node.input)):
            signal = _input_of(makers.get(kept), "Relu")
            product = makers.get(scaled)
            if signal is None or product is None or product.op_type != "Mul" or product.input[1] not in constants:
                continue
            negated = _input_of(makers.get(product.input[0]), "Relu")
            if negated is not None and _input_of(makers.get(negated), "Neg") == signal:
                found[node.output[0]] = signal, product.input[1]
    return found


def _input_of(node: NodeProto | None, operation: str) -> str | None:
    return node.input[0] if node is not None and node.op_type == operation else None


def _join_written_out(graph: GraphProto) -> None:
    """Makes one PReLU of each that is written out, and drops the parts that nobody needs then."""
    written_out = _written_out(graph)
    constants = {each.name: each for each in graph.initializer}
    for result, (_, factor) in written_out.items():
        slope = -numpy_helper.to_array(constants[factor])
        graph.initializer.append(numpy_helper.from_array(slope, f"{result}/slope"))
    nodes = [
        helper.make_node("PRelu", [written_out[node.output[0]][0], f"{node.output[0]}/slope"], list(node.output))
        if node.output[0] in written_out
        else node
        for node in graph.node
    ]
    _set_nodes(graph, _needed(nodes, graph) if written_out else nodes)


def _needed(nodes: list[NodeProto], graph: GraphProto) -> list[NodeProto]:
    """Without those whose results nothing is made of; nodes stand behind what they need."""
    wanted = Counter(each.name for each in graph.output)
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if any(wanted[name] for name in node.output):
            wanted.update(_names_used(node))
            kept.append(node)
    return kept[::-1]


def _names_used(node: NodeProto) -> Iterator[str]:
    """What a node takes, and what the bodies of loops and branches take from outside, and of their own."""
    yield from node.input
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            for inner in body.node:
                yield from _names_used(inner)
            yield from (each.name for each in body.output)


def _drop_unused_constants(graph: GraphProto) -> None:
    """Of both the model's and ours; old versions of the format ask for more where one is no input of the graph."""
    used = {name for node in graph.node for name in _names_used(node)}
    used |= {each.name for each in (*graph.input, *graph.output)}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _slopes(graph: GraphProto) -> dict[str, NDArray[np.float32]]:
    """Constant slopes by name."""
    wanted = {node.input[1] for node in graph.node if node.op_type == "PRelu"}
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer if each.name in wanted}
    return {name: slope for name, slope in constants.items() if slope.dtype == np.float32}


def _without_prelu(
    node: NodeProto, slopes: dict[str, NDArray[np.float32]], graph: GraphProto, *, is_quantised: bool
) -> Iterator[NodeProto]:
    if node.op_type != "PRelu":
        yield node
        return
    slope = slopes.get(node.input[1])
    if slope is not None and slope.size == 1:
        yield helper.make_node("LeakyRelu", [node.input[0]], list(node.output), alpha=float(slope.item()))
    elif slope is not None and not is_quantised and _is_of_channels(slope) and slope.max() <= 1:
        factors = numpy_helper.from_array((slope - 1)[:, None], f"{node.output[0]}/factors")
        graph.initializer.append(factors)
        yield from _by_convolution(node, factors.name, channels=len(slope))
    else:
        yield from _by_parts(node)


def _is_of_channels(slope: NDArray[np.float32]) -> bool:
    return slope.ndim == 3 and slope.shape[0] > 1 and slope.shape[1:] == (1, 1)


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


def _set_nodes(graph: GraphProto, nodes: list[NodeProto]) -> None:
    del graph.node[:]
    graph.node.extend(nodes)


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
