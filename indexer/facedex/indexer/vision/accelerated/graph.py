"""The graph of a network as plain values: what an ONNX file says, with what can be computed beforehand computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. An input that is left out has no name."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Graph:
    """Operations in an order in which they can be done, on one picture-shaped input."""

    input_name: str
    output_names: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]

    @property
    def operators(self) -> frozenset[str]:
        return frozenset(node.operator for node in self.nodes)


def with_batch_norm_in_convolutions(graph: Graph) -> Graph:
    """The same function with each normalisation that follows a convolution, and nothing else does, made part of it."""
    uses = Counter(name for node in graph.nodes for name in node.inputs) + Counter(graph.output_names)
    makers = {node.outputs[0]: node for node in graph.nodes if node.operator == "Conv"}
    constants, gone, changed = dict(graph.constants), set[str](), dict[str, Node]()
    for node in graph.nodes:
        convolution = makers.get(node.inputs[0]) if node.operator == "BatchNormalization" else None
        if convolution is not None and uses[node.inputs[0]] == 1 and _is_constant(convolution, node, constants):
            joined = _joined(convolution, node, constants)
            changed[convolution.outputs[0]] = joined
            gone.add(node.outputs[0])
    kept = (node for node in graph.nodes if node.outputs[0] not in gone)
    return replace(
        graph, nodes=tuple(changed.get(node.outputs[0], node) for node in kept), constants=_used(constants, graph)
    )


def _is_constant(convolution: Node, norm: Node, constants: Mapping[str, Array]) -> bool:
    return all(name in constants for name in (*convolution.inputs[1:], *norm.inputs[1:]) if name)


def _joined(convolution: Node, norm: Node, constants: dict[str, Array]) -> Node:
    """A convolution with the normalisation in its weights, which are computed in double precision."""
    gain, shift = normalisation(norm, [constants[name] for name in norm.inputs[1:]])
    signal, kernel, *biases = convolution.inputs
    weights = constants[kernel].astype(np.float64)
    bias = constants[biases[0]] if biases and biases[0] else 0.0
    names = [f"{norm.outputs[0]}/weights", f"{norm.outputs[0]}/bias"]
    constants[names[0]] = (weights * gain[:, None, None, None]).astype(np.float32)
    constants[names[1]] = (bias * gain + shift).astype(np.float32)
    return replace(convolution, inputs=(signal, *names), outputs=norm.outputs[:1])


def normalisation(norm: Node, parameters: list[Array]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a BatchNormalization multiplies each channel with, and then adds; from scale, bias, mean and variance."""
    scale, bias, mean, variance = (each.astype(np.float64) for each in parameters)
    gain = scale / np.sqrt(variance + norm.attributes.get("epsilon", 1e-5))
    return gain, bias - mean * gain


def _used(constants: Mapping[str, Array], graph: Graph) -> dict[str, Array]:
    names = {name for node in graph.nodes for name in node.inputs}
    return {name: each for name, each in constants.items() if name in names or name not in graph.constants}
