"""Between the wire and the domain, faces, vectors and times; each service translates its own messages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from facedex.indexer.errors import InvalidArgument, VectorInvalid
from facedex.indexer.store.records import AttributeFilter
from facedex.indexer.texts import checked_text
from facedex.v1 import enrolment_pb2, face_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from facedex.indexer.vision.face import Face, Quality

COMPONENT = np.dtype("<f4")
MAX_FILTERS = 64
MAX_FILTER_VALUES = 1_000


def wire_face(face: Face) -> face_pb2.Face:
    box = face.box
    return face_pb2.Face(
        box=face_pb2.BoundingBox(x=box.x, y=box.y, width=box.width, height=box.height),
        landmarks=[face_pb2.Point(x=x, y=y) for x, y in face.landmarks],
        quality=wire_quality(face.quality),
    )


def wire_quality(quality: Quality) -> face_pb2.Quality:
    return face_pb2.Quality(
        detector_score=quality.detector_score,
        size_px=quality.size_px,
        sharpness=quality.sharpness,
        brightness=quality.brightness,
        yaw_degrees=quality.yaw_degrees,
        pitch_degrees=quality.pitch_degrees,
        roll_degrees=quality.roll_degrees,
    )


def wire_vector(vector: NDArray[np.float32], model_digest: str) -> face_pb2.Vector:
    return face_pb2.Vector(values=vector.astype(COMPONENT).tobytes(), model_digest=model_digest)


def domain_vector(vector: face_pb2.Vector) -> NDArray[np.float32]:
    """The components as sent; whether they are a unit vector of the right model is checked by the gallery."""
    if len(vector.values) % COMPONENT.itemsize:
        raise VectorInvalid("vector", f"has {len(vector.values)} bytes; send little-endian float32, 4 bytes each")
    return np.frombuffer(vector.values, COMPONENT).astype(np.float32)


def wire_time(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def domain_time(timestamp: Timestamp) -> datetime:
    try:
        return timestamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument("expire_time", "lies outside the years 1 to 9999") from None


def domain_filters(filters: Sequence[enrolment_pb2.AttributeFilter]) -> tuple[AttributeFilter, ...]:
    if len(filters) > MAX_FILTERS:
        raise InvalidArgument("filters", f"may be {MAX_FILTERS} at most")
    return tuple(_filter(each) for each in filters)


def _filter(each: enrolment_pb2.AttributeFilter) -> AttributeFilter:
    if not each.key or not 1 <= len(each.values) <= MAX_FILTER_VALUES:
        raise InvalidArgument("filters", f"each filter needs a key and 1 to {MAX_FILTER_VALUES} values")
    for text in (each.key, *each.values):
        checked_text(text, "filters")
    return AttributeFilter(each.key, frozenset(each.values))
