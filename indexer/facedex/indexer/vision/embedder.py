"""From an aligned crop to a unit vector."""

import numpy as np
from numpy.typing import NDArray

from facedex.indexer.vision.errors import ModelUnusable
from facedex.indexer.vision.manifest import EmbedderContract, ModelManifest
from facedex.indexer.vision.network import Network, tensor_of


class Embedder:
    """Turns crops into vectors one by one: a batch is no faster on a CPU, and no vector depends on its neighbours."""

    def __init__(self, manifest: ModelManifest, network: Network) -> None:
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

    def embed(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The unit vector (dimension,) of an aligned crop (height × width × 3, BGR). `ModelUnusable` if it has none."""
        vector = self._run(crop)
        if self._contract.mirror_average:
            vector = vector + self._run(crop[:, ::-1])
        return self._unit(vector)

    def try_out(self) -> None:
        """Embed a grey picture; `ModelUnusable` where the vector is not what the manifest promises."""
        noise = np.random.default_rng(20260101).integers(0, 256, (self._contract.height, self._contract.width, 3))
        self.embed(noise.astype(np.uint8))

    def _run(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        (output,) = self._network.run(tensor_of(crop, self.manifest.input)).values()
        if output.size != self._contract.dimension:
            raise ModelUnusable(
                self.manifest.name, f"its vectors have {output.size} components, not {self._contract.dimension}"
            )
        return output.reshape(-1)

    def _unit(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if not np.isfinite(length) or length == 0:
            raise ModelUnusable(self.manifest.name, "its vector of a face has no direction")
        return (vector / length).astype(np.float32)
