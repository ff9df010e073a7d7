"""What a detector or embedder needs of a network, and an ONNX network on onnxruntime, one thread a run."""

import logging
import math
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from facedex.indexer.vision.errors import ModelUnusable
from facedex.indexer.vision.manifest import ChannelOrder, ModelInput, ModelKind, ModelManifest
from facedex.indexer.vision.rewrite import free_input_size, has_prelu, split_prelu

logger = logging.getLogger(__name__)

Tensor = NDArray[np.float32]
TOLERANCE = 1e-4
"""How far a rewritten network's outputs may be from the original's, relative to the largest of them."""


class FaceNetwork(Protocol):
    """A network with one picture-shaped input, on whatever runs it. Any number of threads may run it at the same time."""

    @property
    def output_names(self) -> tuple[str, ...]: ...

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Width and height, where it takes no others."""
        ...

    @property
    def most_at_once(self) -> int:
        """Pictures that gain by being run together; 1 where none do."""
        ...

    @property
    def takes_several(self) -> bool:
        """Whether it takes more than one picture at once, whether they gain by it or not."""
        ...

    def run(self, tensor: Tensor) -> dict[str, Tensor]:
        """Outputs by name, for pictures (n, 3, height, width). `ModelUnusable` where the network refuses the input."""
        ...


class Runtime(Protocol):
    """What runs networks: the processor, or a device."""

    def open(self, manifest: ModelManifest, graph: bytes) -> FaceNetwork:
        """Load the network in an ONNX file. Raises `ModelUnusable`."""
        ...


class OnProcessor:
    """Runs networks with onnxruntime on the processor's cores."""

    def open(self, manifest: ModelManifest, graph: bytes) -> "Network":
        if manifest.kind is ModelKind.DETECTOR:
            return open_with_free_size(manifest.name, graph, manifest.input)
        return open_network(manifest.name, graph, manifest.input)


class Network:
    """One loaded network with one picture-shaped input: batch × 3 × height × width."""

    def __init__(self, name: str, graph: bytes) -> None:
        self.name = name
        self.most_at_once = 1  # a batch is no faster on a processor's core, and may be slower
        try:
            self._session: Any = onnxruntime.InferenceSession(graph, _options(), providers=["CPUExecutionProvider"])
        except Exception as problem:  # onnxruntime's errors have no common base
            raise ModelUnusable(name, "onnxruntime cannot load it") from problem
        self.output_names: tuple[str, ...] = tuple(output.name for output in self._session.get_outputs())
        self.input_size = self._read_input_size()

    def run(self, tensor: Tensor) -> dict[str, Tensor]:
        """Outputs by name. `ModelUnusable` where the network refuses the input."""
        try:
            outputs = self._session.run(None, {self._input_name: tensor})
        except Exception as problem:
            raise ModelUnusable(self.name, f"it fails on an input of {tensor.shape}") from problem
        return dict(zip(self.output_names, outputs, strict=True))

    def _read_input_size(self) -> tuple[int, int] | None:
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise ModelUnusable(self.name, "it must have one input of batch × 3 × height × width")
        self._input_name: str = inputs[0].name
        batch, _, height, width = inputs[0].shape
        self.takes_several = not isinstance(batch, int)
        return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def open_network(name: str, graph: bytes, model_input: ModelInput) -> Network:
    """Load a network, with its PReLU split where that gives the same outputs on random input."""
    original = Network(name, graph)
    model = _parse(name, graph)
    if not has_prelu(model):
        return original
    return prefer_rewritten(original, split_prelu(model), random_input(model_input, original.input_size or (112, 112)))


def open_with_free_size(name: str, graph: bytes, model_input: ModelInput) -> Network:
    """Load a network; where its graph fixes the input size without need, free it."""
    original = Network(name, graph)
    if original.input_size is None:
        return original
    width, height = original.input_size
    freed = prefer_rewritten(
        original, free_input_size(_parse(name, graph)), random_input(model_input, original.input_size)
    )
    return freed if _takes(freed, random_input(model_input, (width // 2, height // 2))) else original


def _takes(network: Network, tensor: Tensor) -> bool:
    try:
        network.run(tensor)
    except ModelUnusable:
        return False
    return True


def tensor_of(picture: NDArray[np.uint8], model_input: ModelInput) -> Tensor:
    """A picture (height × width × 3, BGR) as the network sees it: 1 × 3 × height × width, `(pixel - mean) * scale`."""
    planes = picture[:, :, ::-1] if model_input.channels is ChannelOrder.RGB else picture
    tensor = planes.transpose(2, 0, 1)[None].astype(np.float32, order="C")
    tensor -= np.float32(model_input.mean)
    tensor *= np.float32(model_input.scale)
    return tensor


def random_input(model_input: ModelInput, size: tuple[int, int]) -> Tensor:
    """One seeded picture of noise as the network would see it; size is width, height."""
    width, height = size
    noise = np.random.default_rng(20260101).integers(0, 256, (height, width, 3))
    return tensor_of(noise.astype(np.uint8), model_input)


def prefer_rewritten(original: Network, rewritten_model: onnx.ModelProto, tensor: Tensor) -> Network:
    """The rewritten network where it loads and gives the outputs of the original for this input; else the original."""
    try:
        rewritten = Network(original.name, rewritten_model.SerializeToString())
        agrees = largest_deviation(original.run(tensor), rewritten.run(tensor)) <= TOLERANCE
    except ModelUnusable:
        agrees, rewritten = False, original
    if agrees:
        return rewritten
    logger.warning("model %s: the rewritten graph differs from the original, which is used instead", original.name)
    return original


def largest_deviation(expected: dict[str, Tensor], actual: dict[str, Tensor]) -> float:
    """The largest difference of two runs, relative to the largest expected value of the same output.

    Infinite where a shape differs, or something is no number.
    """
    return max(_deviation(expected[name], actual[name]) for name in expected)


def _deviation(expected: Tensor, actual: Tensor) -> float:
    if expected.shape != actual.shape:
        return math.inf
    deviation = float(np.abs(expected - actual).max() / (np.abs(expected).max() + 1e-12))
    return deviation if math.isfinite(deviation) else math.inf


def _parse(name: str, graph: bytes) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(graph)
    except Exception as problem:
        raise ModelUnusable(name, "it is no ONNX file") from problem


def _options() -> Any:
    """One thread: the server owns the parallelism, and two runs of one thread beat one run of two."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    return options
