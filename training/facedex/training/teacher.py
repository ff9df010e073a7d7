"""Embedders whose opinion a smaller network learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from facedex.indexer.vision.alignment import fit_similarity
from facedex.indexer.vision.manifest import ChannelOrder, EmbedderContract, ModelManifest
from facedex.indexer.vision.models import open_embedder, read_manifest
from facedex.indexer.vision.network import open_network
from facedex.training.augmentation import sampled
from facedex.training.crops import STORED_LANDMARKS, STORED_SIDE
from facedex.training.errors import SettingsInvalid

Faces = NDArray[np.float32]
Embed = Callable[[Faces], Faces]

_GPU: Final = "CUDAExecutionProvider"


class Teacher:
    """One embedder in ONNX, with its manifest beside it, on the GPU where onnxruntime has one."""

    def __init__(self, onnx: Path, *, threads: int, device: torch.device) -> None:
        self.manifest = _manifest_beside(onnx)
        self._contract = _contract_of(self.manifest)
        graph = onnx.read_bytes()
        open_embedder(self.manifest, graph).try_out()
        self._run = _on_gpu(graph) or _on_cores(self.manifest, graph, threads)
        self._map = _from_its_crop_to_ours(self._contract).to(device)

    @property
    def dimension(self) -> int:
        return self._contract.dimension

    def __call__(self, crops: Tensor) -> Tensor:
        """Unit vectors (n, dimension) of stored crops (n, 3, 144, 144), BGR, 0 to 255."""
        faces = sampled(crops, self._map.expand(len(crops), 2, 3), side=self._contract.width)
        if self.manifest.input.channels is ChannelOrder.RGB:
            faces = faces.flip(1)
        faces = (faces - self.manifest.input.mean) * self.manifest.input.scale
        vectors = self._run(np.ascontiguousarray(faces.cpu().numpy()))
        return functional.normalize(torch.from_numpy(vectors)).to(crops.device)


@dataclass(frozen=True, slots=True)
class Teachers:
    """Several teachers as one: the cosine of their joined vectors is the mean of their cosines."""

    members: tuple[Teacher, ...]

    @staticmethod
    def of(files: Sequence[Path], *, threads: int, device: torch.device) -> Teachers:
        return Teachers(tuple(Teacher(file, threads=threads, device=device) for file in files))

    @property
    def dimension(self) -> int:
        return sum(member.dimension for member in self.members)

    def __call__(self, crops: Tensor) -> Tensor:
        return torch.cat([member(crops) for member in self.members], dim=1) / sqrt(len(self.members))

    def of_both_sides(self, crops: Tensor) -> Tensor:
        """Of the crop and its mirror image together: what both say is more about the person than what one says."""
        return functional.normalize(self(crops) + self(crops.flip(3)))


def _manifest_beside(onnx: Path) -> ModelManifest:
    return read_manifest(onnx.with_suffix(".toml"))


def _contract_of(manifest: ModelManifest) -> EmbedderContract:
    contract = manifest.embedder
    if contract is None or contract.width != contract.height:
        raise SettingsInvalid(f"{manifest.name} cannot teach: it must be an embedder with a square input")
    return contract


def _from_its_crop_to_ours(contract: EmbedderContract) -> Tensor:
    """The affine map (1, 2, 3) in coordinates from −1 to 1 over each crop's side, as torch wants it."""
    move = fit_similarity(contract.alignment, STORED_LANDMARKS)
    matrix = np.vstack([move.matrix, [0, 0, 1]])
    pixels = _pixels_of(contract.width)
    relative = np.linalg.inv(_pixels_of(STORED_SIDE)) @ matrix @ pixels
    return torch.from_numpy(relative[None, :2].astype(np.float32))


def _pixels_of(side: int) -> Any:
    """From −1 … 1 over the side to pixel centres."""
    return np.array([[side / 2, 0, (side - 1) / 2], [0, side / 2, (side - 1) / 2], [0, 0, 1]])


def _on_cores(manifest: ModelManifest, graph: bytes, threads: int) -> Embed:
    """One face after the other on each thread: faster than a batch, whose inner maps do not fit a core's cache."""
    network = open_network(manifest.name, graph, manifest.input)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="teacher")

    def embed(faces: Faces) -> Faces:
        outputs = pool.map(network.run, np.split(faces, len(faces)))
        vectors = [output[network.output_names[0]].reshape(1, -1) for output in outputs]
        return np.concatenate(vectors).astype(np.float32)  # some networks answer in 16 bits

    return embed


def _on_gpu(graph: bytes) -> Embed | None:
    """None where there is no GPU that onnxruntime can use."""
    if _GPU not in onnxruntime.get_available_providers():
        return None
    session: Any = onnxruntime.InferenceSession(graph, providers=[_GPU, "CPUExecutionProvider"])
    if _GPU not in session.get_providers():
        return None
    (taken,) = session.get_inputs()
    most = taken.shape[0] if isinstance(taken.shape[0], int) else None

    def embed(faces: Faces) -> Faces:
        size = most or len(faces)
        parts = [faces[start : start + size] for start in range(0, len(faces), size)]
        outputs = [session.run(None, {taken.name: part})[0].reshape(len(part), -1) for part in parts]
        return np.concatenate(outputs).astype(np.float32)

    return embed
