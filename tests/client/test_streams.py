"""Streams of requests: order, back-pressure, and how they end."""

import asyncio
import threading
import time as clock
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from tests.client.conftest import Connect
from tests.client.fake_server import Abort, FakeServer, Refused

from facedex.client import (
    AsyncClient,
    Client,
    DeadlineError,
    Enrolment,
    EnrolRequest,
    GalleryNotFoundError,
    IdentifyRequest,
    InvalidRequestError,
    MessageTooLargeError,
    Refusal,
    ServerFaultError,
    UnavailableError,
)
from facedex.v1 import enrolment_pb2, identification_pb2

Answers = Iterator[enrolment_pb2.EnrolStreamResponse]


def echo(requests: Iterator[Any]) -> Answers:
    for request in requests:
        yield answer(request.enrol.identity.id)


def answer(identity: str) -> enrolment_pb2.EnrolStreamResponse:
    return enrolment_pb2.EnrolStreamResponse(enrolled=enrolment_pb2.EnrolResponse(identity_id=identity))


def people(count: int) -> Iterator[EnrolRequest]:
    return (EnrolRequest("staff", str(number), images=[b"photograph"]) for number in range(count))


def test_each_request_of_a_stream_gets_its_answer_in_order(client: Any, server: FakeServer) -> None:
    server.plan_stream("EnrolStream", echo)

    enrolled = [enrolment.identity for enrolment in client.enrol_stream(people(100), window=7)]

    assert enrolled == [str(number) for number in range(100)]
    assert server.ended.wait(5)
    assert not server.cancelled.is_set()


def test_frames_are_identified_in_order(client: Any, server: FakeServer) -> None:
    def identify(requests: Iterator[Any]) -> Iterator[identification_pb2.IdentifyStreamResponse]:
        for request in requests:
            reply = identification_pb2.IdentifyResponse(request_id=request.identify.request_id)
            yield identification_pb2.IdentifyStreamResponse(identified=reply)

    server.plan_stream("IdentifyStream", identify)
    frames = [IdentifyRequest("staff", b"frame", request_id=str(number)) for number in range(5)]

    assert [found.request_id for found in client.identify_stream(frames)] == ["0", "1", "2", "3", "4"]


def test_an_empty_stream_ends_at_once(client: Any, server: FakeServer) -> None:
    server.plan_stream("EnrolStream", echo)
    assert list(client.enrol_stream([])) == []


@pytest.mark.parametrize("window", [1, 3])
def test_no_more_requests_are_read_than_the_window_holds(client: Any, server: FakeServer, window: int) -> None:
    server.plan_stream("EnrolStream", echo)
    read = 0

    def counted() -> Iterator[EnrolRequest]:
        nonlocal read
        for request in people(20):
            read += 1
            yield request

    for answered, _ in enumerate(client.enrol_stream(counted(), window=window)):
        assert read - answered <= window


def test_a_window_of_nothing_is_refused(client: Any) -> None:
    with pytest.raises(ValueError, match="at least one"):
        next(client.enrol_stream(people(1), window=0))


def test_a_refused_request_does_not_end_the_stream(client: Any, server: FakeServer) -> None:
    def refuse_second(requests: Iterator[Any]) -> Answers:
        for number, request in enumerate(requests):
            error = enrolment_pb2.RequestError(
                request_id=request.enrol.request_id, code=5, reason="GALLERY_NOT_FOUND", message="no such gallery"
            )
            yield enrolment_pb2.EnrolStreamResponse(error=error) if number == 1 else answer(str(number))

    server.plan_stream("EnrolStream", refuse_second)
    requests = list(people(3))

    first, second, third = client.enrol_stream(requests)

    assert (first.identity, third.identity) == ("0", "2")
    assert second.request_id == requests[1].request_id
    assert isinstance(second.error, GalleryNotFoundError)


def test_a_photograph_over_the_limit_keeps_its_place_in_the_stream(client: Any, server: FakeServer) -> None:
    server.plan_stream("EnrolStream", echo)
    requests = list(people(3))
    requests[1] = EnrolRequest("staff", "1", images=[bytes(33 * 1024 * 1024)])

    first, second, third = client.enrol_stream(requests)

    assert (first.identity, third.identity) == ("0", "2")
    assert isinstance(second, Refusal)
    assert isinstance(second.error, MessageTooLargeError)


def test_a_name_that_is_no_unicode_keeps_its_place_in_the_stream(client: Any, server: FakeServer) -> None:
    """As a folder's name may be, on a disk from long ago."""
    server.plan_stream("EnrolStream", echo)
    requests = list(people(3))
    requests[1] = EnrolRequest("staff", "J\udcf6rg", images=[b"photograph"])

    first, second, third = client.enrol_stream(requests)

    assert (first.identity, third.identity) == ("0", "2")
    assert isinstance(second, Refusal)
    assert isinstance(second.error, InvalidRequestError)


def test_a_server_that_falls_silent_is_waited_for_no_longer(connect: Connect, server: FakeServer) -> None:
    def silent(requests: Iterator[Any]) -> Answers:
        yield answer(next(requests).enrol.identity.id)
        server.wait_until_stopped()

    server.plan_stream("EnrolStream", silent)
    answers = connect(timeout_seconds=0.3).enrol_stream(people(2))

    assert next(answers).identity == "0"
    with pytest.raises(DeadlineError, match="no answer on the stream"):
        next(answers)
    assert server.ended.wait(5)


def test_a_stream_that_breaks_says_why(client: Any, server: FakeServer) -> None:
    def breaking(requests: Iterator[Any]) -> Answers:
        yield answer(next(requests).enrol.identity.id)
        raise Abort(Refused(grpc.StatusCode.UNAVAILABLE, "STOPPING", "the server stops"))

    server.plan_stream("EnrolStream", breaking)
    answers = client.enrol_stream(people(50), window=4)

    assert next(answers).identity == "0"
    with pytest.raises(UnavailableError, match="the server stops"):
        list(answers)


def test_a_stream_that_ends_with_requests_unanswered_is_an_error(client: Any, server: FakeServer) -> None:
    server.plan_stream("EnrolStream", lambda requests: iter([answer(next(requests).enrol.identity.id)]))
    answers = client.enrol_stream(people(3))

    assert next(answers).identity == "0"
    with pytest.raises(ServerFaultError, match="unanswered"):
        list(answers)


def test_leaving_a_stream_cancels_it(client: Any, server: FakeServer) -> None:
    server.plan_stream("EnrolStream", echo)
    answers = client.enrol_stream(people(1000), window=2)
    next(answers)
    answers.close()

    assert server.ended.wait(5)
    assert not _left_over(seconds=5)


def test_an_error_of_the_source_reaches_the_caller(client: Any, server: FakeServer) -> None:
    server.plan_stream("EnrolStream", echo)

    def failing() -> Iterator[EnrolRequest]:
        yield from people(2)
        raise LookupError("the folder is gone")

    with pytest.raises(LookupError, match="the folder is gone"):
        list(client.enrol_stream(failing(), window=1))
    assert server.ended.wait(5)


def test_answers_are_given_while_a_slow_source_is_waited_for(server: FakeServer) -> None:
    server.plan_stream("EnrolStream", echo)
    answered: list[str] = []
    missing: list[int] = []

    def camera() -> Iterator[EnrolRequest]:
        for number, frame in enumerate(people(4)):
            yield frame
            clock.sleep(0.05)
            missing.append(number - len(answered))

    with Client.connect(server.target) as client:
        for enrolment in client.enrol_stream(camera(), window=16):
            assert isinstance(enrolment, Enrolment)
            answered.append(enrolment.identity)

    assert answered == ["0", "1", "2", "3"]
    assert max(missing) <= 1


def test_an_asynchronous_source_is_taken_too(server: FakeServer) -> None:
    server.plan_stream("EnrolStream", echo)

    async def source() -> AsyncIterator[EnrolRequest]:
        for request in people(5):
            await asyncio.sleep(0)
            yield request

    async def enrolled() -> list[Any]:
        async with AsyncClient.connect(server.target) as client:
            return [answer async for answer in client.enrol_stream(source(), window=2)]

    assert [answer.identity for answer in asyncio.run(enrolled())] == ["0", "1", "2", "3", "4"]


def _left_over(*, seconds: float) -> list[str]:
    """The threads of streams that still run after a time."""
    end = clock.monotonic() + seconds
    while clock.monotonic() < end:
        names = [thread.name for thread in threading.enumerate() if thread.name == "facedex-stream"]
        if not names:
            return []
        clock.sleep(0.01)
    return ["facedex-stream"]
