"""Proof in production: some live searches are done again exactly, and what the fast way missed is counted."""

from __future__ import annotations

import itertools
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from facedex.indexer.search.template_index import Hit

logger = logging.getLogger(__name__)


class Shadow:
    """Checks one search in `every`, in the background and one at a time; 0 checks none.

    `checked` searches were done again exactly; `missed` identities were on an exact list and not on the one given out.
    """

    def __init__(self, every: int) -> None:
        self.checked = 0
        self.missed = 0
        self._every = every
        self._numbers = itertools.count(1)
        self._busy = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")

    def consider(self, given: tuple[Hit, ...], exact: Callable[[], tuple[Hit, ...]], *, limit: int) -> None:
        """Counts a search, and has it checked if it is its turn and no other check is under way."""
        if self._every and next(self._numbers) % self._every == 0 and self._busy.acquire(blocking=False):
            self._thread.submit(self._check, given, exact, limit)

    def settle(self) -> None:
        """Waits for the check that is under way."""
        with self._busy:
            pass

    def _check(self, given: tuple[Hit, ...], exact: Callable[[], tuple[Hit, ...]], limit: int) -> None:
        try:
            missed = missed_identities(given, exact(), limit=limit)
        except Exception:
            logger.exception("a search could not be checked")
        else:
            self.checked += 1
            self.missed += missed
            if missed:
                logger.warning("the fast search missed %d identities of an exact one", missed)
        finally:
            self._busy.release()


def missed_identities(given: tuple[Hit, ...], exact: tuple[Hit, ...], *, limit: int) -> int:
    """How many identities of the exact list should have been on the list that was given out.

    Where somebody was erased in between, the next one moves up at the end of the exact list: that one was not missed.
    """
    last = given[-1].score if len(given) == limit else float("-inf")
    known = {hit.identity_id for hit in given}
    return sum(hit.identity_id not in known and hit.score > last for hit in exact)
