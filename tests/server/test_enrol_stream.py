"""How the requests of a stream are looked at ahead and enrolled together."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import pytest
from tests.server.faces import VectorMaker, enrol_request
from tests.server.running_server import Wire
from tests.waiting import wait_until

from facedex.indexer.enroller import MAX_GROUP, Enroller, PreparedRequest, Submission
from facedex.indexer.enrolment import Enrol, Enrolment
from facedex.indexer.errors import RequestIdReused
from facedex.indexer.store.records import IdentityDetails
from facedex.server import enrol_stream
from facedex.server.enrol_stream import MAX_WAITING, EnrolLine, Ready
from facedex.v1 import enrolment_pb2
from facedex.v1.enrolment_pb2 import EnrolRequest, Identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Book:
    """An enroller that notes what was enrolled together; what it looks at is held back until it is `opened`."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.opened = threading.Event()
        self.looked: list[str] = []
        self.failing: dict[str, Exception] = {}

    def look(self, request: EnrolRequest) -> Ready:
        self.looked.append(request.request_id)
        assert self.opened.wait(20)
        enrol = Enrol(IdentityDetails(external_id=request.identity.id), (b"",), request.request_id)
        return Ready(cast("Enroller", self), PreparedRequest(enrol, digest=""))

    def commit_each(self, submissions: Sequence[Submission]) -> list[Enrolment | Exception]:
        ids = [each.prepared.request.request_id for each in submissions]
        self.groups.append(ids)
        return [self.failing.get(each, Enrolment(each)) for each in ids]


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def requests(count: int) -> Iterator[EnrolRequest]:
    return (EnrolRequest(request_id=f"{number}", identity=Identity(id=f"{number}")) for number in range(count))


def never() -> None:
    """No test takes so long that a line is idle, unless it means to."""
    raise AssertionError


def outcomes(line: EnrolLine, sent: Iterator[EnrolRequest]) -> list[str]:
    return [
        type(each.outcome).__name__ if isinstance(each.outcome, Exception) else each.outcome.identity_id
        for each in line.answers(sent, while_idle=never)
    ]


def test_what_is_ready_together_is_enrolled_together_and_answered_in_order(
    book: Book, pool: ThreadPoolExecutor
) -> None:
    line = EnrolLine(book.look, pool)
    sent = requests(50)

    def opening() -> Iterator[EnrolRequest]:
        yield from sent
        book.opened.set()

    assert outcomes(line, opening()) == [f"{number}" for number in range(50)]
    assert max(len(group) for group in book.groups) > 1
    assert all(len(group) <= MAX_GROUP for group in book.groups)


def test_a_request_that_is_alone_does_not_wait_for_others(book: Book, pool: ThreadPoolExecutor) -> None:
    book.opened.set()
    line = EnrolLine(book.look, pool)
    answered = threading.Semaphore(0)

    def one_by_one() -> Iterator[EnrolRequest]:
        for request in requests(3):
            yield request
            assert answered.acquire(timeout=20)

    for _ in line.answers(one_by_one(), while_idle=never):
        answered.release()
    assert book.groups == [["0"], ["1"], ["2"]]


@pytest.mark.parametrize("size", [1, 3 * 2**20])
def test_no_more_is_read_ahead_than_the_line_has_room_for(book: Book, pool: ThreadPoolExecutor, size: int) -> None:
    line = EnrolLine(book.look, pool)
    read: list[int] = []

    def endless() -> Iterator[EnrolRequest]:
        for number in range(500):
            read.append(number)
            yield EnrolRequest(request_id=f"{number}", items=[enrolment_pb2.EnrolItem(image=bytes(size))])

    answers = line.answers(endless(), while_idle=never)
    threading.Timer(0.5, book.opened.set).start()
    room = min(MAX_WAITING, enrol_stream.MAX_WAITING_BYTES // size)
    before = next(answers)
    assert before.request_id == "0"
    # One is in the hand of whoever reads; those of the first group have made room.
    assert len(read) <= room + 1 + MAX_GROUP
    answers.close()  # type: ignore[attr-defined]


def test_each_is_told_what_became_of_his_own(book: Book, pool: ThreadPoolExecutor) -> None:
    book.failing["2"] = RequestIdReused()
    line = EnrolLine(book.look, pool)

    def opening() -> Iterator[EnrolRequest]:
        yield from requests(5)
        book.opened.set()

    assert outcomes(line, opening()) == ["0", "1", "RequestIdReused", "3", "4"]


def test_what_was_read_before_a_failure_is_answered_first(book: Book, pool: ThreadPoolExecutor) -> None:
    book.opened.set()
    line = EnrolLine(book.look, pool)

    def breaking() -> Iterator[EnrolRequest]:
        yield from requests(2)
        raise ConnectionError

    answers = line.answers(breaking(), while_idle=never)
    assert [next(answers).request_id, next(answers).request_id] == ["0", "1"]
    with pytest.raises(ConnectionError):
        next(answers)


def test_a_line_whose_caller_is_gone_looks_at_nothing_further(book: Book, pool: ThreadPoolExecutor) -> None:
    line = EnrolLine(book.look, pool)
    threads = threading.active_count()
    answers = line.answers(requests(500), while_idle=never)
    threading.Timer(0.2, book.opened.set).start()
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    wait_until(lambda: threading.active_count() <= threads + 4)
    assert len(book.looked) < 500


def test_an_idle_line_is_told_so_again_and_again(
    book: Book, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrol_stream, "IDLE_SECONDS", 0.05)
    book.opened.set()
    told: list[int] = []
    enough = threading.Event()

    def idle() -> None:
        told.append(len(book.groups))
        if len(told) >= 3:
            enough.set()

    def pausing() -> Iterator[EnrolRequest]:
        first, second = requests(2)
        yield first
        assert enough.wait(20)
        yield second

    answers = EnrolLine(book.look, pool).answers(pausing(), while_idle=idle)
    assert [each.request_id for each in answers] == ["0", "1"]
    assert told[-1] == 1


def test_a_line_that_looks_at_something_for_long_is_idle_too(
    book: Book, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrol_stream, "IDLE_SECONDS", 0.05)

    def idle() -> None:
        if book.looked:
            book.opened.set()

    answers = EnrolLine(book.look, pool).answers(requests(1), while_idle=idle)
    assert [each.outcome for each in answers] == [Enrolment("0")]


def test_whoever_is_told_of_idleness_can_end_the_line(
    book: Book, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrol_stream, "IDLE_SECONDS", 0.05)
    silence = threading.Event()

    def silent() -> Iterator[EnrolRequest]:
        silence.wait(20)
        yield from requests(1)

    with pytest.raises(AssertionError):
        next(EnrolLine(book.look, pool).answers(silent(), while_idle=never))
    silence.set()


def test_a_request_id_that_comes_twice_in_a_stream_is_refused_alone(
    wire: Wire, gallery: str, vectors: VectorMaker
) -> None:
    sent = [
        enrol_request(gallery, f"{number}", vectors.vector(number), request_id="again" if number in (3, 7) else "")
        for number in range(10)
    ]
    answers = list(wire.enrolment.EnrolStream(enrolment_pb2.EnrolStreamRequest(enrol=each) for each in sent))
    refused = [number for number, each in enumerate(answers) if each.WhichOneof("answer") == "error"]
    assert refused == [7]
    assert answers[7].error.reason == "REQUEST_ID_REUSED"
    ids = [each.enrolled.results[0].template_id for each in answers if each.WhichOneof("answer") == "enrolled"]
    assert len(set(ids)) == 9
