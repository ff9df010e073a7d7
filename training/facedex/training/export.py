"""From a trained network to an ONNX file with its manifest, which `facedex-index models add` takes.

A file is written only after onnxruntime gave for it what torch gives for the network.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn
from torch.nn import functional

from facedex.indexer.vision.manifest import DetectorContract, ModelInput, ModelKind, RefinerContract, parse_manifest
from facedex.indexer.vision.models import ModelFile, refiner_beside, sha256_of, try_out
from facedex.training.errors import ExportDiffers

OPSET: Final = 17
TOLERANCE: Final = 1e-4
"""How far a component of a unit vector, or a detector's output relative to its largest, may be from torch's."""
_INPUT: Final = "input"
_LEAST_IN_16_BITS: Final = 256
_LEAST_IN_8_BITS: Final = 9_000
"""Weights of a layer: large layers have many to average over, and are most of the file."""


@dataclass(frozen=True, slots=True)
class Terms:
    """A model's name, and on which terms it may be used."""

    name: str
    licence: str = "unknown: say so with --licence"
    commercial_use: bool = False
    source: str = "trained with facedex-train"


class UnitVectors(nn.Module):
    """What is exported of an embedder: vectors of length 1."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> Tensor:
        return functional.normalize(self.network(crops))


class MirroredUnitVectors(UnitVectors):
    """The same for the crop and its mirror image together; half the speed, and clearly better."""

    def forward(self, crops: Tensor) -> Tensor:
        first, mirrored = super().forward(torch.cat([crops, crops.flip(3)])).chunk(2)
        return functional.normalize(first + mirrored)


def embedder_graph(network: nn.Module, *, side: int) -> bytes:
    """The ONNX file of an embedder for crops (n, 3, side, side), proved on random crops.

    Raises:
        ExportDiffers: onnxruntime computes something else than torch.

    """
    crops = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    graph = onnx_of(network, crops, outputs=["vector"], free={_INPUT: {0: "batch"}, "vector": {0: "batch"}})
    prove(network, graph, crops)
    return graph


def onnx_of(network: nn.Module, example: Tensor, *, outputs: Sequence[str], free: dict[str, dict[int, str]]) -> bytes:
    """The network in evaluation mode as an ONNX file; `free` names the axes whose length may change."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is called old, and is the one that needs no further package
        torch.onnx.export(
            network.cpu().eval(),
            (example,),
            Path(folder) / "network.onnx",
            dynamo=False,
            opset_version=OPSET,
            input_names=[_INPUT],
            output_names=list(outputs),
            dynamic_axes=free,
        )
        return (Path(folder) / "network.onnx").read_bytes()


def prove(network: nn.Module, graph: bytes, example: Tensor) -> float:
    """The largest difference between torch and onnxruntime, relative to the largest value of each output.

    Raises:
        ExportDiffers: it is beyond the tolerance.

    """
    with torch.inference_mode():
        expected = network(example)
    wanted = [expected] if isinstance(expected, Tensor) else list(expected)
    given = run_onnx(graph, example.numpy())
    differences = [_difference(one.numpy(), other) for one, other in zip(wanted, given, strict=True)]
    if max(differences) > TOLERANCE:
        raise ExportDiffers(max(differences), tolerance=TOLERANCE)
    return max(differences)


def run_onnx(graph: bytes, pictures: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The outputs of a graph on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return [np.asarray(each, np.float32) for each in session.run(None, {session.get_inputs()[0].name: pictures})]


def quantised(graph: bytes, samples: NDArray[np.float32]) -> bytes:
    """The same in 8 bits, with the ranges that it takes on these inputs (n, 3, height, width): a quarter of the size."""
    with tempfile.TemporaryDirectory() as folder:
        whole, prepared, small = (Path(folder) / f"{name}.onnx" for name in ("whole", "prepared", "small"))
        whole.write_bytes(graph)
        quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
        reader: Any = _Samples(samples)  # a protocol in all but name
        quantize_static(
            str(prepared),
            str(small),
            reader,
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # 7 bits: processors without VNNI add pairs of products in 16 bits, and saturate at 8
            # With its Relu, a layer's range is that of its answer: a step is smaller, and it is rounded once.
            op_types_to_quantize=["Conv", "Gemm", "Add", "MatMul", "Relu"],
        )
        return small.read_bytes()


def stored_smaller(graph: bytes, *, least_in_8_bits: int = _LEAST_IN_8_BITS) -> bytes:
    """The same network with its weights stored in 16 bits, and those of large layers in 8: 2.3 times as small or more.

    onnxruntime widens them once, when it opens the file, and computes in 32 bits as before: just as fast, and closer to
    the original than a network whose layers hand each other 8 bits.
    """
    model = onnx.load_from_string(graph)
    kernels = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    matrices = {node.input[1] for node in model.graph.node if node.op_type == "Gemm"}
    widened: list[onnx.NodeProto] = []
    for tensor in [each for each in model.graph.initializer if each.name in kernels | matrices]:
        weights = numpy_helper.to_array(tensor)
        if weights.size < _LEAST_IN_16_BITS:
            continue
        model.graph.initializer.remove(tensor)
        is_large = tensor.name in kernels and weights.size >= least_in_8_bits
        stored, nodes = _in_8_bits(tensor.name, weights) if is_large else _in_16_bits(tensor.name, weights)
        model.graph.initializer.extend(stored)
        widened += nodes
    for place, node in enumerate(widened):
        model.graph.node.insert(place, node)
    onnx.checker.check_model(model)
    smaller: bytes = model.SerializeToString()
    return smaller


def _in_16_bits(name: str, weights: NDArray[np.float32]) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    stored = numpy_helper.from_array(weights.astype(np.float16), f"{name}_stored")
    return [stored], [helper.make_node("Cast", [stored.name], [name], to=onnx.TensorProto.FLOAT)]


def _in_8_bits(name: str, weights: NDArray[np.float32]) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    """Each output channel has a scale of its own: its largest weight is 127."""
    largest = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True)
    scales = np.maximum(largest / 127, np.finfo(np.float32).tiny).astype(np.float32)
    stored = numpy_helper.from_array(np.rint(weights / scales).astype(np.int8), f"{name}_stored")
    scale = numpy_helper.from_array(scales, f"{name}_scale")
    wide = helper.make_node("Cast", [stored.name], [f"{name}_wide"], to=onnx.TensorProto.FLOAT)
    return [stored, scale], [wide, helper.make_node("Mul", [f"{name}_wide", scale.name], [name])]


class _Samples:
    """A calibration reader: hands samples to onnxruntime, a few at a time."""

    def __init__(self, samples: NDArray[np.float32]) -> None:
        self._parts: Iterator[NDArray[np.float32]] = iter(np.array_split(samples, max(1, len(samples) // 16)))

    def get_next(self) -> Any:
        part = next(self._parts, None)
        return None if part is None else {_INPUT: part}


def embedder_manifest(graph: bytes, terms: Terms, *, channels: str, scale: float, mirror_average: bool) -> str:
    """The manifest of a network that takes ArcFace crops, (pixel − 127.5) · scale."""
    (vectors,) = run_onnx(graph, np.zeros((1, 3, 112, 112), np.float32))
    return f"""\
{_head(graph, terms, ModelKind.EMBEDDER)}
[input]
width = 112
height = 112
channels = "{channels}"
mean = 127.5                     # (pixel - mean) * scale
scale = {scale!r}

[alignment]                      # the ArcFace template; replicate the border
points = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
border = "replicate"

[output]
dimension = {vectors.shape[1]}
mirror_average = {str(mirror_average).lower()}
"""


def detector_manifest(graph: bytes, terms: Terms, model_input: ModelInput, contract: DetectorContract) -> str:
    """The manifest of a network with YuNet's outputs, and of its refiner where the contract has one."""
    return f"""\
{_head(graph, terms, ModelKind.DETECTOR)}
[input]
{_input(model_input)}
multiple_of = {contract.multiple_of}                 # width and height

[output]
layout = "yunet"                 # cls, obj, bbox, kps at each stride; score = sqrt(cls * obj)
strides = [{", ".join(str(each) for each in contract.strides)}]
score_threshold = {contract.score_threshold:g}
nms_iou = {contract.nms_iou:g}
smallest_face_px = {contract.smallest_face_px:g}            # found reliably from this side on
{_refiner(terms.name, contract.refiner)}"""


def _refiner(name: str, contract: RefinerContract | None) -> str:
    if contract is None:
        return ""
    points = ", ".join(f"[{x:.4f}, {y:.4f}]" for x, y in contract.alignment)
    return f"""
[refiner]                        # {name}.refiner.onnx looks at each face again
sha256 = "{contract.sha256}"
{_input(contract.input)}
side = {contract.side}
points = [{points}]
score_threshold = {contract.score_threshold:g}
"""


def _input(model_input: ModelInput) -> str:
    return f"""\
channels = "{model_input.channels}"
mean = {model_input.mean:g}                     # (pixel - mean) * scale
scale = {model_input.scale!r}"""


def write_model(folder: Path, graph: bytes, manifest: str, *, refiner: bytes | None = None) -> ModelFile:
    """`NAME.onnx`, `NAME.toml` and the refiner's file, after facedex itself has opened the model and tried it out."""
    file = ModelFile(parse_manifest(manifest), graph, refiner)
    try_out(file)
    folder.mkdir(parents=True, exist_ok=True)
    onnx_file = folder / f"{file.manifest.name}.onnx"
    onnx_file.write_bytes(graph)
    if refiner is not None:
        refiner_beside(onnx_file).write_bytes(refiner)
    onnx_file.with_suffix(".toml").write_text(manifest, encoding="utf-8")
    return file


def _head(graph: bytes, terms: Terms, kind: ModelKind) -> str:
    return f"""\
name = {_quoted(terms.name)}
kind = "{kind}"
sha256 = "{sha256_of(graph)}"
licence = {_quoted(terms.licence)}
commercial_use = {str(terms.commercial_use).lower()}
source = {_quoted(terms.source)}
"""


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _difference(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
    return float(np.abs(expected - actual).max() / (np.abs(expected).max() + 1e-12))
