"""From an aligned crop to a unit vector."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facedex.indexer.vision.errors import ModelUnusable
from facedex.indexer.vision.manifest import EmbedderContract, ModelManifest
from facedex.indexer.vision.network import FaceNetwork, tensor_of


class Embedder:
    """Turns crops into vectors: one by one on a processor, where a batch is no faster and no vector depends on its neighbours.

    On a device, rounding may depend on the size of the batch; see decision 801 for how much that is.
    """

    def __init__(self, manifest: ModelManifest, network: FaceNetwork) -> None:
        if manifest.embedder is None:
            raise ModelUnusable(manifest.name, "it is no embedder")
        self.manifest = manifest
        self._contract: EmbedderContract = manifest.embedder
        self._network = network
        if len(network.output_names) != 1:
            raise ModelUnusable(manifest.name, "it must have one output")

    @property
    def contract(self) -> EmbedderContract:
        return self._contract

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a crop."""
        return self._contract.width, self._contract.height

    @property
    def most_at_once(self) -> int:
        """Crops that gain by being embedded together; 1 where none do."""
        return self._network.most_at_once

    def embed(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The unit vector (dimension,) of an aligned crop (height × width × 3, BGR). `ModelUnusable` if it has none."""
        tensor = tensor_of(crop, self.manifest.input)
        if not self._contract.mirror_average:
            return self._unit(self._run(tensor)[0])
        mirrored = tensor[:, :, :, ::-1]
        if self._network.takes_several:  # a tenth faster than one after the other
            both = self._run(np.concatenate([tensor, mirrored]))
            return self._unit(both[0] + both[1])
        return self._unit(self._run(tensor)[0] + self._run(np.ascontiguousarray(mirrored))[0])

    def embed_together(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """The unit vectors (n, dimension) of aligned crops, in one run of the network; at least one crop."""
        views = [crop[:, ::-1] for crop in crops] if self._contract.mirror_average else []
        tensors = np.concatenate([tensor_of(each, self.manifest.input) for each in (*crops, *views)])
        vectors = self._run(tensors)
        summed = vectors[: len(crops)] + vectors[len(crops) :] if views else vectors
        unit: NDArray[np.float32] = np.stack([self._unit(vector) for vector in summed])
        return unit

    def try_out(self) -> None:
        """Embed a grey picture; `ModelUnusable` where the vector is not what the manifest promises."""
        noise = np.random.default_rng(20260101).integers(0, 256, (self._contract.height, self._contract.width, 3))
        self.embed(noise.astype(np.uint8))

    def _run(self, tensors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors (n, dimension), of the length that the manifest promises."""
        (output,) = self._network.run(tensors).values()
        if output.size != len(tensors) * self._contract.dimension:
            raise ModelUnusable(
                self.manifest.name,
                f"its vectors have {output.size // len(tensors)} components, not {self._contract.dimension}",
            )
        return output.reshape(len(tensors), -1)

    def _unit(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if not np.isfinite(length) or length == 0:
            raise ModelUnusable(self.manifest.name, "its vector of a face has no direction")
        return (vector / length).astype(np.float32)
