from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from facedex.indexer.errors import StoreUnavailable

if TYPE_CHECKING:
    from facedex.indexer.galleries import Galleries

logger = structlog.get_logger("facedex.server")
REQUEST_MEMORY = timedelta(days=1)
CLEANING_INTERVAL_SECONDS = 3600.0


class Follower:
    """Follows the change log in the background, for changes that other processes make.

    The log is the only thing that processes over one database share: what `facedex-index` enrols beside a running server
    is found within one interval.
    """

    def __init__(self, galleries: Galleries, *, interval_seconds: float) -> None:
        self._galleries = galleries
        self._interval_seconds = interval_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        until_cleaning = 0.0
        while not self._stopping.wait(self._interval_seconds):
            until_cleaning -= self._interval_seconds
            try:
                self._galleries.follow()
                if until_cleaning <= 0:
                    self._forget_requests()
                    until_cleaning = CLEANING_INTERVAL_SECONDS
            except StoreUnavailable as error:
                logger.warning("cannot follow the change log", cause=error.cause)

    def _forget_requests(self) -> None:
        store = self._galleries.store
        store.forget_requests(before=store.now() - REQUEST_MEMORY)
