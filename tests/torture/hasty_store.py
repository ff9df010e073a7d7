"""A store that breaks its word, so that the checkers have something to find."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from facedex.indexer.failpoints import Step
from facedex.indexer.store.engine import WRITE_OPTION
from facedex.indexer.store.store import Store

COMMIT_SECONDS = 0.4


class HastyStore(Store):
    """Acknowledges before it commits: everything happens in one transaction that is committed now and then."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._turn = threading.RLock()
        self._only: Connection | None = None
        threading.Thread(target=self._commit_now_and_then, daemon=True).start()

    @contextmanager
    def _reading(self) -> Generator[Connection]:
        with self._turn:
            if self._only is None:
                self._only = self._engine.connect().execution_options(**{WRITE_OPTION: True})
            yield self._only

    @contextmanager
    def _writing(self) -> Generator[Connection]:
        with self._reading() as connection, connection.begin_nested():
            yield connection
            self.reached(Step.BEFORE_COMMIT)
        self.reached(Step.AFTER_COMMIT)

    def _commit_now_and_then(self) -> None:
        while True:
            time.sleep(COMMIT_SECONDS)
            with self._turn:
                if self._only is not None:
                    self._only.commit()
