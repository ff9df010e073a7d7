"""Convolutions of numbers in 8 bits, as convolutions of whole numbers.

Scaled first and added then, as the graph says it, a sum is rounded with each product; onnxruntime adds whole numbers and scales
the sum. The difference is small, but where a sum lies at half a step it decides which step comes out. Whole numbers below 2²⁴
are exact in single precision, in whichever order they are added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from facedex.indexer.vision.accelerated.graph import Array, Graph, Node


def with_whole_numbers(graph: Graph) -> Graph:
    """The same function: each convolution of dequantised numbers takes them before they are scaled, and its sum is scaled."""
    makers = {node.outputs[0]: node for node in graph.nodes if node.operator == "DequantizeLinear"}
    constants, nodes = dict(graph.constants), list[Node]()
    for node in graph.nodes:
        taken = [makers[name] for name in node.inputs if name in makers] if node.operator == "Conv" else []
        if 1 < len(taken) == len(node.inputs) and _can_be_scaled_afterwards(taken, graph.constants):
            nodes += _scaled_afterwards(node, taken, constants)
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes), constants=constants)


def _can_be_scaled_afterwards(taken: list[Node], constants: Mapping[str, Array]) -> bool:
    """One scale for the signal, one or one a channel for the weights, and the product of both for the bias."""
    signal, *parameters = taken
    if any(len(each.inputs) < 3 or any(name not in constants for name in each.inputs[1:]) for each in taken):
        return False
    if constants[signal.inputs[1]].size != 1 or any(each.inputs[0] not in constants for each in parameters):
        return False
    weights, *biases = parameters
    is_by_channel = constants[weights.inputs[1]].size == 1 or weights.attributes.get("axis", 1) == 0
    factors = _factors(signal, weights, constants)
    return is_by_channel and all(np.allclose(constants[each.inputs[1]], factors, rtol=1e-5) for each in biases)


def _factors(signal: Node, weights: Node, constants: Mapping[str, Array]) -> Array:
    factors: Array = constants[signal.inputs[1]].reshape(-1) * constants[weights.inputs[1]].reshape(-1)
    return factors.astype(np.float32)


def _scaled_afterwards(node: Node, taken: list[Node], constants: dict[str, Array]) -> tuple[Node, ...]:
    """The whole numbers of the signal, the convolution, and the product of both scales for each channel."""
    (result,) = node.outputs
    signal, weights, *biases = taken
    parameters = [f"{result}/weights", *[f"{result}/bias" for _ in biases]]
    for name, each in zip(parameters, [weights, *biases], strict=True):
        constants[name] = _whole(each, constants)
    constants[f"{result}/one"] = np.ones_like(constants[signal.inputs[1]])
    constants[f"{result}/factors"] = _factors(signal, weights, constants)[:, None, None]
    centred, total = f"{result}/centred", f"{result}/sum"
    return (
        replace(signal, inputs=(signal.inputs[0], f"{result}/one", signal.inputs[2]), outputs=(centred,)),
        replace(node, inputs=(centred, *parameters), outputs=(total,)),
        Node("Mul", (total, f"{result}/factors"), (result,), {}),
    )


def _whole(dequantised: Node, constants: Mapping[str, Array]) -> Array:
    """Constant numbers without their scale, as floating-point numbers; channels are their first axis."""
    values, zeros = (constants[dequantised.inputs[place]].astype(np.float32) for place in (0, 2))
    whole: Array = values - zeros.reshape(-1, *[1] * (values.ndim - 1))
    return whole
