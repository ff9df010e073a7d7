"""How often a key may call, by a clock that the test turns."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tests.waiting import wait_until

from facedex.indexer.api_key import ApiKey, KeyTerms, KeyText, Role
from facedex.indexer.errors import InvalidArgument, StoreUnavailable
from facedex.indexer.store.store import Store
from facedex.server.access import KeyInvalid
from facedex.server.key_ring import KeyRing
from facedex.server.meter import Meter, QuotaSpent, RateExceeded

WAIT_SECONDS = 20
TERMS = KeyTerms("a test", frozenset({Role.SEARCH}))
START = datetime(2026, 3, 1, 23, 59, 0, tzinfo=UTC)


class Times:
    """A clock and the time of day, which go together."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def clock(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)


class Noted:
    """Adds up what servers note, as the database does."""

    def __init__(self, times: Times) -> None:
        self._times = times
        self.sums: dict[tuple[str, str], int] = {}

    def __call__(self, key_id: str, calls: int) -> int:
        place = (key_id, f"{self._times.now():%d}")
        self.sums[place] = self.sums.get(place, 0) + calls
        return self.sums[place]


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def noted(times: Times) -> Noted:
    return Noted(times)


@pytest.fixture
def meter(times: Times, noted: Noted) -> Meter:
    return Meter(noted, now=times.now, clock=times.clock)


def key(*, calls_per_second: float | None = None, calls_per_day: int | None = None) -> ApiKey:
    text = KeyText.new()
    terms = replace(TERMS, calls_per_second=calls_per_second, calls_per_day=calls_per_day)
    return ApiKey(text.key_id, terms, START, None, text.digest)


def allowed(meter: Meter, of: ApiKey, *, tries: int) -> int:
    """How many of so many calls at once are let through."""
    count = 0
    for _ in range(tries):
        try:
            meter.charge(of)
        except (RateExceeded, QuotaSpent):
            continue
        count += 1
    return count


def test_a_key_without_limits_is_not_counted(meter: Meter, noted: Noted) -> None:
    assert allowed(meter, key(), tries=1_000) == 1_000
    assert noted.sums == {}


def test_a_burst_is_as_long_as_a_second_and_then_it_is_the_rate(meter: Meter, times: Times) -> None:
    limited = key(calls_per_second=8)
    assert allowed(meter, limited, tries=100) == 8
    for _ in range(20):
        times.seconds += 0.25
        assert allowed(meter, limited, tries=100) == 2


def test_a_rate_below_one_lets_one_call_through_at_first(meter: Meter, times: Times) -> None:
    limited = key(calls_per_second=0.25)
    assert allowed(meter, limited, tries=5) == 1
    with pytest.raises(RateExceeded) as refused:
        meter.charge(limited)
    assert refused.value.retry_after_seconds == pytest.approx(4)
    times.seconds += 4
    meter.charge(limited)


def test_a_quota_ends_at_midnight(meter: Meter, times: Times) -> None:
    limited = key(calls_per_day=5)
    assert allowed(meter, limited, tries=20) == 5
    with pytest.raises(QuotaSpent) as refused:
        meter.charge(limited)
    assert refused.value.retry_after_seconds == pytest.approx(60)
    times.seconds += 60
    assert allowed(meter, limited, tries=20) == 5


def test_servers_that_share_a_quota_exceed_it_by_one_second_at_most(times: Times, noted: Noted) -> None:
    servers = [Meter(noted, now=times.now, clock=times.clock) for _ in range(2)]
    limited, count, calls_in_one_second = key(calls_per_day=10), 0, 2 * 4
    for _ in range(40):
        count += sum(allowed(server, limited, tries=1) for server in servers)
        times.seconds += 0.25
    assert 10 <= count <= 10 + calls_in_one_second


def test_nobody_waits_while_another_call_is_noting_them_all(times: Times, noted: Noted) -> None:
    def slowly(key_id: str, calls: int) -> int:
        if calls:
            charged.append(key_id)
            meter.charge(bounded)  # another call, in the middle of it
        return noted(key_id, calls)

    charged: list[str] = []
    meter = Meter(slowly, now=times.now, clock=times.clock)
    bounded = key(calls_per_day=4)
    meter.charge(bounded)
    times.seconds += 1
    meter.charge(bounded)
    assert len(charged) == 1
    meter.charge(bounded)
    with pytest.raises(QuotaSpent):
        meter.charge(bounded)


def test_what_was_counted_is_noted_when_the_server_ends(meter: Meter, noted: Noted) -> None:
    assert allowed(meter, key(calls_per_day=5), tries=3) == 3
    meter.flush()
    assert list(noted.sums.values()) == [3]


def test_calls_of_servers_add_up_in_the_database(database_url: str) -> None:
    store = Store.open(database_url)
    key_id = store.api_keys.create(replace(TERMS, calls_per_day=9, expires_at=START)).key.key_id
    assert [store.api_keys.add_calls(key_id, calls) for calls in (0, 3, 4)] == [0, 3, 7]
    assert store.api_keys.calls_today() == {key_id: 7}
    (kept,) = store.api_keys.all()
    assert (kept.key_id, kept.terms.calls_per_day, kept.terms.expires_at) == (key_id, 9, START)
    store.close()


@pytest.mark.parametrize("wrong", [{"roles": frozenset()}, {"galleries": frozenset()}, {"calls_per_day": 0}])
def test_terms_that_allow_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        replace(TERMS, **wrong)  # type: ignore[arg-type]


def test_wrong_keys_do_not_make_a_server_read_all_the_time(times: Times) -> None:
    reads: list[float] = []

    def read() -> list[ApiKey]:
        reads.append(times.seconds)
        return [key()]

    ring = KeyRing(read, now=times.now, clock=times.clock)
    for _ in range(1_000):
        times.seconds += 0.001
        with pytest.raises(KeyInvalid):
            ring.caller(f"Bearer {KeyText.new()}")
    assert len(reads) < 120


def test_whoever_waits_while_the_keys_are_read_shares_the_failure(times: Times) -> None:
    is_reading, may_fail, reads = threading.Event(), threading.Event(), []

    def read() -> list[ApiKey]:
        reads.append(times.seconds)
        is_reading.set()
        assert may_fail.wait(WAIT_SECONDS)
        raise StoreUnavailable("away")

    looks: list[float] = []

    def clock() -> float:
        looks.append(times.seconds)
        return times.seconds

    ring = KeyRing(read, now=times.now, clock=clock)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(ring.caller, None)
        assert is_reading.wait(WAIT_SECONDS)
        others = [threads.submit(ring.caller, None) for _ in range(3)]
        wait_until(lambda: len(looks) == 5)  # twice by the first, and by each of those who wait now
        may_fail.set()
        for each in (first, *others):
            with pytest.raises(StoreUnavailable):
                each.result(WAIT_SECONDS)
    assert len(reads) == 1
    times.seconds += 0.001
    with pytest.raises(StoreUnavailable):
        ring.caller(None)
    assert len(reads) == 2
