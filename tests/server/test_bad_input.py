"""Hostile and broken requests: each has its own error, and the server lives."""

from __future__ import annotations

import base64
import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.server.faces import (
    VectorMaker,
    enrol_request,
    group_photograph,
    identify_request,
    landscape,
    photograph,
    recoded,
)
from tests.server.running_server import RunningServer, Wire, refusal
from tests.waiting import wait_until

from facedex.server.app import SERVICES
from facedex.v1 import enrolment_pb2, face_pb2, gallery_pb2, identification_pb2, operations_pb2
from facedex.v1.identification_pb2 import DetectRequest, VerifyRequest

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(autouse=True)
def the_server_lives(server: RunningServer, wire: Wire) -> Iterator[None]:
    """After each test of this file, the same process answers as before."""
    yield
    assert server.is_alive
    assert len(wire.identification.Detect(DetectRequest(image=photograph(1))).faces) == 1


# Pictures


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def animated(image_format: str) -> bytes:
    first = Image.open(io.BytesIO(photograph(1))).convert("RGB")
    target = io.BytesIO()
    first.save(target, image_format, save_all=True, append_images=[first.rotate(90)], duration=100, loop=0)
    return target.getvalue()


def sixteen_bits() -> bytes:
    grey = np.asarray(Image.open(io.BytesIO(photograph(1))).convert("L")).astype(np.uint16) * 257
    target = io.BytesIO()
    Image.fromarray(grey).save(target, "PNG")
    return target.getvalue()


REFUSED_PICTURES: dict[str, tuple[Callable[[], bytes], str]] = {
    "no bytes": (lambda: b"", "IMAGE_EMPTY"),
    "a truncated JPEG": (lambda: photograph(1)[: len(photograph(1)) // 2], "IMAGE_UNREADABLE"),
    "the head of a JPEG": (lambda: photograph(1)[:20], "IMAGE_UNREADABLE"),
    "text": (lambda: b"who is this?", "IMAGE_UNREADABLE"),
    "random bytes": (lambda: random.Random(1).randbytes(10_000), "IMAGE_UNREADABLE"),
    "a PNG of 50 000 × 50 000": (lambda: png_header(50_000, 50_000), "IMAGE_TOO_MANY_PIXELS"),
    "a PNG of 2³¹ × 2³¹": (lambda: png_header(2**31 - 1, 2**31 - 1), "IMAGE_TOO_MANY_PIXELS"),
    "an animated WebP": (lambda: animated("WEBP"), "IMAGE_ANIMATED"),
    "a TIFF of two pages": (lambda: animated("TIFF"), "IMAGE_ANIMATED"),
    "more bytes than the limit": (lambda: photograph(1) + bytes(21 * 2**20), "IMAGE_TOO_MANY_BYTES"),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED_PICTURES.values(), ids=REFUSED_PICTURES.keys())
def test_what_is_no_readable_picture_is_refused_with_its_own_reason(
    wire: Wire, gallery: str, make: Callable[[], bytes], reason: str
) -> None:
    content = make()
    calls = (
        lambda: wire.identification.Detect(DetectRequest(image=content)),
        lambda: wire.identification.Identify(identify_request(gallery, content)),
        lambda: wire.identification.Verify(VerifyRequest(image=content, reference_image=photograph(1))),
        lambda: wire.identification.Verify(VerifyRequest(image=photograph(1), reference_image=content)),
    )
    for call in calls:
        refused = refusal(call)
        assert (refused.code, refused.reason) == (INVALID, reason)
    (result,) = wire.enrolment.Enrol(enrol_request(gallery, "ada", content)).results
    assert [each.reason for each in result.refusals] == [enrolment_pb2.ENROL_REASON_IMAGE_UNREADABLE]


def test_an_animated_gif_is_refused(wire: Wire) -> None:
    refused = refusal(lambda: wire.identification.Detect(DetectRequest(image=animated("GIF"))))
    assert refused.code == INVALID
    assert refused.reason in {"IMAGE_ANIMATED", "IMAGE_FORMAT_UNSUPPORTED"}


ACCEPTED_PICTURES: dict[str, Callable[[], bytes]] = {
    "CMYK": lambda: recoded(photograph(1), "JPEG", mode="CMYK"),
    "16 bits": sixteen_bits,
    "grey": lambda: recoded(photograph(1), "JPEG", mode="L"),
    "alpha": lambda: recoded(photograph(1), "PNG", mode="RGBA"),
    "palette": lambda: recoded(photograph(1), "PNG", mode="P"),
    "WebP": lambda: recoded(photograph(1), "WEBP"),
    "BMP": lambda: recoded(photograph(1), "BMP"),
    "TIFF": lambda: recoded(photograph(1), "TIFF"),
}


@pytest.mark.parametrize("make", ACCEPTED_PICTURES.values(), ids=ACCEPTED_PICTURES.keys())
def test_unusual_pictures_show_the_same_person(wire: Wire, gallery: str, make: Callable[[], bytes]) -> None:
    wire.enrolment.Enrol(enrol_request(gallery, "ada", photograph(1)))
    (face,) = wire.identification.Identify(identify_request(gallery, make())).faces
    assert [each.identity_id for each in face.candidates] == ["ada"]


def test_damaged_pictures_never_harm_the_server(wire: Wire) -> None:
    chance = random.Random(3)
    originals = [recoded(photograph(1), kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF")]
    for number in range(100):
        damaged = bytearray(originals[number % len(originals)])
        for _ in range(chance.randint(1, 30)):
            damaged[chance.randrange(len(damaged) if number % 2 else 200)] = chance.randrange(256)
        try:
            wire.identification.Detect(DetectRequest(image=bytes(damaged)), timeout=30)
        except grpc.RpcError as error:
            assert error.code() == INVALID  # noqa: PT017


# Faces


def test_no_face_and_several_faces_are_told_apart(wire: Wire) -> None:
    nobody = refusal(
        lambda: wire.identification.Verify(VerifyRequest(image=landscape(), reference_image=photograph(1)))
    )
    several = refusal(
        lambda: wire.identification.Verify(VerifyRequest(image=group_photograph(), reference_image=photograph(1)))
    )
    assert (nobody.code, nobody.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_FACE")
    assert (several.code, several.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SEVERAL_FACES")


# Vectors


def broken_vectors(vectors: VectorMaker) -> dict[str, tuple[face_pb2.Vector, str]]:
    good = vectors.components(1)
    with_nan, with_infinity = good.copy(), good.copy()
    with_nan[3], with_infinity[3] = np.nan, np.inf
    other_model = face_pb2.Vector(values=vectors.vector(1).values, model_digest="ab" * 32)
    return {
        "NaN": (vectors.of(with_nan), "VECTOR_INVALID"),
        "infinity": (vectors.of(with_infinity), "VECTOR_INVALID"),
        "too short": (vectors.of(good[:-1]), "VECTOR_INVALID"),
        "too long": (vectors.of(np.append(good, good)), "VECTOR_INVALID"),
        "no components": (vectors.of(good[:0]), "VECTOR_INVALID"),
        "zero": (vectors.of(good * 0), "VECTOR_INVALID"),
        "not of unit length": (vectors.of(good * 1.1), "VECTOR_INVALID"),
        "as large as float32 gets": (vectors.of(np.full_like(good, 3e38)), "VECTOR_INVALID"),
        "of another model": (other_model, "WRONG_MODEL"),
        "of no model": (face_pb2.Vector(values=vectors.vector(1).values), "WRONG_MODEL"),
    }


@pytest.mark.parametrize(
    "kind",
    ["NaN", "infinity", "too short", "too long", "no components", "zero", "not of unit length",
     "as large as float32 gets", "of another model", "of no model"],
)  # fmt: skip
def test_what_is_no_unit_vector_of_the_gallerys_model_is_refused(
    wire: Wire, gallery: str, vectors: VectorMaker, kind: str
) -> None:
    vector, reason = broken_vectors(vectors)[kind]
    refused = refusal(lambda: wire.identification.Identify(identify_request(gallery, vector)))
    assert refused.reason == reason
    assert refused.code == (INVALID if reason == "VECTOR_INVALID" else grpc.StatusCode.FAILED_PRECONDITION)
    (result,) = wire.enrolment.Enrol(enrol_request(gallery, "ada", vector)).results
    assert [each.reason for each in result.refusals] == [enrolment_pb2.EnrolReason.Value(f"ENROL_REASON_{reason}")]


def test_a_vector_of_half_a_component_is_refused(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    broken = face_pb2.Vector(values=vectors.vector(1).values[:-1], model_digest=vectors.model_digest)
    for call in (
        lambda: wire.identification.Identify(identify_request(gallery, broken)),
        lambda: wire.enrolment.Enrol(enrol_request(gallery, "ada", broken)),
    ):
        refused = refusal(call)
        assert (refused.code, refused.reason) == (INVALID, "VECTOR_INVALID")


# Fields. Each request below is good but for one thing.


def identify_with(**fields: Any) -> Callable[[Wire, str], object]:
    def call(wire: Wire, gallery: str) -> object:
        values: dict[str, Any] = {"gallery": gallery, "image": photograph(1), **fields}
        return wire.identification.Identify(identification_pb2.IdentifyRequest(**values))

    return call


def enrol_with(*, item_count: int = 1, **fields: Any) -> Callable[[Wire, str], object]:
    def call(wire: Wire, gallery: str) -> object:
        content = [enrolment_pb2.EnrolItem(image=landscape())] * item_count
        values: dict[str, Any] = {
            "gallery": gallery,
            "identity": enrolment_pb2.Identity(id="ada"),
            "items": content,
            **fields,
        }
        return wire.enrolment.Enrol(enrolment_pb2.EnrolRequest(**values))

    return call


def enrol_person(**fields: Any) -> Callable[[Wire, str], object]:
    values: dict[str, Any] = {"id": "ada", **fields}
    return enrol_with(identity=enrolment_pb2.Identity(**values))


def list_with(**fields: Any) -> Callable[[Wire, str], object]:
    def call(wire: Wire, gallery: str) -> object:
        values: dict[str, Any] = {"gallery": gallery, **fields}
        return wire.enrolment.ListIdentities(enrolment_pb2.ListIdentitiesRequest(**values))

    return call


def list_jobs_after(number: str) -> Callable[[Wire, str], object]:
    token = base64.urlsafe_b64encode(number.encode()).decode()
    return lambda wire, _gallery: wire.operations.ListJobs(operations_pb2.ListJobsRequest(page_token=token))


def filters(count: int, *, values: int = 1, key: str = "site") -> list[enrolment_pb2.AttributeFilter]:
    texts = [f"value {number}" for number in range(values)]
    return [enrolment_pb2.AttributeFilter(key=key, values=texts)] * count


BAD_FIELDS: dict[str, Callable[[Wire, str], object]] = {
    "no gallery": identify_with(gallery=""),
    "a gallery's name with NUL": identify_with(gallery="sta\0ff"),
    "a gallery's name of a megabyte": identify_with(gallery="a" * 2**20),
    "no probe": lambda wire, gallery: wire.identification.Identify(
        identification_pb2.IdentifyRequest(gallery=gallery)
    ),
    "a negative limit": identify_with(limit=-1),
    "a huge limit": identify_with(limit=2**31 - 1),
    "a threshold above 1": identify_with(threshold=1.5),
    "a threshold that is no number": identify_with(threshold=float("nan")),
    "an unknown selection of faces": identify_with(faces=77),
    "an unknown mode": identify_with(mode=77),
    "a long request id": identify_with(request_id="x" * 65),
    "a request id with NUL": identify_with(request_id="x\0"),
    "too many excluded identities": identify_with(excluded_identity_ids=["ada"] * 1_001),
    "an excluded identity with NUL": identify_with(excluded_identity_ids=["a\0da"]),
    "a filter without a key": identify_with(filters=filters(1, key="")),
    "a filter without values": identify_with(filters=filters(1, values=0)),
    "a filter's key with NUL": identify_with(filters=filters(1, key="si\0te")),
    "a filter of too many values": identify_with(filters=filters(1, values=100_000)),
    "too many filters": identify_with(filters=filters(5_000)),
    "no items": enrol_with(item_count=0),
    "too many items": enrol_with(item_count=101),
    "an item without a source": enrol_with(items=[enrolment_pb2.EnrolItem()]),
    "no identity": enrol_with(identity=None),
    "an identity id that is too long": enrol_person(id="x" * 256),
    "an identity id with NUL": enrol_person(id="a\0da"),
    "an identity id with a line break": enrol_person(id="ada\ngrace"),
    "an identity id with an escape": enrol_person(id="ada\x1b[31m"),
    "a display name with NUL": enrol_person(display_name="A\0da"),
    "a display name that is too long": enrol_person(display_name="x" * 256),
    "a consent reference with a control character": enrol_person(consent_reference="form\x07"),
    "too many attributes": enrol_person(attributes={f"key {n}": "" for n in range(65)}),
    "an attribute without a key": enrol_person(attributes={"": "value"}),
    "an attribute's key that is too long": enrol_person(attributes={"x" * 64: ""}),
    "an attribute's value with NUL": enrol_person(attributes={"site": "\0"}),
    "an expiry outside the calendar": enrol_person(expire_time=Timestamp(seconds=2**62)),
    "an expiry before the calendar": enrol_person(expire_time=Timestamp(seconds=-(2**62))),
    "an expiry with broken nanoseconds": enrol_person(expire_time=Timestamp(seconds=2_000_000_000, nanos=-5)),
    "an unknown choice of faces": enrol_with(several_faces=77),
    "an unknown guard action": enrol_with(duplicate_action=77),
    "a negative page size": list_with(page_size=-1),
    "a huge page size": list_with(page_size=2**31 - 1),
    "a page token that is no base64": list_with(page_token=b"not a token".decode()),
    "a page token of a number that no database has": list_jobs_after("9" * 19),
    "a page token of more digits than a number may have": list_jobs_after("9" * 5_000),
    "a page token of other characters": list_with(page_token=b"\xc3\xa9".decode()),
    "a page token that hides NUL": list_with(page_token=b"YQBi".decode()),
    "a page token that hides no text": list_with(page_token=b"_____w==".decode()),
    "the listing of too many filters": list_with(filters=filters(5_000)),
    "a gallery's page token that is no base64": lambda wire, _: wire.galleries.ListGalleries(
        gallery_pb2.ListGalleriesRequest(page_token=b"?".decode())
    ),
    "an update without a mask": lambda wire, gallery: wire.enrolment.UpdateIdentity(
        enrolment_pb2.UpdateIdentityRequest(gallery=gallery, identity=enrolment_pb2.Identity(id="ada"))
    ),
    "an update of an unknown field": lambda wire, gallery: wire.enrolment.UpdateIdentity(
        enrolment_pb2.UpdateIdentityRequest(
            gallery=gallery,
            identity=enrolment_pb2.Identity(id="ada"),
            update_mask=FieldMask(paths=["nonsense"]),
        )
    ),
    "a reading of no identity": lambda wire, gallery: wire.enrolment.GetIdentity(
        enrolment_pb2.GetIdentityRequest(gallery=gallery)
    ),
    "a deletion of an identity with NUL": lambda wire, gallery: wire.enrolment.DeleteIdentity(
        enrolment_pb2.DeleteIdentityRequest(gallery=gallery, identity_id="\0")
    ),
    "a verification against nothing": lambda wire, gallery: wire.identification.Verify(
        VerifyRequest(gallery=gallery, image=photograph(1))
    ),
    "a verification of all faces": lambda wire, _: wire.identification.Verify(
        VerifyRequest(image=photograph(1), reference_image=photograph(1), faces=identification_pb2.FACE_SELECTION_ALL)
    ),
    "a verification with a broken threshold": lambda wire, _: wire.identification.Verify(
        VerifyRequest(image=photograph(1), reference_image=photograph(1), threshold=float("nan"))
    ),
}  # fmt: skip


@pytest.mark.parametrize("call", BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
def test_a_field_that_is_out_of_range_is_named(wire: Wire, gallery: str, call: Callable[[Wire, str], object]) -> None:
    refused = refusal(lambda: call(wire, gallery))
    assert (refused.code, refused.reason) == (INVALID, "INVALID_ARGUMENT"), refused.message
    assert refused.status is not None
    assert len(refused.message) < 600


@pytest.mark.parametrize("template_id", [0, -1, 2**63 - 1, -(2**63)])
def test_a_template_number_that_was_never_given_is_not_found(wire: Wire, gallery: str, template_id: int) -> None:
    request = enrolment_pb2.DeleteTemplateRequest(gallery=gallery, template_id=template_id)
    assert refusal(lambda: wire.enrolment.DeleteTemplate(request)).reason == "TEMPLATE_NOT_FOUND"


def test_the_largest_request_that_is_allowed_is_answered(wire: Wire, gallery: str, vectors: VectorMaker) -> None:
    request = enrol_request(gallery, "x" * 255, vectors.vector(1), request_id="r" * 64)
    request.identity.display_name = "\U0001f9d1" * 255
    request.identity.attributes.update({f"{n:063}": "\U0001f9d1" * 255 for n in range(64)})
    wire.enrolment.Enrol(request)
    probe = identify_request(gallery, vectors.vector(1))
    probe.limit = 1_000
    probe.excluded_identity_ids.extend(f"nobody {n}" for n in range(1_000))
    probe.filters.add(key="0".zfill(63), values=["\U0001f9d1" * 255, *(str(n) for n in range(999))])
    (face,) = wire.identification.Identify(probe).faces
    assert [each.identity_id for each in face.candidates] == ["x" * 255]


# Messages


def test_a_message_over_the_limit_is_refused(wire: Wire, gallery: str) -> None:
    request = identify_request(gallery, bytes(wire.info().max_message_bytes + 1))
    assert refusal(lambda: wire.identification.Identify(request)).code == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_compressed_message_does_not_grow_beyond_the_limit(server: RunningServer, wire: Wire, gallery: str) -> None:
    before = server.peak_megabytes()
    request = identify_request(gallery, bytes(128 * 2**20))
    refused = refusal(lambda: wire.identification.Identify(request, compression=grpc.Compression.Gzip))
    assert refused.code in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNIMPLEMENTED}
    assert server.peak_megabytes() - before < 100


@pytest.mark.parametrize("method", ["/facedex.v1.GalleryService/Nothing", "/nothing.v1.Nothing/Nothing", "/", "no"])
def test_an_unknown_method_is_unimplemented(wire: Wire, method: str) -> None:
    assert refusal(lambda: wire.raw_call(method, b"")).code == grpc.StatusCode.UNIMPLEMENTED


UNARY_METHODS = [
    "GalleryService/CreateGallery",
    "GalleryService/UpdateGallery",
    "GalleryService/ListGalleries",
    "EnrolmentService/Enrol",
    "EnrolmentService/ListIdentities",
    "IdentificationService/Identify",
    "IdentificationService/Verify",
    "IdentificationService/Detect",
]


def test_bytes_that_are_no_message_are_called_so(wire: Wire) -> None:
    for method in UNARY_METHODS:
        refused = refusal(lambda each=method: wire.raw_call(f"/facedex.v1.{each}", b"\xff" * 20))  # type: ignore[misc]
        assert (refused.code, refused.reason) == (INVALID, "MALFORMED_MESSAGE")


def test_bytes_that_are_no_message_end_a_stream_with_the_same_words(wire: Wire) -> None:
    stream: Any = wire.channel.stream_stream("/facedex.v1.EnrolmentService/EnrolStream")
    refused = refusal(lambda: list(stream(iter([b"\xff" * 20]))))
    assert (refused.code, refused.reason) == (INVALID, "MALFORMED_MESSAGE")


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=st.sampled_from(UNARY_METHODS), message=st.binary(max_size=300))
def test_whatever_the_bytes_the_caller_gets_an_answer_or_a_named_error(wire: Wire, method: str, message: bytes) -> None:
    try:
        wire.raw_call(f"/facedex.v1.{method}", message)
    except grpc.RpcError as error:
        assert error.code() not in {  # noqa: PT017
            grpc.StatusCode.UNKNOWN,
            grpc.StatusCode.INTERNAL,
            grpc.StatusCode.UNAVAILABLE,
        }


def test_the_methods_that_are_thrown_bytes_at_exist() -> None:
    assert {f"facedex.v1.{each.partition('/')[0]}" for each in UNARY_METHODS} <= set(SERVICES)


# Deadlines


def test_work_stops_when_the_deadline_has_passed(server: RunningServer, wire: Wire, gallery: str) -> None:
    photographs = [photograph(person, take) for person in range(1, 21) for take in range(1, 6)]
    request = enrol_request(gallery, "everybody", *photographs)
    seen = len(server.events())
    refused = refusal(lambda: wire.enrolment.Enrol(request, timeout=0.6))
    assert refused.code == grpc.StatusCode.DEADLINE_EXCEEDED

    def ended() -> list[dict[str, Any]]:
        return [each for each in server.events()[seen:] if str(each.get("method")).endswith("/Enrol")]

    wait_until(lambda: bool(ended()))
    (event,) = ended()
    assert event["code"] == "DEADLINE_EXCEEDED"
    assert event["duration_ms"] < 1_500  # all of it takes several seconds
    listed = wire.enrolment.ListIdentities(enrolment_pb2.ListIdentitiesRequest(gallery=gallery))
    assert not listed.identities


def test_work_stops_when_the_caller_hangs_up(server: RunningServer, wire: Wire, gallery: str) -> None:
    photographs = [photograph(person, take) for person in range(1, 21) for take in range(1, 6)]
    seen = len(server.events())
    call = wire.enrolment.Enrol.future(enrol_request(gallery, "everybody", *photographs))
    wait_until(call.running, within_seconds=5)
    call.cancel()
    wait_until(lambda: any("/Enrol" in str(each.get("method")) for each in server.events()[seen:]))
    listed = wire.enrolment.ListIdentities(enrolment_pb2.ListIdentitiesRequest(gallery=gallery))
    assert not listed.identities
