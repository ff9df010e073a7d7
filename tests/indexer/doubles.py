"""Test doubles of the indexer: a detector and embedder that read what they find from the bytes themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facedex.indexer.store.records import ModelRecord
from facedex.indexer.vision.errors import ImageUnreadable
from facedex.indexer.vision.face import Box, Face, Quality
from facedex.indexer.vision.pipeline import Detection, FaceCrop

DIMENSION = 32
MODEL = ModelRecord("cd" * 32, "double", DIMENSION, "Apache-2.0", 0.6, "made for tests")


@dataclass(frozen=True)
class Person:
    """Somebody whom `ScriptedPipeline` sees. People of different numbers are nearly orthogonal; `away` turns off."""

    number: int
    away: float = 0.0
    size_px: float = 100.0
    sharpness: float = 200.0


def photograph(*people: Person, take: int = 0) -> bytes:
    """Bytes that show these people; `take` makes them another photograph of the same."""
    shown = [[each.number, each.away, each.size_px, each.sharpness] for each in people]
    return json.dumps({"people": shown, "take": take}).encode()


def person_vector(person: Person, *, take: int = 0) -> NDArray[np.float32]:
    """A unit vector (DIMENSION,): `away` 0 is the person, 1 is somewhere else."""
    face = np.random.default_rng(person.number).standard_normal(DIMENSION)
    noise = np.random.default_rng([person.number, take, round(1000 * person.away)]).standard_normal(DIMENSION)
    mixed = (1 - person.away) * face / np.linalg.norm(face) + person.away * noise / np.linalg.norm(noise)
    return np.asarray(mixed / np.linalg.norm(mixed), np.float32)


class ScriptedPipeline:
    """Stands in for `FacePipeline`: finds in a photograph exactly what `photograph` put there."""

    def __init__(self) -> None:
        self.detections = 0

    def detect(self, photograph: bytes, *, checkpoint: Callable[[], None] = lambda: None) -> Detection:
        checkpoint()
        self.detections += 1
        try:
            document = json.loads(photograph)
        except ValueError:
            raise ImageUnreadable("no picture") from None
        faces = [
            _crop(Person(*values), take=document["take"], index=index)
            for index, values in enumerate(document["people"])
        ]
        return Detection(640, 480, tuple(faces))

    def embed(
        self, crops: Sequence[NDArray[np.uint8]], *, checkpoint: Callable[[], None] = lambda: None
    ) -> NDArray[np.float32]:
        checkpoint()
        return np.stack([_vector_of(crop) for crop in crops])


def _crop(person: Person, *, take: int, index: int) -> FaceCrop:
    vector = person_vector(person, take=take)
    crop = np.frombuffer(vector.tobytes(), np.uint8).reshape(1, -1, 1).repeat(3, axis=2)
    quality = Quality(0.9, person.size_px, person.sharpness, 120.0, 0.0, 0.0, 0.0)
    box = Box(10.0 + 100 * index, 20.0, person.size_px, person.size_px)
    point = (box.x + 1, box.y + 1)
    return FaceCrop(Face(box, (point, point, point, point, point), quality), crop)


def _vector_of(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.frombuffer(np.ascontiguousarray(crop[0, :, 0]).tobytes(), np.float32)
