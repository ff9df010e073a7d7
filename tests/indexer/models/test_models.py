"""The folder of models: what is in it can be trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.indexer.models.conftest import BUILTIN, Renamed

from facedex.indexer.vision.errors import (
    ManifestInvalid,
    ModelDigestMismatch,
    ModelExists,
    ModelNotFound,
    ModelUnusable,
)
from facedex.indexer.vision.manifest import ModelKind
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER, ModelFolder, refiner_beside, sha256_of

Files = tuple[Path, Path]


def test_the_built_in_models_are_there_without_a_folder(folder: ModelFolder) -> None:
    assert folder.names() == (BUILTIN_DETECTOR, BUILTIN_EMBEDDER)
    assert [manifest.name for manifest in folder.list()] == list(folder.names())
    assert not folder.folder.exists()


def test_the_built_in_models_are_sound(folder: ModelFolder) -> None:
    assert [verification.problem for verification in folder.verify()] == ["", ""]


def test_an_added_model_is_there_for_the_next_program(folder: ModelFolder, files: Files) -> None:
    folder.add(*files)
    again = ModelFolder(folder.folder)
    assert again.names() == (BUILTIN_DETECTOR, BUILTIN_EMBEDDER, "renamed")
    assert again.load_embedder("renamed").manifest.sha256 == again.manifest(BUILTIN_EMBEDDER).sha256


def test_adding_a_model_leaves_nothing_but_the_model(folder: ModelFolder, files: Files) -> None:
    folder.add(*files)
    assert sorted(path.name for path in folder.folder.iterdir()) == ["renamed.onnx", "renamed.toml"]


def test_adding_the_same_model_again_changes_nothing(folder: ModelFolder, files: Files) -> None:
    assert folder.add(*files) == folder.add(*files)


def test_a_name_that_is_taken_never_stands_for_another_model(folder: ModelFolder, files: Files) -> None:
    onnx, manifest = files
    folder.add(onnx, manifest)
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("Apache-2.0", "MIT"), encoding="utf-8")
    with pytest.raises(ModelExists):
        folder.add(onnx, manifest)


def test_a_built_in_name_is_taken(folder: ModelFolder, files: Files) -> None:
    onnx, manifest = files
    text = manifest.read_text(encoding="utf-8").replace("renamed", BUILTIN_EMBEDDER).replace("Apache-2.0", "MIT")
    manifest.write_text(text, encoding="utf-8")
    with pytest.raises(ModelExists):
        folder.add(onnx, manifest)


def test_a_file_with_another_digest_is_not_added(folder: ModelFolder, files: Files) -> None:
    onnx, manifest = files
    onnx.write_bytes(onnx.read_bytes() + b"\0")
    with pytest.raises(ModelDigestMismatch) as refusal:
        folder.add(onnx, manifest)
    assert refusal.value.actual == sha256_of(onnx.read_bytes())
    assert "renamed" not in folder.names()


def test_a_file_that_is_no_network_is_not_added(folder: ModelFolder, files: Files, renamed: Renamed) -> None:
    onnx, manifest = files
    onnx.write_bytes(b"no network")
    digest = sha256_of(renamed.graph)
    manifest.write_text(renamed.manifest.replace(digest, sha256_of(b"no network")), encoding="utf-8")
    with pytest.raises(ModelUnusable):
        folder.add(onnx, manifest)
    assert "renamed" not in folder.names()


@pytest.mark.parametrize(("right", "wrong"), [("dimension = 256", "dimension = 512"), ("width = 112", "width = 96")])
def test_a_network_that_does_not_do_what_its_manifest_says_is_not_added(
    folder: ModelFolder, files: Files, right: str, wrong: str
) -> None:
    onnx, manifest = files
    manifest.write_text(manifest.read_text(encoding="utf-8").replace(right, wrong), encoding="utf-8")
    with pytest.raises(ModelUnusable):
        folder.add(onnx, manifest)


def test_an_embedder_described_as_a_detector_is_not_added(folder: ModelFolder, files: Files, renamed: Renamed) -> None:
    onnx, manifest = files
    detector = (BUILTIN / f"{BUILTIN_DETECTOR}.toml").read_text(encoding="utf-8").replace(BUILTIN_DETECTOR, "renamed")
    detector = detector[: detector.index("[refiner]")]
    digest = folder.manifest(BUILTIN_DETECTOR).sha256
    manifest.write_text(detector.replace(digest, sha256_of(renamed.graph)), encoding="utf-8")
    with pytest.raises(ModelUnusable, match="outputs lack"):
        folder.add(onnx, manifest)


def test_missing_files_are_named(folder: ModelFolder, files: Files) -> None:
    onnx, manifest = files
    with pytest.raises(ModelUnusable, match=r"nowhere\.onnx"):
        folder.add(onnx.with_name("nowhere.onnx"), manifest)
    with pytest.raises(ManifestInvalid, match=r"nowhere\.toml"):
        folder.add(onnx, manifest.with_name("nowhere.toml"))


def test_a_model_tampered_with_in_the_folder_is_neither_loaded_nor_sound(folder: ModelFolder, files: Files) -> None:
    folder.add(*files)
    kept = folder.folder / "renamed.onnx"
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    problems = {verification.name: verification.problem for verification in folder.verify()}
    assert "sha256" in problems["renamed"]
    assert problems[BUILTIN_EMBEDDER] == ""
    with pytest.raises(ModelDigestMismatch):
        folder.load_embedder("renamed")


def test_a_model_whose_file_is_gone_is_reported(folder: ModelFolder, files: Files) -> None:
    folder.add(*files)
    (folder.folder / "renamed.onnx").unlink()
    assert "cannot be read" in folder.verify()[-1].problem


def test_a_detector_comes_with_its_second_network(folder: ModelFolder, detector_files: Files) -> None:
    folder.add(*detector_files)
    assert sorted(path.name for path in folder.folder.iterdir()) == [
        "renamed.onnx",
        "renamed.refiner.onnx",
        "renamed.toml",
    ]
    assert folder.verify()[-1].problem == ""
    assert ModelFolder(folder.folder).file("renamed", ModelKind.DETECTOR).refiner is not None


def test_a_detector_without_the_second_network_of_its_manifest_is_not_added(
    folder: ModelFolder, detector_files: Files
) -> None:
    onnx, manifest = detector_files
    refiner_beside(onnx).unlink()
    with pytest.raises(ModelUnusable, match=r"downloaded\.refiner\.onnx cannot be read"):
        folder.add(onnx, manifest)
    assert "renamed" not in folder.names()


def test_another_second_network_than_that_of_the_manifest_is_refused(
    folder: ModelFolder, detector_files: Files
) -> None:
    onnx, manifest = detector_files
    refiner_beside(onnx).write_bytes(onnx.read_bytes())
    with pytest.raises(ModelDigestMismatch, match="refiner"):
        folder.add(onnx, manifest)


def test_a_second_network_tampered_with_in_the_folder_is_found(folder: ModelFolder, detector_files: Files) -> None:
    folder.add(*detector_files)
    kept = folder.folder / "renamed.refiner.onnx"
    kept.write_bytes(kept.read_bytes() + b"\0")
    assert "sha256" in folder.verify()[-1].problem
    with pytest.raises(ModelDigestMismatch):
        folder.load_detector("renamed")


def test_an_unknown_model_is_answered_with_the_known_ones(folder: ModelFolder) -> None:
    with pytest.raises(ModelNotFound) as refusal:
        folder.load_embedder("nobody")
    assert refusal.value.known == (BUILTIN_DETECTOR, BUILTIN_EMBEDDER)


def test_a_detector_is_no_embedder(folder: ModelFolder) -> None:
    with pytest.raises(ModelNotFound) as refusal:
        folder.load_embedder(BUILTIN_DETECTOR)
    assert refusal.value.known == (BUILTIN_EMBEDDER,)
    with pytest.raises(ModelNotFound):
        folder.load_detector(BUILTIN_EMBEDDER)


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "dimension"),
    [("face-reidentification-retail-0095", 256), ("w600k_mbf_int8", 512), ("mobileface_v2", 256)],
)
def test_third_party_embedders_give_unit_vectors(folder: ModelFolder, assets: Path, name: str, dimension: int) -> None:
    folder.add(assets / "models" / f"{name}.onnx", assets / "models" / f"{name}.toml")
    embedder = folder.load_embedder(name)
    width, height = embedder.size
    crop = np.random.default_rng(5).integers(0, 256, (height, width, 3)).astype(np.uint8)
    vector = embedder.embed(crop)
    assert vector.shape == (dimension,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(vector, embedder.embed(crop))
