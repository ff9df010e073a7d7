"""The models at hand: those that come with facedex, and those added to a folder."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from facedex.indexer.vision.detector import Detector
from facedex.indexer.vision.embedder import Embedder
from facedex.indexer.vision.errors import (
    ManifestInvalid,
    ModelDigestMismatch,
    ModelError,
    ModelExists,
    ModelNotFound,
    ModelUnusable,
)
from facedex.indexer.vision.manifest import ModelKind, ModelManifest, parse_manifest
from facedex.indexer.vision.network import OnProcessor, Runtime, open_network
from facedex.indexer.vision.refiner import Refiner

BUILTIN_DETECTOR: Final = "facedex_starter_detector"
BUILTIN_EMBEDDER: Final = "facedex_starter_embedder"
ON_PROCESSOR: Final = OnProcessor()
_BUILTIN_FOLDER: Final = Path(__file__).parent / "builtin"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model: its manifest, and its network as an ONNX file, whose digest was checked."""

    manifest: ModelManifest
    graph: bytes
    refiner: bytes | None = None
    """The second network of a detector that has one."""


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether one model is what its manifest says; `problem` is empty where it is."""

    name: str
    problem: str


class ModelFolder:
    """The built-in models and those of a folder of `NAME.onnx` and `NAME.toml`. No name changes what it stands for."""

    def __init__(self, folder: Path, runtime: Runtime = ON_PROCESSOR) -> None:
        """`runtime` is what loaded models run on; models that are added are tried out on the processor."""
        self.folder = folder
        self._runtime = runtime

    def names(self) -> tuple[str, ...]:
        """All names, built-in models first."""
        return tuple(path.stem for path in self._manifest_paths())

    def list(self) -> tuple[ModelManifest, ...]:
        """All manifests, in the order of `names`. `ManifestInvalid` where one has been damaged."""
        return tuple(read_manifest(path) for path in self._manifest_paths())

    def manifest(self, name: str) -> ModelManifest:
        return read_manifest(self._manifest_path(name))

    def load_detector(self, name: str) -> Detector:
        """The detector of this name, checked against its digest."""
        return open_detector(self.file(name, ModelKind.DETECTOR), self._runtime)

    def load_embedder(self, name: str) -> Embedder:
        """The embedder of this name, checked against its digest."""
        file = self.file(name, ModelKind.EMBEDDER)
        return open_embedder(file.manifest, file.graph, self._runtime)

    def add(self, onnx: Path, manifest: Path) -> ModelManifest:
        """Take a model in after its digest was checked and it was tried out. The same model again changes nothing."""
        described = read_manifest(manifest)
        file = read_model(onnx, described)
        if not self.has(described):
            try_out(file)
            self._keep(described, onnx, manifest)
        return described

    def has(self, described: ModelManifest) -> bool:
        """Whether this very model is here. `ModelExists` where its name stands for another, or is described otherwise."""
        if described.name not in self.names():
            return False
        if self.manifest(described.name) != described:
            raise ModelExists(described.name)
        return True

    def verify(self) -> tuple[Verification, ...]:
        """Check every digest and try every model out."""
        return tuple(_verify(path) for path in self._manifest_paths())

    def _keep(self, described: ModelManifest, onnx: Path, manifest: Path) -> None:
        """The manifest comes last, under its name at once: without it the model does not exist."""
        self.folder.mkdir(parents=True, exist_ok=True)
        own = self.folder / f"{described.name}.onnx"
        files = [(onnx, own), (manifest, own.with_suffix(".toml"))]
        if described.refiner is not None:
            files.insert(0, (refiner_beside(onnx), refiner_beside(own)))
        for source, target in files:
            partial = target.with_suffix(target.suffix + ".part")
            shutil.copyfile(source, partial)
            partial.replace(target)

    def file(self, name: str, kind: ModelKind) -> ModelFile:
        """The model of this name and kind. Raises ModelError."""
        path = self._manifest_path(name)
        manifest = read_manifest(path)
        if manifest.kind is not kind:
            raise ModelNotFound(name, known=tuple(each.name for each in self.list() if each.kind is kind))
        return read_model(path.with_suffix(".onnx"), manifest)

    def _manifest_path(self, name: str) -> Path:
        for path in self._manifest_paths():
            if path.stem == name:
                return path
        raise ModelNotFound(name, known=self.names())

    def _manifest_paths(self) -> Iterator[Path]:
        yield from sorted(_BUILTIN_FOLDER.glob("*.toml"))
        yield from sorted(self.folder.glob("*.toml"))


def read_manifest(path: Path) -> ModelManifest:
    """The manifest in a file. `ManifestInvalid` where there is none."""
    try:
        return parse_manifest(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        raise ManifestInvalid("file", f"{path.name} cannot be read") from problem


def read_model(onnx: Path, manifest: ModelManifest) -> ModelFile:
    """The files that a manifest describes. `ModelDigestMismatch` where they are others."""
    graph = _read_verified(onnx, manifest.name, manifest.sha256)
    if manifest.refiner is None:
        return ModelFile(manifest, graph)
    return ModelFile(manifest, graph, _read_verified(refiner_beside(onnx), manifest.name, manifest.refiner.sha256))


def refiner_beside(onnx: Path) -> Path:
    """Where the second network of a detector lies: `NAME.refiner.onnx` beside `NAME.onnx`."""
    return onnx.with_suffix(".refiner.onnx")


def open_detector(file: ModelFile, runtime: Runtime = ON_PROCESSOR) -> Detector:
    network = runtime.open(file.manifest, file.graph)
    return Detector(file.manifest, network, open_refiner(file))


def open_refiner(file: ModelFile) -> Refiner | None:
    """The second network, where there is one: on the processor, whatever runs on a device, for its crops are small."""
    contract = file.manifest.refiner
    if contract is None or file.refiner is None:
        return None
    network = open_network(file.manifest.name, file.refiner, contract.input)
    return Refiner(file.manifest, contract, network)


def open_embedder(manifest: ModelManifest, graph: bytes, runtime: Runtime = ON_PROCESSOR) -> Embedder:
    return Embedder(manifest, runtime.open(manifest, graph))


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_verified(onnx: Path, name: str, sha256: str) -> bytes:
    try:
        graph = onnx.read_bytes()
    except OSError as problem:
        raise ModelUnusable(name, f"{onnx.name} cannot be read") from problem
    if (actual := sha256_of(graph)) != sha256:
        raise ModelDigestMismatch(onnx, expected=sha256, actual=actual)
    return graph


def try_out(file: ModelFile) -> None:
    """Use it once. `ModelUnusable` where it is not what its manifest says."""
    if file.manifest.kind is ModelKind.DETECTOR:
        open_detector(file).try_out()
    else:
        open_embedder(file.manifest, file.graph).try_out()


def _verify(manifest_path: Path) -> Verification:
    try:
        manifest = read_manifest(manifest_path)
        try_out(read_model(manifest_path.with_suffix(".onnx"), manifest))
    except ModelError as problem:
        return Verification(manifest_path.stem, str(problem))
    return Verification(manifest_path.stem, "")
