"""Networks in 8 bits as sums of whole numbers, rounded as onnxruntime rounds them.

Computed as the graph says it, in floating-point numbers, a sum may be rounded to the other side of half a step. The difference
is one step, but it goes through all layers behind. onnxruntime adds whole numbers, and scales the sum once, to steps of the
answer. So does this: whole numbers below 2²⁴ are exact in single precision, in whichever order they are added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from facedex.indexer.vision.accelerated.graph import Array, Graph, Node

_SUMS: Final = frozenset({"Conv", "Gemm"})
_DIRECTLY: Final = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
"""A fully connected layer that multiplies with rows of weights, one a channel, and does nothing else."""


def with_whole_numbers(graph: Graph) -> Graph:
    """The same function: sums and additions of dequantised numbers take them before they are scaled."""
    return _Rewriting(graph).done()


class _Rewriting:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._constants = dict(graph.constants)
        self._dequantisers = {node.outputs[0]: node for node in graph.nodes if node.operator == "DequantizeLinear"}
        uses = Counter(name for node in graph.nodes for name in node.inputs) + Counter(graph.output_names)
        self._quantisers = {
            node.inputs[0]: node
            for node in graph.nodes
            if node.operator == "QuantizeLinear" and uses[node.inputs[0]] == 1 and _is_uniform(node, graph.constants)
        }

    def done(self) -> Graph:
        nodes = list[Node]()
        merged = set[str]()
        for node in self._graph.nodes:
            rewritten = tuple(self._rewritten(node))
            merged |= {name for each in rewritten for name in each.outputs}
            nodes += rewritten or ([] if node.outputs[0] in merged else [node])
        return replace(self._graph, nodes=_needed(nodes, self._graph.output_names), constants=self._constants)

    def _rewritten(self, node: Node) -> Iterator[Node]:
        """What takes its place, and that of the quantiser behind it; nothing where it stays."""
        taken = [self._dequantisers[name] for name in node.inputs if name in self._dequantisers]
        if not taken or len(taken) != len(node.inputs):
            return
        quantiser = self._quantisers.get(node.outputs[0])
        if node.operator in _SUMS and len(taken) > 1 and self._can_be_scaled_afterwards(node, taken):
            yield from self._scaled_afterwards(node, taken, quantiser)
        elif node.operator == "Add" and quantiser is not None and self._are_signals(taken):
            parameters = [name for each in taken for name in each.inputs]
            yield Node("QLinearAdd", (*parameters, *quantiser.inputs[1:]), quantiser.outputs, {})

    def _are_signals(self, taken: list[Node]) -> bool:
        return all(each.inputs[0] not in self._constants and _is_uniform(each, self._constants) for each in taken)

    def _can_be_scaled_afterwards(self, node: Node, taken: list[Node]) -> bool:
        """One scale for the signal, one or one a channel for the weights, and the product of both for the bias."""
        signal, *parameters = taken
        weights, *biases = parameters
        if not _is_uniform(signal, self._constants) or signal.inputs[0] in self._constants:
            return False
        if any(len(each.inputs) < 3 or any(name not in self._constants for name in each.inputs) for each in parameters):
            return False
        if node.operator == "Gemm" and any(
            node.attributes.get(name, usual) != usual for name, usual in _DIRECTLY.items()
        ):
            return False
        is_by_channel = self._constants[weights.inputs[1]].size == 1 or weights.attributes.get("axis", 1) == 0
        factors = self._factors(signal, weights)
        return is_by_channel and all(
            np.allclose(self._constants[each.inputs[1]], factors, rtol=1e-5) for each in biases
        )

    def _factors(self, signal: Node, weights: Node) -> Array:
        factors: Array = self._scale(signal) * self._scale(weights)
        return factors

    def _scale(self, node: Node) -> Array:
        scale: Array = self._constants[node.inputs[1]].reshape(-1).astype(np.float32)
        return scale

    def _scaled_afterwards(self, node: Node, taken: list[Node], quantiser: Node | None) -> Iterator[Node]:
        """The whole numbers of the signal, their sum, what each channel is multiplied with, and the steps of the answer."""
        (result,) = node.outputs
        signal, weights, *biases = taken
        centred, total, one = (f"{result}/{name}" for name in ("centred", "sum", "one"))
        parameters = [f"{result}/weights", *[f"{result}/bias" for _ in biases]]
        for name, each in zip(parameters, [weights, *biases], strict=True):
            self._constants[name] = self._whole(each)
        self._constants[one] = np.ones_like(self._constants[signal.inputs[1]])
        factors = self._factors(signal, weights)
        if quantiser is not None:
            factors = factors / self._scale(quantiser)
        self._constants[f"{result}/factors"] = factors.reshape(-1, 1, 1) if node.operator == "Conv" else factors
        yield replace(signal, inputs=(signal.inputs[0], one, signal.inputs[2]), outputs=(centred,))
        yield replace(node, inputs=(centred, *parameters), outputs=(total,))
        yield Node("Mul", (total, f"{result}/factors"), (result,), {})
        if quantiser is not None:
            yield replace(quantiser, inputs=(result, one, quantiser.inputs[2]))

    def _whole(self, dequantiser: Node) -> Array:
        """Constant numbers without their scale, as floating-point numbers; channels are their first axis."""
        values, zeros = (self._constants[dequantiser.inputs[place]].astype(np.float32) for place in (0, 2))
        whole: Array = values - zeros.reshape(-1, *[1] * (values.ndim - 1))
        return whole


def _is_uniform(node: Node, constants: Mapping[str, Array]) -> bool:
    """Whether one constant scale and one zero hold for all channels."""
    parameters = [constants.get(name) for name in node.inputs[1:]]
    return len(parameters) == 2 and all(each is not None and each.size == 1 for each in parameters)


def _needed(nodes: list[Node], outputs: tuple[str, ...]) -> tuple[Node, ...]:
    """Without those whose answers nobody takes any more."""
    wanted, kept = set(outputs), list[Node]()
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.outputs):
            wanted |= set(node.inputs)
            kept.append(node)
    return tuple(reversed(kept))
