"""Writes the audit beside the calls: in groups, soon, and before the answer where that is promised.

The witness of the audit lies in another database. To note each group there would cost as much again as writing it, so that is
done a few times a second (docs/decisions/0605).
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

import structlog

from facedex.indexer.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from facedex.indexer.audit import AuditEvent

    # An entry on its way, and who is told when it is written, if anybody.
    OnItsWay = tuple[AuditEvent, threading.Event | None]

logger = structlog.get_logger("facedex.server")

# How long an entry that nobody waits for may be in memory alone.
INTERVAL_SECONDS = 0.25
CAPACITY = 10_000
# Entries of one transaction; others who write the database wait for it.
MOST_AT_ONCE = 1_000
# Longer than the database may be busy with somebody else's transaction.
PATIENCE_SECONDS = 60.0


class AuditUnavailable(Exception):
    """What is done cannot be written down, so nothing is done."""

    reason = "AUDIT_UNAVAILABLE"
    retry_after_seconds = 1.0

    def __init__(self) -> None:
        super().__init__(
            "the audit cannot be written, and without it nothing is answered; look at the server's log, try again"
        )


class AuditWriter:
    """Appends events in their order, each once.

    What is `note`d is on disk within a quarter of a second, or when the server has stopped in good order. What is
    `write`n is on disk when that returns; those who write at the same time share a transaction. While the database does
    not take entries they are kept, up to a bound; then `require` refuses new calls. `testify` is called once in an interval,
    and when the server stops.
    """

    def __init__(
        self,
        write: Callable[[Sequence[AuditEvent]], None],
        testify: Callable[[], None],
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        capacity: int = CAPACITY,
    ) -> None:
        self._append = write
        self._testify = testify
        self._told_at = -math.inf
        self._interval_seconds = interval_seconds
        self._capacity = capacity
        self._queue: list[OnItsWay] = []
        self._changed = threading.Condition()
        self._is_urgent = False
        self._is_failing = False
        self._is_silent = False
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Writes what is left."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def backlog(self) -> int:
        """Entries that are not on disk yet."""
        return len(self._queue)

    def require(self) -> None:
        """Raises AuditUnavailable where there is no room for what a call would write."""
        if len(self._queue) >= self._capacity:
            raise AuditUnavailable

    def note(self, event: AuditEvent) -> None:
        # One step for all threads, so no lock: every search comes by here.
        self._queue.append((event, None))
        if len(self._queue) >= MOST_AT_ONCE:
            self._hurry()

    def write(self, event: AuditEvent) -> None:
        """Returns when the entry is on disk. Raises AuditUnavailable where that takes too long."""
        written = threading.Event()
        self._queue.append((event, written))
        self._hurry()
        if not written.wait(PATIENCE_SECONDS):
            raise AuditUnavailable

    def _hurry(self) -> None:
        with self._changed:
            self._is_urgent = True
            self._changed.notify_all()

    def _run(self) -> None:
        while not (self._is_stopping and (not self._queue or self._is_failing)):
            with self._changed:
                self._changed.wait_for(lambda: self._is_urgent or self._is_stopping, self._interval_seconds)
                self._is_urgent = False
                group = self._queue[:MOST_AT_ONCE]
            if group:
                self._write_group(group)
            if time.monotonic() - self._told_at >= self._interval_seconds:
                self._tell()
        self._tell()

    def _tell(self) -> None:
        self._told_at = time.monotonic()
        try:
            self._testify()
        except Exception as error:  # noqa: BLE001  (the entries are written; the witness is told after the next interval)
            self._note_silence(_cause(error))
        else:
            self._note_silence("")

    def _write_group(self, group: list[OnItsWay]) -> None:
        try:
            self._append([event for event, _ in group])
        except Exception as error:  # noqa: BLE001  (whatever it is, the next attempt may go well, and until then nothing is lost)
            self._note_failure(_cause(error))
            time.sleep(self._interval_seconds)
            return
        self._note_failure("")
        del self._queue[: len(group)]
        if len(self._queue) >= MOST_AT_ONCE:
            self._hurry()
        for _, written in group:
            if written is not None:
                written.set()

    def _note_failure(self, cause: str) -> None:
        # Once when it begins and once when it ends, not with every attempt.
        if cause and not self._is_failing:
            logger.error("the audit cannot be written", cause=cause)
        if self._is_failing and not cause:
            logger.info("the audit is written again")
        self._is_failing = bool(cause)

    def _note_silence(self, cause: str) -> None:
        if cause and not self._is_silent:
            logger.error("the witness of the audit cannot be told", cause=cause)
        self._is_silent = bool(cause)


def _cause(error: Exception) -> str:
    return error.cause if isinstance(error, StoreUnavailable) else type(error).__name__
