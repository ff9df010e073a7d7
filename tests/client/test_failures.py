"""What the client raises, and what it tries again."""

from typing import Any

import grpc
import pytest
from tests.client.conftest import Connect, FakeTime
from tests.client.fake_server import Bare, FakeServer, Refused, Silence

from facedex import client as facedex_client
from facedex.client import (
    AccessError,
    AlreadyExistsError,
    AsyncClient,
    CallCancelledError,
    Client,
    ConflictError,
    DeadlineError,
    FacedexError,
    FieldViolation,
    GalleryExistsError,
    GalleryNotFoundError,
    IdentityNotFoundError,
    InvalidRequestError,
    InvalidTargetError,
    InvalidVectorError,
    MessageTooLargeError,
    NoFaceError,
    NotFoundError,
    OverloadedError,
    RetryPolicy,
    ServerFaultError,
    SeveralFacesError,
    TemplateNotFoundError,
    UnavailableError,
    UnreadableImageError,
    WrongModelError,
    errors,
)
from facedex.v1 import enrolment_pb2, gallery_pb2

Code = grpc.StatusCode
BUSY = Refused(Code.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_seconds=0.75)
DOWN = Bare(Code.UNAVAILABLE, "connection lost")
GALLERY = gallery_pb2.GetGalleryResponse(gallery=gallery_pb2.Gallery(name="staff"))


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (Code.NOT_FOUND, "GALLERY_NOT_FOUND", GalleryNotFoundError),
        (Code.NOT_FOUND, "IDENTITY_NOT_FOUND", IdentityNotFoundError),
        (Code.NOT_FOUND, "TEMPLATE_NOT_FOUND", TemplateNotFoundError),
        (Code.NOT_FOUND, "SOMETHING_NEW", NotFoundError),
        (Code.ALREADY_EXISTS, "GALLERY_EXISTS", GalleryExistsError),
        (Code.ALREADY_EXISTS, "SOMETHING_NEW", AlreadyExistsError),
        (Code.INVALID_ARGUMENT, "IMAGE_EMPTY", UnreadableImageError),
        (Code.INVALID_ARGUMENT, "IMAGE_TRUNCATED", UnreadableImageError),
        (Code.INVALID_ARGUMENT, "VECTOR_INVALID", InvalidVectorError),
        (Code.INVALID_ARGUMENT, "INVALID_ARGUMENT", InvalidRequestError),
        (Code.FAILED_PRECONDITION, "WRONG_MODEL", WrongModelError),
        (Code.FAILED_PRECONDITION, "NO_FACE", NoFaceError),
        (Code.FAILED_PRECONDITION, "SEVERAL_FACES", SeveralFacesError),
        (Code.FAILED_PRECONDITION, "MODEL_MISSING", ConflictError),
        (Code.RESOURCE_EXHAUSTED, "", InvalidRequestError),
        (Code.PERMISSION_DENIED, "", AccessError),
        (Code.CANCELLED, "", CallCancelledError),
        (Code.INTERNAL, "INTERNAL", ServerFaultError),
        (Code.UNIMPLEMENTED, "", ServerFaultError),
    ],
)
def test_a_refusal_is_raised_as_the_error_that_names_it(
    client: Any, server: FakeServer, code: grpc.StatusCode, reason: str, error: type[FacedexError]
) -> None:
    server.plan("GetGallery", Refused(code, reason, "what to do"))

    with pytest.raises(FacedexError) as raised:
        client.get_gallery("staff")

    assert type(raised.value) is error
    assert (raised.value.code, raised.value.reason, str(raised.value)) == (code.name, reason, "what to do")
    assert raised.value.__cause__ is None


def test_an_error_carries_what_the_server_tells_for_programs(client: Any, server: FakeServer) -> None:
    server.plan(
        "GetGallery",
        Refused(
            Code.INVALID_ARGUMENT,
            "INVALID_ARGUMENT",
            "the request is wrong",
            metadata=(("gallery", "Staff"),),
            violations=(("name", "has a capital letter"),),
        ),
    )

    with pytest.raises(InvalidRequestError) as raised:
        client.get_gallery("Staff")

    assert raised.value.metadata == {"gallery": "Staff"}
    assert raised.value.violations == (FieldViolation("name", "has a capital letter"),)
    assert str(raised.value) == "the request is wrong; name: has a capital letter"


def test_an_error_without_details_is_raised_by_its_code(client: Any, server: FakeServer) -> None:
    server.plan("GetGallery", Bare(Code.NOT_FOUND, "no such thing"))

    with pytest.raises(NotFoundError, match="no such thing") as raised:
        client.get_gallery("staff")
    assert (raised.value.reason, raised.value.violations) == ("", ())


def test_each_error_is_part_of_the_drawn_tree() -> None:
    drawn = errors.__doc__ or ""
    public = [name for name in facedex_client.__all__ if name.endswith("Error")]
    assert [name for name in public if name not in drawn] == []


def test_no_server_at_the_target_is_said_with_the_target(server: FakeServer, connect: Connect) -> None:
    client = connect(timeout_seconds=5.0)
    server.stop()

    with pytest.raises(UnavailableError, match=f"no facedex server answers at {server.target}"):
        client.get_gallery("staff")


def test_a_server_that_does_not_answer_in_time_is_waited_for_no_longer(connect: Connect, server: FakeServer) -> None:
    server.plan("GetGallery", GALLERY, Silence())
    client = connect(timeout_seconds=1.0)
    client.get_gallery("staff")  # it is connected

    with pytest.raises(DeadlineError, match="no answer from"):
        client.get_gallery("staff")
    assert len(server.received) == 2


def test_another_timeout_leaves_the_connection_as_it_is(connect: Connect, server: FakeServer) -> None:
    server.plan("GetGallery", GALLERY, Silence(), GALLERY)
    client = connect()
    client.get_gallery("staff")  # it is connected

    with pytest.raises(DeadlineError):
        client.with_timeout(0.5).get_gallery("staff")
    assert client.get_gallery("staff").name == "staff"


def test_reading_is_tried_again_with_growing_pauses(client: Any, server: FakeServer, time: FakeTime) -> None:
    server.plan("GetGallery", DOWN, DOWN, DOWN, GALLERY)

    assert client.get_gallery("staff").name == "staff"
    assert time.pauses == pytest.approx([0.1, 0.2, 0.4])


def test_after_the_last_attempt_the_error_is_raised(client: Any, server: FakeServer, time: FakeTime) -> None:
    server.plan("GetGallery", DOWN)

    with pytest.raises(UnavailableError):
        client.get_gallery("staff")
    assert len(server.received) == 1 + len(time.pauses) == RetryPolicy().attempts


@pytest.mark.parametrize(
    ("method", "name", "arguments"),
    [
        ("CreateGallery", "create_gallery", {"name": "staff"}),
        ("DeleteGallery", "delete_gallery", {"name": "staff"}),
        ("DeleteIdentity", "delete_identity", {"gallery": "staff", "identity": "ada"}),
        ("DeleteTemplate", "delete_template", {"gallery": "staff", "template_id": 1}),
        ("Enrol", "enrol", {"gallery": "staff", "identity": "ada", "images": [b"x"], "request_id": ""}),
    ],
)
def test_a_change_that_may_have_been_made_is_not_made_again(
    client: Any, server: FakeServer, method: str, name: str, arguments: dict[str, Any]
) -> None:
    server.plan(method, DOWN)

    with pytest.raises(UnavailableError):
        getattr(client, name)(**arguments)
    assert len(server.asked(method)) == 1


def test_an_enrolment_is_tried_again_under_the_same_request_id(client: Any, server: FakeServer) -> None:
    server.plan("Enrol", DOWN, enrolment_pb2.EnrolResponse(identity_id="ada"))

    assert client.enrol("staff", "ada", images=[b"x"]).identity == "ada"
    first, second = server.asked("Enrol")
    assert first.request_id == second.request_id != ""


def test_what_a_busy_server_refused_unseen_is_tried_again_when_it_says(
    client: Any, server: FakeServer, time: FakeTime
) -> None:
    server.plan("CreateGallery", BUSY, gallery_pb2.CreateGalleryResponse(gallery=GALLERY.gallery))

    assert client.create_gallery("staff").name == "staff"
    assert time.pauses == pytest.approx([0.75 + 0.1])


def test_a_pause_that_would_pass_the_deadline_is_not_begun(
    connect: Connect, server: FakeServer, time: FakeTime
) -> None:
    server.plan("GetGallery", BUSY)

    with pytest.raises(OverloadedError) as raised:
        connect(timeout_seconds=0.5).get_gallery("staff")
    assert (raised.value.retry_after_seconds, time.pauses) == (0.75, [])


def test_a_wrong_request_is_not_tried_again(client: Any, server: FakeServer) -> None:
    server.plan("GetGallery", Refused(Code.INVALID_ARGUMENT, "INVALID_ARGUMENT"))

    with pytest.raises(InvalidRequestError):
        client.get_gallery("")
    assert len(server.received) == 1


def test_a_request_over_the_limit_is_told_with_both_sizes_and_not_sent(client: Any, server: FakeServer) -> None:
    with pytest.raises(MessageTooLargeError, match="33,554,432") as raised:
        client.identify("staff", bytes(32 * 1024 * 1024))

    assert raised.value.size_bytes > raised.value.limit_bytes == 32 * 1024 * 1024
    assert not server.received


def test_a_photograph_of_31_mib_is_sent(client: Any, server: FakeServer) -> None:
    server.plan("Identify", Refused(Code.INVALID_ARGUMENT, "IMAGE_UNREADABLE"))

    with pytest.raises(UnreadableImageError):
        client.identify("staff", bytes(31 * 1024 * 1024))


@pytest.mark.parametrize(
    "target", ["", "localhost", "http://localhost:50051", "localhost:port", "a b:1", "::1:50051", "ipv4:a:1"]
)
def test_an_address_without_sense_is_refused_before_it_is_used(target: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidTargetError, match="HOST:PORT") as raised:
            kind.connect(target)
        assert raised.value.target == target


SEVERAL = ("ipv4:10.0.0.1:50051,10.0.0.2:50051", "ipv6:[::1]:1,[::2]:1")


@pytest.mark.parametrize(
    "target", ["localhost:1", "127.0.0.1:50051", "[::1]:50051", "dns:///a.example:1", "unix:/a", *SEVERAL]
)
def test_addresses_that_grpc_understands_are_taken(target: str) -> None:
    Client.connect(target).close()


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"first_pause_seconds": -1.0}, {"longest_pause_seconds": -1.0}])
def test_a_retry_policy_without_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least one attempt"):
        RetryPolicy(**wrong)


def test_pauses_stop_growing() -> None:
    policy = RetryPolicy(draw=lambda: 1.0, first_pause_seconds=1.0, longest_pause_seconds=3.0)
    error = UnavailableError(facedex_client.Failure("down"))
    assert [policy.pause_seconds(attempt=attempt, error=error) for attempt in (1, 2, 3, 4)] == [1, 2, 3, 3]
