"""Probes and photographs for the server's tests: sample people, made vectors, and requests that carry them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from facedex.v1 import enrolment_pb2, face_pb2, identification_pb2

PEOPLE = Path(__file__).parent.parent / "data" / "people"


def photograph(person: int, take: int = 1) -> bytes:
    """A JPEG of a sample person, 1 to 40, one of five takes."""
    return (PEOPLE / f"person_{person:03}" / f"{take}.jpg").read_bytes()


def group_photograph(number: int = 1) -> bytes:
    """A JPEG of several people: 3, 4 or 6 of them on number 1, 2 and 3."""
    return (PEOPLE / "groups" / f"{number}.jpg").read_bytes()


def landscape() -> bytes:
    """A JPEG without a face."""
    return (PEOPLE / "negatives" / "1.jpg").read_bytes()


def recoded(content: bytes, image_format: str, *, mode: str = "RGB") -> bytes:
    """The same picture in another format and pixel type."""
    target = io.BytesIO()
    Image.open(io.BytesIO(content)).convert(mode).save(target, image_format)
    return target.getvalue()


class VectorMaker:
    """Makes unit vectors of one model; equal numbers give equal vectors, different numbers nearly orthogonal ones."""

    def __init__(self, *, dimension: int, model_digest: str) -> None:
        self.dimension = dimension
        self.model_digest = model_digest

    def components(self, number: int, *, away: float = 0.0) -> NDArray[np.float32]:
        """The components (dimension,) of face `number`; `away` 0 is the face itself, 1 is somewhere else."""
        face = _direction(self.dimension, number)
        mixed = (1 - away) * face + away * _direction(self.dimension, number, 1)
        return (mixed / np.linalg.norm(mixed)).astype(np.float32)

    def vector(self, number: int, *, away: float = 0.0) -> face_pb2.Vector:
        return self.of(self.components(number, away=away))

    def of(self, components: NDArray[np.float32]) -> face_pb2.Vector:
        return face_pb2.Vector(values=components.astype("<f4").tobytes(), model_digest=self.model_digest)


def _direction(dimension: int, *seed: int) -> NDArray[np.float64]:
    direction = np.random.default_rng(seed).standard_normal(dimension)
    return direction / np.linalg.norm(direction)


def enrol_request(
    gallery: str, identity_id: str, *sources: bytes | face_pb2.Vector, request_id: str = ""
) -> enrolment_pb2.EnrolRequest:
    """Enrols photographs and vectors of one identity."""
    return enrolment_pb2.EnrolRequest(
        gallery=gallery,
        identity=enrolment_pb2.Identity(id=identity_id),
        items=[_item(each) for each in sources],
        request_id=request_id,
    )


def _item(source: bytes | face_pb2.Vector) -> enrolment_pb2.EnrolItem:
    if isinstance(source, bytes):
        return enrolment_pb2.EnrolItem(image=source)
    return enrolment_pb2.EnrolItem(vector=source)


def identify_request(gallery: str, probe: bytes | face_pb2.Vector) -> identification_pb2.IdentifyRequest:
    """Asks who that is, with everything else as it is by default."""
    if isinstance(probe, bytes):
        return identification_pb2.IdentifyRequest(gallery=gallery, image=probe)
    return identification_pb2.IdentifyRequest(gallery=gallery, vector=probe)
