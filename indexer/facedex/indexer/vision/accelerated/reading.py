"""ONNX files as graphs."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper, numpy_helper

from facedex.indexer.vision.accelerated.graph import Graph, Node
from facedex.indexer.vision.errors import ModelUnusable


def read_graph(name: str, file: bytes) -> Graph:
    """The graph in an ONNX file.

    Raises:
        ModelUnusable: it is no ONNX file, or has several inputs.

    """
    try:
        graph = onnx.load_model_from_string(file).graph
    except Exception as problem:
        raise ModelUnusable(name, "it is no ONNX file") from problem
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    inputs = [each.name for each in graph.input if each.name not in constants]
    if len(inputs) != 1:
        raise ModelUnusable(name, "it must have one input of batch × 3 × height × width")
    nodes: list[Node] = []
    for each in graph.node:
        node = Node(each.op_type, tuple(each.input), tuple(each.output), _attributes(each))
        if node.operator == "Constant":
            constants[node.outputs[0]] = node.attributes["value"]
        else:
            nodes.append(node)
    return Graph(inputs[0], tuple(each.name for each in graph.output), tuple(nodes), constants)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: _plain(helper.get_attribute_value(each)) for each in node.attribute}


def _plain(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value.decode() if isinstance(value, bytes) else value
