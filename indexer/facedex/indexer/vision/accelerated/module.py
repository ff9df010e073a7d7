"""A graph as a module of torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facedex.indexer.vision.accelerated.graph import Array, Graph, Node, with_batch_norm_in_convolutions
from facedex.indexer.vision.accelerated.operators import IN_SINGLE_PRECISION, ON_HOST, OPERATORS
from facedex.indexer.vision.accelerated.whole_numbers import with_whole_numbers
from facedex.indexer.vision.errors import ModelUnusable


@dataclass(frozen=True, slots=True)
class _Step:
    """A node, and the values that nobody needs behind it."""

    node: Node
    done_with: tuple[str, ...]


class GraphModule(nn.Module):
    """Computes what the graph says, of any number of pictures, and in the precision that its weights are moved to.

    Raises ModelUnusable where the graph has an operator that is not known here.
    """

    def __init__(self, name: str, graph: Graph) -> None:
        super().__init__()
        if unknown := sorted(graph.operators - OPERATORS.keys()):
            raise ModelUnusable(name, f"{', '.join(unknown)} is not known on a GPU: use --device cpu")
        self.model_name = name
        simplified = with_batch_norm_in_convolutions(_computed_beforehand(with_whole_numbers(graph)))
        self._graph = simplified
        self._steps = _steps(simplified)
        self._host: dict[str, Array] = {}
        self._buffer_of: dict[str, str] = {}
        self._place_constants(simplified)

    @property
    def needs_single_precision(self) -> bool:
        """Whether half precision would change what is computed."""
        return not IN_SINGLE_PRECISION.isdisjoint(self._graph.operators)

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """The outputs, in their order, of pictures (n, 3, height, width)."""
        values: dict[str, Any] = {self._graph.input_name: pictures}
        for step in self._steps:
            outputs = OPERATORS[step.node.operator](step.node, [self._value(name, values) for name in step.node.inputs])
            values.update(zip(step.node.outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=False))
            for name in step.done_with:  # else a batch of pictures would need the memory of all layers at once
                del values[name]
        return tuple(values[name] for name in self._graph.output_names)

    def _value(self, name: str, values: Mapping[str, Any]) -> Any:
        if name in values:
            return values[name]
        if name in self._host:
            return self._host[name]
        return getattr(self, self._buffer_of[name]) if name else None

    def _place_constants(self, graph: Graph) -> None:
        on_device = {name for node in graph.nodes for name in _inputs_on_device(node)}
        for number, (name, array) in enumerate(graph.constants.items()):
            if name not in on_device or array.dtype == np.int64:
                self._host[name] = array
            else:
                self._buffer_of[name] = f"constant_{number}"
                self.register_buffer(f"constant_{number}", _tensor(array))


def _inputs_on_device(node: Node) -> tuple[str, ...]:
    return node.inputs[: ON_HOST.get(node.operator, len(node.inputs))]


def _steps(graph: Graph) -> tuple[_Step, ...]:
    last_use = {name: number for number, node in enumerate(graph.nodes) for name in (*node.inputs, *node.outputs)}
    kept = {*graph.output_names, *graph.constants, ""}
    done: dict[int, list[str]] = {}
    for name, number in last_use.items():
        if name not in kept:
            done.setdefault(number, []).append(name)
    return tuple(_Step(node, tuple(done.get(number, ()))) for number, node in enumerate(graph.nodes))


def _computed_beforehand(graph: Graph) -> Graph:
    """Without what depends on no picture: weights that are kept in 8 bits are made floating-point numbers once."""
    constants, nodes = dict(graph.constants), list[Node]()
    for node in graph.nodes:
        if all(name in constants for name in node.inputs if name) and node.inputs:
            constants.update(zip(node.outputs, _computed(node, constants), strict=False))
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes), constants=_needed(constants, nodes, graph.output_names))


def _computed(node: Node, constants: Mapping[str, Array]) -> Iterable[Array]:
    on_device = len(_inputs_on_device(node))
    arrays = [constants[name] if name else None for name in node.inputs]
    inputs = [
        each if each is None or place >= on_device or each.dtype == np.int64 else _tensor(each)
        for place, each in enumerate(arrays)
    ]
    outputs = OPERATORS[node.operator](node, inputs)
    return (
        each.numpy() if isinstance(each, Tensor) else each
        for each in (outputs if isinstance(outputs, tuple) else (outputs,))
    )


def _needed(constants: Mapping[str, Array], nodes: Iterable[Node], outputs: Iterable[str]) -> dict[str, Array]:
    names = {name for node in nodes for name in node.inputs} | set(outputs)
    return {name: array for name, array in constants.items() if name in names}


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.array(array))
