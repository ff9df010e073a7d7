"""A face and its mirror image together, with a network that takes two pictures at once and with one that does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from facedex.indexer.vision import builtin
from facedex.indexer.vision.embedder import Embedder
from facedex.indexer.vision.manifest import ModelManifest, parse_manifest
from facedex.indexer.vision.models import BUILTIN_EMBEDDER

BUILTIN = Path(builtin.__file__ or "").parent
CROP = np.random.default_rng(5).integers(0, 256, (112, 112, 3)).astype(np.uint8)


class LeftHalf:
    """Sums the left half of each row of pixels, over two rows of three, 1 to 256 of them: mirrored, it sums the right half."""

    output_names = ("vector",)
    input_size = None
    most_at_once = 1

    def __init__(self, *, takes_several: bool) -> None:
        self.takes_several = takes_several
        self.batches: list[int] = []

    def run(self, tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        assert tensor.flags.c_contiguous
        self.batches.append(len(tensor))
        rows = tensor[:, :, :, :56].sum(axis=3).reshape(len(tensor), -1)
        return {"vector": rows[:, :256]}


@pytest.fixture
def manifest() -> ModelManifest:
    """The built-in embedder's, but that crop and mirror image are to be embedded."""
    text = (BUILTIN / f"{BUILTIN_EMBEDDER}.toml").read_text(encoding="utf-8")
    both = text.replace("mirror_average = false", "mirror_average = true")
    assert both != text
    return parse_manifest(both)


@pytest.mark.parametrize(("takes_several", "batches"), [(True, [2]), (False, [1, 1])])
def test_both_sides_of_a_face_count_alike(manifest: ModelManifest, *, takes_several: bool, batches: list[int]) -> None:
    network = LeftHalf(takes_several=takes_several)
    vector = Embedder(manifest, network).embed(CROP)
    whole = ((CROP.astype(np.float64) - 127.5) / 128).sum(axis=1).T.reshape(-1)[:256]
    np.testing.assert_allclose(vector, whole / np.linalg.norm(whole), atol=1e-5)
    assert network.batches == batches


def test_together_gives_what_one_by_one_gives(manifest: ModelManifest) -> None:
    embedder = Embedder(manifest, LeftHalf(takes_several=True))
    together = embedder.embed_together([CROP, CROP[::-1]])
    np.testing.assert_allclose(together, [embedder.embed(CROP), embedder.embed(CROP[::-1])], atol=1e-6)
