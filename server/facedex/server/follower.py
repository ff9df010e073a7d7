from __future__ import annotations

import threading
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from facedex.indexer.errors import EngineUnavailable, StoreUnavailable
from facedex.server.interceptor import log_unexpected

if TYPE_CHECKING:
    from collections.abc import Callable

    from facedex.indexer.galleries import Galleries

logger = structlog.get_logger("facedex.server")
REQUEST_MEMORY = timedelta(days=1)
CLEANING_INTERVAL_SECONDS = 60.0
# Replaying so many changes at start takes less than a second.
CHANGES_PER_SNAPSHOT = 20_000


class Follower:
    """Follows the change log in the background, for changes that other processes make.

    The log is the only thing that processes over one database share: what `facedex-index` or another server enrols is found
    at once on PostgreSQL, which passes the word on, and within one interval in any case.
    """

    def __init__(self, galleries: Galleries, *, interval_seconds: float) -> None:
        self._galleries = galleries
        # A quarter of the horizon: what is due at half of it is done in time.
        horizon_seconds = galleries.store.erasures.horizon.total_seconds()
        self._cleaning_interval_seconds = min(CLEANING_INTERVAL_SECONDS, horizon_seconds / 4)
        self._interval_seconds = interval_seconds
        self._listener = galleries.store.announcements.listener()
        self._trouble = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        cleaning_at = monotonic()
        while not self._stopping.is_set():
            self._await_word()
            self._attempt(self._galleries.follow)
            if monotonic() >= cleaning_at:
                self._attempt(self._clean)
                cleaning_at = monotonic() + self._cleaning_interval_seconds
        self._listener.close()

    def _await_word(self) -> None:
        try:
            self._listener.wait(self._interval_seconds, self._stopping)
        except StoreUnavailable as error:
            self._note_trouble(error.cause)
            self._stopping.wait(self._interval_seconds)

    def _attempt(self, work: Callable[[], object]) -> None:
        # Whatever goes wrong now, the log is followed again after the next interval.
        try:
            work()
        except (StoreUnavailable, EngineUnavailable) as error:
            self._note_trouble(error.cause)
        except Exception as error:  # noqa: BLE001
            log_unexpected("follower", error)
        else:
            self._note_trouble("")

    def _note_trouble(self, cause: str) -> None:
        # Once when it begins and once when it ends, not with every attempt.
        if cause and not self._trouble:
            logger.warning("the change log cannot be followed", cause=cause)
        if self._trouble and not cause:
            logger.info("the change log is followed again")
        self._trouble = cause

    def _clean(self) -> None:
        self._galleries.erase_expired()
        store = self._galleries.store
        store.forget_requests(before=store.now() - REQUEST_MEMORY)
        # Last, because these need room on the disk.
        self._galleries.save_snapshots(least_changes=CHANGES_PER_SNAPSHOT)
        self._galleries.forget_erased()
