"""Which requests of a stream wait for their answers. Shared by both clients; sends nothing itself."""

from collections import deque
from typing import Generic, TypeVar

from facedex.client.calls import Refusal, StreamCall
from facedex.client.errors import FacedexError, Failure, InvalidRequestError

Request = TypeVar("Request")
Answer = TypeVar("Answer")

WINDOW = 16
"""Most unanswered requests of a stream.

Enough to keep a server of many cores busy, few enough that 16 photographs fit in memory.
"""


class Unanswered(Generic[Request, Answer]):
    """The requests without an answer, oldest first: at most a window of them.

    A request that cannot be sent, for instance because it is too large, keeps its place with its refusal, so that the
    answers come in the order of the requests.
    """

    def __init__(self, call: StreamCall[Request, Answer], *, window: int) -> None:
        if window < 1:
            raise ValueError(f"a stream needs a window of at least one request; got {window}")
        self._call = call
        self._window = window
        self._oldest_first: deque[Refusal | None] = deque()

    def __len__(self) -> int:
        return len(self._oldest_first)

    @property
    def is_full(self) -> bool:
        return len(self) >= self._window

    @property
    def oldest_was_not_sent(self) -> bool:
        return bool(self._oldest_first) and self._oldest_first[0] is not None

    def add(self, request: Request) -> bytes | None:
        """The payload to send for the request; None where there is nothing to send."""
        try:
            payload = self._call.write(request)
        except FacedexError as error:
            self._oldest_first.append(Refusal(self._call.request_id(request), error))
            return None
        except (ValueError, OverflowError) as problem:
            told = f"the request holds what cannot be sent ({problem})"
            failure = InvalidRequestError(Failure(told, code="INVALID_ARGUMENT", reason="REQUEST_UNSENDABLE"))
            self._oldest_first.append(Refusal(self._call.request_id(request), failure))
            return None
        self._oldest_first.append(None)
        return payload

    def refuse_oldest(self) -> Refusal | None:
        """The refusal of the oldest request where it was not sent; otherwise None, and its answer is to be received."""
        return self._oldest_first.popleft()
