"""Enrolment over a stream: what is sent is looked at ahead, and what is ready is enrolled in one transaction."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from concurrent.futures import wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facedex.indexer.enroller import MAX_GROUP, Submission
from facedex.indexer.jobs.runner import SILENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor, Future

    from facedex.indexer.enroller import Enroller, PreparedRequest
    from facedex.indexer.enrolment import Enrolment
    from facedex.v1.enrolment_pb2 import EnrolRequest

# What one stream may have waiting for its answers, so that it does not take the memory of the others.
MAX_WAITING = 64
MAX_WAITING_BYTES = 64 * 2**20
# How long a stream may have no answer to give until that is noted: a third of the time after which a job counts as abandoned.
IDLE_SECONDS = SILENCE.total_seconds() / 3


@dataclass(frozen=True, slots=True)
class Ready:
    """A request that has been looked at, and who enrols it."""

    enroller: Enroller
    prepared: PreparedRequest


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request."""

    request_id: str
    outcome: Enrolment | Exception


@dataclass(frozen=True, slots=True)
class _Waiting:
    request_id: str
    weight: int
    looked: Future[Ready]


class EnrolLine:
    """The requests of one stream, from their arrival to their answers, in order.

    A thread of its own reads ahead, as far as the line has room. Nobody is made to wait for company: a request that is
    alone is enrolled alone, and those that became ready meanwhile share the next transaction.
    """

    def __init__(self, look: Callable[[EnrolRequest], Ready], pool: Executor) -> None:
        self._look = look
        self._pool = pool
        # Other threads work for this call, and whoever traces it has to know.
        self._call = contextvars.copy_context()
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._weight = 0
        self._taken = 0
        self._is_ended = False
        self._error: BaseException | None = None

    def is_busy(self) -> bool:
        """Whether something that was read has no answer yet."""
        return bool(self._waiting) or self._taken > 0

    def answers(self, requests: Iterator[EnrolRequest], *, while_idle: Callable[[], None]) -> Iterator[Answer]:
        """One answer for each request; `while_idle` is called now and then while there is none to give.

        Raises what reading them raised, once those before are answered, and what `while_idle` raises.
        """
        threading.Thread(
            target=self._call.copy().run, args=(self._read, requests), name="enrol-stream", daemon=True
        ).start()
        try:
            while group := self._ready(while_idle):
                for answer in _enrolled(group):
                    yield answer
                    self._taken -= 1
        finally:
            self._close()
        if self._error is not None:
            raise self._error

    # The thread that reads

    def _read(self, requests: Iterator[EnrolRequest]) -> None:
        try:
            for request in requests:
                if not self._add(request):
                    return
            self._end(None)
        except BaseException as error:  # noqa: BLE001  (raised again by the thread that answers)
            self._end(error)

    def _add(self, request: EnrolRequest) -> bool:
        weight = request.ByteSize()
        with self._changed:
            self._changed.wait_for(lambda: self._is_ended or self._has_room(weight))
            if self._is_ended:
                return False
            looked = self._pool.submit(self._call.copy().run, self._look, request)
            self._waiting.append(_Waiting(request.request_id, weight, looked))
            self._weight += weight
            self._changed.notify_all()
        return True

    def _has_room(self, weight: int) -> bool:
        if not self._waiting:
            return True
        return len(self._waiting) < MAX_WAITING and self._weight + weight <= MAX_WAITING_BYTES

    def _end(self, error: BaseException | None) -> None:
        with self._changed:
            self._is_ended = True
            self._error = error
            self._changed.notify_all()

    # The thread that answers

    def _ready(self, while_idle: Callable[[], None]) -> list[_Waiting]:
        """The oldest request and those behind it, as far as they are ready; none at the end."""
        while not self._has_news():
            while_idle()
        with self._changed:
            if not self._waiting:
                return []
            oldest = self._waiting[0]
        while not wait([oldest.looked], IDLE_SECONDS).done:
            while_idle()
        with self._changed:
            group: list[_Waiting] = []
            while self._waiting and len(group) < MAX_GROUP and self._waiting[0].looked.done():
                group.append(self._waiting.popleft())
            self._taken = len(group)
            self._weight -= sum(each.weight for each in group)
            self._changed.notify_all()
        return group

    def _has_news(self) -> bool:
        """Waits a while for a request or the end."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_ended or bool(self._waiting), IDLE_SECONDS)

    def _close(self) -> None:
        with self._changed:
            self._is_ended = True
            for each in self._waiting:
                each.looked.cancel()
            self._changed.notify_all()


def _enrolled(group: Sequence[_Waiting]) -> Iterator[Answer]:
    """Answers in order; neighbours that go into the same gallery are enrolled together."""
    rest = deque(group)
    while rest:
        request = rest.popleft()
        error = request.looked.exception()
        if isinstance(error, Exception):
            yield Answer(request.request_id, error)
            continue
        together = [request]
        enroller = request.looked.result().enroller
        while rest and _goes_to(rest[0], enroller):
            together.append(rest.popleft())
        outcomes = enroller.commit_each([Submission(each.looked.result().prepared) for each in together])
        for each, outcome in zip(together, outcomes, strict=True):
            yield Answer(each.request_id, outcome)


def _goes_to(request: _Waiting, enroller: Enroller) -> bool:
    return request.looked.exception() is None and request.looked.result().enroller is enroller
