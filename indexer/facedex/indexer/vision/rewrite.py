"""Changes to a network's graph that make it faster or wider in use and leave its results as they were.

Each is proved on random input by the caller before it is trusted: see `network.py`.
"""

from collections.abc import Iterator

import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper


def has_prelu(model: ModelProto) -> bool:
    return any(node.op_type == "PRelu" for node in model.graph.node)


def split_prelu(model: ModelProto) -> ModelProto:
    """Replace PReLU(x, a) by relu(x) − a·relu(−x), which onnxruntime computes several times faster."""
    rewritten = _copy(model)
    nodes = [new for node in model.graph.node for new in _without_prelu(node)]
    del rewritten.graph.node[:]
    rewritten.graph.node.extend(nodes)
    return rewritten


def _without_prelu(node: NodeProto) -> Iterator[NodeProto]:
    if node.op_type != "PRelu":
        yield node
        return
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
