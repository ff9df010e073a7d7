"""Networks of ONNX files on devices, proved against the processor before they are used."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from facedex.indexer.vision.accelerated.batches import Batches
from facedex.indexer.vision.accelerated.engine import MOST_AT_ONCE, Engine, Precision, compute_exactly
from facedex.indexer.vision.accelerated.graph import Graph
from facedex.indexer.vision.accelerated.module import GraphModule
from facedex.indexer.vision.accelerated.reading import read_graph
from facedex.indexer.vision.errors import ModelUnusable
from facedex.indexer.vision.manifest import ModelKind, ModelManifest
from facedex.indexer.vision.network import FaceNetwork, OnProcessor, Tensor, largest_deviation, tensor_of

logger = logging.getLogger(__name__)

LEAST_COSINE: Final = {Precision.SINGLE: 0.99999, Precision.HALF: 0.999}
"""Of the vectors of one picture, on the device and on the processor."""
LEAST_COSINE_OF_QUANTISED: Final = 0.998
"""Of a network in 8 bits in single precision: where a device rounds a value to the other step, that goes through all layers
behind. With torch on a processor, the built-in embedder gives the very vectors of onnxruntime."""
DETECTOR_TOLERANCE: Final = 1e-3
"""How far a detector's outputs may be from the processor's, relative to the largest of them."""
PROVING_PICTURES: Final = 3


class DeviceNetwork:
    """A network behind a queue of pictures, which all threads share."""

    def __init__(self, name: str, engines: Sequence[Engine], *, like: FaceNetwork, most_at_once: int) -> None:
        """`like` is the same network on the processor: it tells the names of the outputs and the size of the input."""
        self.name = name
        self.output_names = like.output_names
        self.input_size = like.input_size
        self.most_at_once = most_at_once
        self.takes_several = most_at_once > 1
        self.precision = engines[0].precision
        self._batches = Batches(engines, most_at_once=most_at_once)

    def run(self, tensor: Tensor) -> dict[str, Tensor]:
        """Outputs by name. `ModelUnusable` where the device fails; nothing is computed elsewhere instead."""
        try:
            outputs = self._batches.run(tensor)
        except RuntimeError as problem:
            raise ModelUnusable(self.name, f"the device failed ({_first_line(problem)})") from problem
        return dict(zip(self.output_names, outputs, strict=True))

    def close(self) -> None:
        self._batches.close()


@dataclass(frozen=True, slots=True)
class OnDevices:
    """Runs networks with torch on devices, all of them from one queue.

    What a network gives on noise is compared with what onnxruntime gives on the processor. Embedders run in half precision
    where that is close enough, else in single; detectors in single always, since their boxes decide what is embedded.
    """

    devices: tuple[str, ...]
    """As torch calls them: `cuda:0`."""
    precisions: tuple[Precision, ...] = (Precision.HALF, Precision.SINGLE)
    """What is tried for embedders, in this order."""

    def open(self, manifest: ModelManifest, graph: bytes) -> DeviceNetwork:
        """Raises ModelUnusable where an operator is not known, or the outputs differ from the processor's."""
        compute_exactly()
        expected = OnProcessor().open(manifest, graph)
        read = read_graph(manifest.name, graph)
        if manifest.kind is ModelKind.DETECTOR:
            return self._detector(manifest, read, expected)
        return self._embedder(manifest, read, expected)

    def _detector(self, manifest: ModelManifest, graph: Graph, expected: FaceNetwork) -> DeviceNetwork:
        engines = [Engine(GraphModule(manifest.name, graph), each, Precision.SINGLE) for each in self.devices]
        # A picture at a time: graphs of detectors reshape as if there were one.
        network = DeviceNetwork(manifest.name, engines, like=expected, most_at_once=1)
        picture = _noise(manifest, 1, size=expected.input_size or (160, 128))
        if (deviation := largest_deviation(expected.run(picture), network.run(picture))) > DETECTOR_TOLERANCE:
            network.close()
            raise ModelUnusable(manifest.name, f"on {self.devices[0]} its outputs are off by {deviation:.1e}")
        return network

    def _embedder(self, manifest: ModelManifest, graph: Graph, expected: FaceNetwork) -> DeviceNetwork:
        pictures = _noise(manifest, PROVING_PICTURES, size=_input_size(manifest, expected))
        vectors = np.concatenate([next(iter(expected.run(each[None]).values())) for each in pictures])
        modules = [GraphModule(manifest.name, graph) for _ in self.devices]
        for precision in self._precisions(modules[0]):
            engines = self._engines(modules, precision, shape=(pictures.shape[2], pictures.shape[3]))
            least = min(least_cosine(vectors, engine.run(pictures)[0]) for engine in engines)
            if least >= _least_allowed(precision, graph):
                return _recorded(
                    DeviceNetwork(manifest.name, engines, like=expected, most_at_once=MOST_AT_ONCE), engines
                )
            logger.info(
                "model %s: in %s precision, cosine %.5f to the processor's", manifest.name, precision.name, least
            )
        raise ModelUnusable(manifest.name, f"on {', '.join(self.devices)} its vectors are not those of the processor")

    def _precisions(self, module: GraphModule) -> tuple[Precision, ...]:
        return (Precision.SINGLE,) if module.needs_single_precision else self.precisions

    def _engines(self, modules: Sequence[GraphModule], precision: Precision, *, shape: tuple[int, int]) -> list[Engine]:
        return [
            # A copy: what half precision has rounded off does not come back.
            Engine(copy.deepcopy(module), device, precision, recorded_shape=shape)
            for module, device in zip(modules, self.devices, strict=True)
        ]


def _recorded(network: DeviceNetwork, engines: Sequence[Engine]) -> DeviceNetwork:
    for engine in engines:
        engine.record_all()
    return network


def _least_allowed(precision: Precision, graph: Graph) -> float:
    is_quantised = any("QuantizeLinear" in operator for operator in graph.operators)
    return LEAST_COSINE_OF_QUANTISED if is_quantised and precision is Precision.SINGLE else LEAST_COSINE[precision]


def _input_size(manifest: ModelManifest, network: FaceNetwork) -> tuple[int, int]:
    contract = manifest.embedder
    return (contract.width, contract.height) if contract else network.input_size or (112, 112)


def _noise(manifest: ModelManifest, count: int, *, size: tuple[int, int]) -> Tensor:
    """Seeded pictures of noise (count, 3, height, width) as the network would see them."""
    width, height = size
    noise = np.random.default_rng(20260101).integers(0, 256, (count, height, width, 3)).astype(np.uint8)
    return np.concatenate([tensor_of(each, manifest.input) for each in noise])


def least_cosine(expected: Tensor, actual: Tensor) -> float:
    """The least cosine between a vector (n, dimension) and its counterpart. NaN counts as none at all."""
    left, right = (each.reshape(len(each), -1).astype(np.float64) for each in (expected, actual))
    if left.shape != right.shape:
        return -1.0
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (left * right).sum(axis=1) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))
    return float(np.nan_to_num(cosines, nan=-1.0).min())


def _first_line(problem: Exception) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]
