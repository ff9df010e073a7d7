"""The built-in models, loaded once, and a portrait of a synthetic person."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from facedex.indexer.vision.decode import ImageLimits
from facedex.indexer.vision.face import Box
from facedex.indexer.vision.models import BUILTIN_DETECTOR, BUILTIN_EMBEDDER, ModelFolder
from facedex.indexer.vision.pipeline import FacePipeline


@dataclass(frozen=True, slots=True)
class KnownPhotograph:
    """A photograph of the sample people, with the boxes of all faces on it."""

    path: Path
    boxes: tuple[Box, ...]


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> FacePipeline:
    models = ModelFolder(tmp_path_factory.mktemp("models"))
    return FacePipeline(
        detector=models.load_detector(BUILTIN_DETECTOR),
        embedder=models.load_embedder(BUILTIN_EMBEDDER),
        limits=ImageLimits(),
    )


@pytest.fixture(scope="session")
def portrait(people: Path) -> bytes:
    return (people / "person_001" / "1.jpg").read_bytes()


@pytest.fixture(scope="session")
def known_photographs(people: Path) -> list[KnownPhotograph]:
    boxes: dict[str, list[Box]] = defaultdict(list)
    with (people / "faces.csv").open(encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            boxes[row["image"]] += [_box(row)] if row["x"] else []
    return [KnownPhotograph(people / image, tuple(found)) for image, found in boxes.items()]


def _box(row: dict[str, str]) -> Box:
    return Box(float(row["x"]), float(row["y"]), float(row["w"]), float(row["h"]))
