"""How often each key calls, and when that is too often."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date, datetime

    from facedex.indexer.api_key import ApiKey

# How far a server's count may run ahead of what all servers together have noted.
NOTED_EVERY_SECONDS = 1.0


class TooOften(Exception):
    """A key has called more often than it may."""

    reason: ClassVar[str]

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RateExceeded(TooOften):
    """More calls a second than the key may make."""

    reason = "RATE_EXCEEDED"

    def __init__(self, key: ApiKey, *, retry_after_seconds: float) -> None:
        message = f"API key {key.key_id} may call {key.terms.calls_per_second:g} times a second; wait, or ask for more"
        super().__init__(message, retry_after_seconds=retry_after_seconds)


class QuotaSpent(TooOften):
    """More calls a day than the key may make."""

    reason = "QUOTA_SPENT"

    def __init__(self, key: ApiKey, *, retry_after_seconds: float) -> None:
        message = (
            f"API key {key.key_id} has made its {key.terms.calls_per_day} calls of today; "
            "it may go on at 00:00 UTC, or ask for more"
        )
        super().__init__(message, retry_after_seconds=retry_after_seconds)


class NotesCalls(Protocol):
    """Adds to what a key has called today, and returns the sum of all servers."""

    def __call__(self, key_id: str, calls: int, /) -> int: ...


@dataclass(slots=True)
class _Bucket:
    """Tokens of one key: one a call, and never more than for one second, so that a burst is as long as that."""

    tokens: float
    filled_at: float


@dataclass(slots=True)
class _Day:
    """Calls of one key on one day: what all servers have noted, what this one is noting, and what it has not noted yet."""

    day: date
    noted: int
    noted_at: float
    in_flight: int = 0
    unnoted: int = 0

    @property
    def calls(self) -> int:
        return self.noted + self.in_flight + self.unnoted


@dataclass(slots=True)
class _Counts:
    bucket: _Bucket | None = None
    day: _Day | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Meter:
    """Counts the calls of keys that have a limit.

    The rate is counted by each server for itself, the quota of a day by all of them together: each notes its count in the
    database every second, so a quota may be exceeded by what the servers answer in one second.
    """

    def __init__(
        self, note: NotesCalls, *, now: Callable[[], datetime], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._note = note
        self._now = now
        self._clock = clock
        self._counts: dict[str, _Counts] = {}
        self._adding = threading.Lock()

    def charge(self, key: ApiKey) -> None:
        """Counts one call. Raises RateExceeded, QuotaSpent, and then counts nothing."""
        terms = key.terms
        if terms.calls_per_second is None and terms.calls_per_day is None:
            return
        counts = self._counts_of(key.key_id)
        if terms.calls_per_day is not None:
            self._note_when_due(counts, key)
        with counts.lock:
            if terms.calls_per_second is not None:
                self._require_token(counts, key, rate=terms.calls_per_second)
            if terms.calls_per_day is not None:
                self._count_day(counts, key, quota=terms.calls_per_day)
            if counts.bucket is not None:
                counts.bucket.tokens -= 1

    def flush(self) -> None:
        """Notes what is not noted yet, before the server ends."""
        for key_id, counts in list(self._counts.items()):
            with counts.lock:
                if counts.day is not None and counts.day.unnoted:
                    counts.day.noted, counts.day.unnoted = self._note(key_id, counts.day.unnoted), 0

    def _counts_of(self, key_id: str) -> _Counts:
        with self._adding:
            return self._counts.setdefault(key_id, _Counts())

    def _require_token(self, counts: _Counts, key: ApiKey, *, rate: float) -> None:
        now, most = self._clock(), max(1.0, rate)
        bucket = counts.bucket
        if bucket is None:
            bucket = counts.bucket = _Bucket(most, now)
        bucket.tokens = min(most, bucket.tokens + (now - bucket.filled_at) * rate)
        bucket.filled_at = now
        if bucket.tokens < 1:
            raise RateExceeded(key, retry_after_seconds=(1 - bucket.tokens) / rate)

    def _count_day(self, counts: _Counts, key: ApiKey, *, quota: int) -> None:
        today = self._now().date()
        day = counts.day
        if day is None or day.day != today:
            day = counts.day = _Day(today, self._note(key.key_id, 0), self._clock())
        if day.calls >= quota:
            raise QuotaSpent(key, retry_after_seconds=self._seconds_of_today())
        day.unnoted += 1

    def _note_when_due(self, counts: _Counts, key: ApiKey) -> None:
        """One caller writes into the database, and the others do not wait for it."""
        with counts.lock:
            day = counts.day
            if day is None or day.in_flight or self._clock() - day.noted_at < NOTED_EVERY_SECONDS:
                return
            if day.day != self._now().date():
                return
            day.in_flight, day.unnoted, day.noted_at = day.unnoted, 0, self._clock()
        noted = None
        try:
            noted = self._note(key.key_id, day.in_flight)
        finally:
            with counts.lock:
                if noted is None:
                    day.unnoted += day.in_flight
                else:
                    day.noted = noted
                day.in_flight = 0

    def _seconds_of_today(self) -> float:
        now = self._now()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        return (midnight - now).total_seconds()
