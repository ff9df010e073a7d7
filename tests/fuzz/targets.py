"""What is fuzzed: functions that take hostile bytes. A new one is a line in `TARGETS` and a folder in `corpus`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tests.fuzz.services import SERVICES, ServiceTarget

from facedex.indexer.search.fast import FastIndex
from facedex.indexer.search.snapshot import (
    Snapshot,
    SnapshotKey,
    SnapshotRejected,
    read_snapshot,
    write_snapshot,
)
from facedex.indexer.vision.decode import ImageLimits, read_photograph
from facedex.indexer.vision.errors import ImageRefused, ManifestInvalid
from facedex.indexer.vision.models import read_manifest

CORPUS = Path(__file__).parent / "corpus"
LIMITS = ImageLimits(max_bytes=2**20, max_pixels=2**20)
DIMENSION = 8
KEY = SnapshotKey(1, "ab" * 32, DIMENSION, "")
SECRET = bytes(32)

Run = Callable[[bytes], None]


class WrongAnswer(Exception):
    """The target took the input for something that it is not."""


@dataclass(frozen=True, slots=True)
class Target:
    """A name, which is that of its folder in the corpus, and what makes the function that takes the bytes.

    The function returns for every input, whatever it is; whatever it raises is a finding.
    """

    name: str
    make: Callable[[Path], Run]

    @property
    def seeds(self) -> list[bytes]:
        """The corpus, in order of its files' names."""
        return [path.read_bytes() for path in sorted((CORPUS / self.name).iterdir())]


def image_target(_folder: Path) -> Run:
    """Decodes a photograph: a picture within the limits, or a named refusal."""

    def run(content: bytes) -> None:
        try:
            photograph = read_photograph(content, LIMITS)
            picture = photograph.decode(photograph.strongest_reduction(64))
        except ImageRefused:
            return
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise WrongAnswer(f"a picture of shape {picture.shape}, {picture.dtype}")
        if picture.shape[0] * picture.shape[1] > LIMITS.max_pixels:
            raise WrongAnswer("a picture over the limit")

    return run


def manifest_target(folder: Path) -> Run:
    """Reads a model's manifest: a valid one, or a named refusal."""
    path = folder / "model.toml"

    def run(content: bytes) -> None:
        path.write_bytes(content)
        try:
            manifest = read_manifest(path)
        except ManifestInvalid:
            return
        if (manifest.detector is None) == (manifest.embedder is None):
            raise WrongAnswer("a model that is neither detector nor embedder, or both")

    return run


def written_snapshot() -> bytes:
    """The one file that is authentic."""
    rows = np.random.default_rng(1).standard_normal((5, DIMENSION)).astype(np.float32)
    index = FastIndex(DIMENSION)
    index.add([1, 2, 3, 4, 5], [1, 1, 2, 2, 3], rows / np.linalg.norm(rows, axis=1, keepdims=True))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.snapshot"
        write_snapshot(path, Snapshot(KEY, 7, "now", index.digest, index.state()), secret=SECRET)
        return path.read_bytes()


def snapshot_target(folder: Path, *, read: Callable[..., object] = read_snapshot) -> Run:
    """Reads a snapshot: only what this installation wrote, to the last bit, and else a named refusal."""
    path = folder / "read.snapshot"
    authentic = written_snapshot()

    def run(content: bytes) -> None:
        path.write_bytes(content)
        try:
            read(path, KEY, secret=SECRET)
        except SnapshotRejected:
            if content == authentic:
                raise WrongAnswer("an authentic snapshot is refused") from None
            return
        if content != authentic:
            raise WrongAnswer("a snapshot is read that was not written here")

    return run


def _service(name: str) -> Target:
    return Target(name, lambda folder: ServiceTarget(folder, name).run)


TARGETS = (
    Target("image", image_target),
    Target("manifest", manifest_target),
    Target("snapshot", snapshot_target),
    *(_service(name) for name in SERVICES),
)
