"""Makes the corpus: `python -m tests.fuzz.seeds`. Everything in it is made here, from nothing or from the sample people."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from PIL import Image
from tests.fuzz.services import OPEN_GALLERY, SERVICES
from tests.fuzz.targets import CORPUS, written_snapshot
from tests.server.faces import VectorMaker, photograph

from facedex.indexer.vision.models import BUILTIN_EMBEDDER, read_manifest
from facedex.v1 import enrolment_pb2, face_pb2, gallery_pb2, identification_pb2

BUILTIN = Path(__file__).parents[2] / "indexer" / "facedex" / "indexer" / "vision" / "builtin"
FORMATS = (
    ("JPEG", "RGB"),
    ("JPEG", "L"),
    ("JPEG", "CMYK"),
    ("PNG", "RGBA"),
    ("PNG", "P"),
    ("PNG", "I;16"),
    ("WEBP", "RGB"),
    ("BMP", "RGB"),
    ("TIFF", "RGB"),
    ("GIF", "P"),
)


def main() -> None:
    for name, make in makers().items():
        (CORPUS / name).mkdir(parents=True, exist_ok=True)
        for file, content in make():
            (CORPUS / name / file).write_bytes(content)


def makers() -> dict[str, Callable[[], Iterator[tuple[str, bytes]]]]:
    services = {name: _of_service(name) for name in SERVICES}
    return {"image": pictures, "manifest": manifests, "snapshot": snapshots, **services}


def pictures() -> Iterator[tuple[str, bytes]]:
    grey = np.add.outer(np.arange(24), 8 * np.arange(24)).astype(np.uint8)
    for image_format, mode in FORMATS:
        image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation
        extra: dict[str, Any] = {"exif": exif} if image_format in {"JPEG", "PNG", "WEBP"} else {}
        target = io.BytesIO()
        image.save(target, image_format, **extra)
        yield f"{mode.replace(';', '')}.{image_format.lower()}", target.getvalue()


def manifests() -> Iterator[tuple[str, bytes]]:
    for path in sorted(BUILTIN.glob("*.toml")):
        yield path.name, path.read_bytes()


def snapshots() -> Iterator[tuple[str, bytes]]:
    whole = written_snapshot()
    yield "whole.snapshot", whole
    yield "short.snapshot", whole[: len(whole) // 2]


def _of_service(name: str) -> Callable[[], Iterator[tuple[str, bytes]]]:
    def requests() -> Iterator[tuple[str, bytes]]:
        for number, method in enumerate(SERVICES[name].methods):
            message = GetMessageClass(method.input_type)()
            _fill(message, depth=0)
            yield f"{method.name}.request", bytes([number]) + message.SerializeToString()
            yield f"{method.name}.empty", bytes([number])
            for place, whole in enumerate(well_formed().get(method.name, [])):
                yield f"{method.name}.{place}.request", bytes([number]) + whole.SerializeToString()

    return requests


def well_formed() -> dict[str, list[Message]]:
    """Requests that the server does what they ask for."""
    face, vector = small_photograph(), unit_vector()
    ada = enrolment_pb2.Identity(id="ada")
    items = [enrolment_pb2.EnrolItem(vector=vector), enrolment_pb2.EnrolItem(image=face)]
    enrol = [enrolment_pb2.EnrolRequest(gallery=OPEN_GALLERY, identity=ada, items=[each]) for each in items]
    identify = [
        identification_pb2.IdentifyRequest(gallery=OPEN_GALLERY, vector=vector, limit=5),
        identification_pb2.IdentifyRequest(gallery=OPEN_GALLERY, image=face, limit=5, return_vectors=True),
    ]
    verify = identification_pb2.VerifyRequest(gallery=OPEN_GALLERY, image=face, identity_id="ada")
    return {
        "CreateGallery": [gallery_pb2.CreateGalleryRequest(gallery=gallery_pb2.Gallery(name="visitors"))],
        "Enrol": list(enrol),
        "EnrolStream": [enrolment_pb2.EnrolStreamRequest(enrol=each) for each in enrol],
        "Identify": list(identify),
        "IdentifyStream": [identification_pb2.IdentifyStreamRequest(identify=each) for each in identify],
        "Verify": [verify],
        "Detect": [identification_pb2.DetectRequest(image=face)],
    }


def small_photograph() -> bytes:
    """A sample person, as small as a face is found on."""
    target = io.BytesIO()
    Image.open(io.BytesIO(photograph(1))).convert("RGB").resize((112, 112)).save(target, "JPEG", quality=60)
    return target.getvalue()


def unit_vector() -> face_pb2.Vector:
    """Of the built-in embedder."""
    embedder = read_manifest(BUILTIN / f"{BUILTIN_EMBEDDER}.toml")
    return VectorMaker(dimension=embedder.dimension, model_digest=embedder.sha256).vector(1)


def _fill(message: Message, *, depth: int) -> None:
    """Something in every field."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type and field.message_type.GetOptions().map_entry:
            getattr(message, field.name)["site"] = "north"
        elif field.message_type:
            if depth < 4:
                inner = getattr(message, field.name)
                _fill(inner.add() if field.is_repeated else inner, depth=depth + 1)
        elif field.is_repeated:
            getattr(message, field.name).append(_value(field))
        else:
            setattr(message, field.name, _value(field))


def _value(field: Any) -> Any:  # a FieldDescriptor, of which protobuf has two kinds
    if field.name in {"gallery", "name"}:
        return OPEN_GALLERY
    if field.name == "image":
        return next(content for name, content in pictures() if name == "RGB.jpeg")
    values = {
        FieldDescriptor.CPPTYPE_STRING: "ada",
        FieldDescriptor.CPPTYPE_BOOL: True,
        FieldDescriptor.CPPTYPE_ENUM: 1,
        FieldDescriptor.CPPTYPE_FLOAT: 0.5,
        FieldDescriptor.CPPTYPE_DOUBLE: 0.5,
    }
    if field.type == FieldDescriptor.TYPE_BYTES:
        return np.eye(1, 128, dtype="<f4").tobytes()
    return values.get(field.cpp_type, 1)


if __name__ == "__main__":
    main()
