"""Rebuilds in the background, one after the other."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from facedex.indexer.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

# How long a database that is away is waited for; then the old index goes on, until somebody asks again.
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
LOOK_SECONDS = 0.2


class Rebuilds:
    """Does what was asked for in a thread of its own, which lives as long as there is something to do.

    Whoever asks while a rebuild is under way gets another one behind it, since that one may have read the store before.
    """

    def __init__(self, rebuild: Callable[[], None]) -> None:
        self._rebuild = rebuild
        self._asked = 0
        self._done = 0
        self._error: Exception | None = None
        self._is_running = False
        self._changed = threading.Condition()

    def ask(self) -> None:
        """Has it done soon; returns at once."""
        with self._changed:
            self._asked += 1
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="rebuild", daemon=True).start()

    def settle(self, *, checkpoint: Callable[[], None] = lambda: None) -> None:
        """Returns when everything that was asked for until now is done, at once where that is so already.

        Raises what `checkpoint` raises, and what a rebuild failed with that was waited for.
        """
        with self._changed:
            asked = self._asked
            if self._done < asked:
                self._wait_for(asked, checkpoint)
                self._raise_failure()

    def finish(self) -> None:
        """Like `settle`, and raises what the last rebuild failed with also where that is over."""
        self.settle()
        self._raise_failure()

    def _wait_for(self, asked: int, checkpoint: Callable[[], None]) -> None:
        while self._done < asked:
            self._changed.wait(LOOK_SECONDS)
            checkpoint()

    def _raise_failure(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (asked := self._next()) is not None:
            error = self._attempt()
            with self._changed:
                self._done, self._error = asked, error
                self._changed.notify_all()

    def _next(self) -> int | None:
        with self._changed:
            self._is_running = self._done < self._asked
            return self._asked if self._is_running else None

    def _attempt(self) -> Exception | None:
        try:
            self._patiently()
        except Exception as error:
            logger.exception("an index could not be built anew; the old one goes on answering")
            return error
        return None

    def _patiently(self) -> None:
        for seconds in RETRY_SECONDS:
            try:
                self._rebuild()
            except StoreUnavailable:
                time.sleep(seconds)
            else:
                return
        self._rebuild()
