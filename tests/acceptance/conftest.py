from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from facedex.indexer.evaluation.acquisition import AcquiredFace, NotAcquired, acquire
from facedex.indexer.jobs.folder import photographs_of
from facedex.indexer.vision.models import ModelFolder
from facedex.indexer.vision.pipeline import FacePipeline

YUNET = "face_detection_yunet_2023mar"
RETAIL = "face-reidentification-retail-0095"


@pytest.fixture(scope="session")
def lfw_faces(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> list[AcquiredFace | NotAcquired]:
    """All photographs of lfw-dev in their order, looked at once for all tests; of the crops, nothing is left to be done."""
    folder = ModelFolder(tmp_path_factory.mktemp("models"))
    for name in (YUNET, RETAIL):
        model = assets / "models" / f"{name}.onnx"
        folder.add(model, model.with_suffix(".toml"))
    pipeline = FacePipeline(detector=folder.load_detector(YUNET), embedder=folder.load_embedder(RETAIL))
    found = acquire(pipeline, photographs_of(assets / "faces" / "lfw-dev"), workers=2)
    return [replace(each, crop=each.crop[:0]) if isinstance(each, AcquiredFace) else each for each in found]
