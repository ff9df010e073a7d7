from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator

import pytest

from facedex.server.patience import LAST_WORDS_SECONDS, Patience


class Call:
    """Stands in for a call's context, of which only this is used."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()

    def cancel(self) -> bool:
        self._cancelled.set()
        return True

    def is_cancelled(self, *, within_seconds: float) -> bool:
        return self._cancelled.wait(within_seconds)


@pytest.fixture
def patience() -> Iterator[Patience]:
    patience = Patience()
    patience.start()
    yield patience
    patience.stop()


def test_a_call_whose_message_does_not_come_is_ended(patience: Patience) -> None:
    call = Call()
    with patience.waiting(call, seconds=0.1):  # type: ignore[arg-type]
        assert call.is_cancelled(within_seconds=5)


def test_a_call_that_works_is_never_ended(patience: Patience) -> None:
    call = Call()
    with patience.waiting(call, seconds=0.01):  # type: ignore[arg-type]
        pass
    patience.lose()
    assert not call.is_cancelled(within_seconds=1)


def test_a_stream_may_be_idle_until_the_server_stops(patience: Patience) -> None:
    stream = Call()
    with patience.waiting(stream, seconds=math.inf):  # type: ignore[arg-type]
        assert not stream.is_cancelled(within_seconds=0.6)
        patience.lose()
        assert stream.is_cancelled(within_seconds=5)


def test_a_stream_with_work_under_way_is_waited_for_only_once_that_is_done(patience: Patience) -> None:
    stream = Call()
    working = threading.Event()
    working.set()
    patience.lose()
    with (
        patience.while_busy(stream, working.is_set),  # type: ignore[arg-type]
        patience.waiting(stream, seconds=math.inf),  # type: ignore[arg-type]
    ):
        assert not stream.is_cancelled(within_seconds=1.5)
        working.clear()
        assert stream.is_cancelled(within_seconds=5)


# Waiting for streams


def seconds_of_waiting(patience: Patience, at_most: float) -> float:
    started = time.monotonic()
    patience.wait_for_streams(at_most)
    return time.monotonic() - started


def test_where_no_stream_is_under_way_none_is_waited_for(patience: Patience) -> None:
    with patience.streaming():
        pass
    assert seconds_of_waiting(patience, 30) < LAST_WORDS_SECONDS / 2


def test_streams_are_waited_for_and_their_callers_have_time_to_read_why_they_ended(patience: Patience) -> None:
    under_way = threading.Event()
    ended = threading.Event()

    def stream() -> None:
        with patience.streaming():
            under_way.set()
            time.sleep(1)
            ended.set()

    other = threading.Thread(target=stream)
    other.start()
    under_way.wait()
    assert LAST_WORDS_SECONDS <= seconds_of_waiting(patience, 30) < 10
    assert ended.is_set()
    other.join()


def test_a_stream_that_does_not_end_is_waited_for_no_longer_than_asked(patience: Patience) -> None:
    with patience.streaming():
        assert 0.2 <= seconds_of_waiting(patience, 0.2) < LAST_WORDS_SECONDS
