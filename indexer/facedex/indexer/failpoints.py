"""Named steps of the write path, at which a crash test lets the process die (docs/decisions/0301-fail-points.md)."""

from __future__ import annotations

import itertools
import logging
import os
import signal
from collections.abc import Callable, Mapping
from enum import Enum

from facedex.indexer.errors import IndexerError

logger = logging.getLogger(__name__)

VARIABLE = "FACEDEX_FAILPOINT"


class Step(Enum):
    """A moment of the write path. The value is its name in the environment."""

    BEFORE_COMMIT = "before-commit"
    """Every row is written, and the transaction is still open."""
    AFTER_COMMIT = "after-commit"
    """The change is on disk, and no index has it."""
    AFTER_APPLY = "after-apply"
    """The index has it, and the caller does not know."""
    BEFORE_REPLY = "before-reply"
    """The answer is made, and not sent."""
    BEFORE_SEAL_SWAP = "before-seal-swap"
    """A new segment is made, and nobody searches it."""
    AFTER_SEAL_SWAP = "after-seal-swap"
    """It has taken the place of what it was made of."""
    BEFORE_REBUILD_SWAP = "before-rebuild-swap"
    """A new index is built from the store, and the old one answers."""
    AFTER_REBUILD_SWAP = "after-rebuild-swap"
    """The new one answers."""
    SNAPSHOT_BEGUN = "snapshot-begun"
    """A part of a snapshot is written under a temporary name."""
    SNAPSHOT_WRITTEN = "snapshot-written"
    """All of it is on disk, and the old snapshot still has the name."""
    SNAPSHOT_RENAMED = "snapshot-renamed"
    """The new one has the name, and the folder may not be on disk."""
    BEFORE_JOURNAL = "before-journal"
    """The rows of somebody erased are gone, and only the database knows it."""
    BEFORE_RECEIPT = "before-receipt"
    """The erasure journal knows it too, and there is no receipt."""
    AFTER_VACUUM = "after-vacuum"
    """The database was written anew without copies of the erased, and its log still holds them."""


Reached = Callable[[Step], None]
"""What the write path tells where it is."""


class FailPointInvalid(IndexerError):
    """The environment names a fail-point that there is not."""

    def __init__(self, text: str) -> None:
        steps = ", ".join(each.value for each in Step)
        super().__init__(f"{VARIABLE}={text} is no fail-point: write STEP:N, a step ({steps}) and a number from 1 on")


class FailPoint:
    """Kills its own process when one step is reached for the `number`-th time: no chance to put anything in order."""

    def __init__(self, step: Step, *, number: int = 1) -> None:
        self._step = step
        self._number = number
        # Counted without a lock, from any thread: `next` on it is one operation of the interpreter.
        self._times = itertools.count(1)

    def __call__(self, step: Step) -> None:
        if step is self._step and next(self._times) == self._number:
            os.kill(os.getpid(), signal.SIGKILL)


def nothing_fails(_step: Step) -> None:
    """What everybody tells whose process is not to be killed."""


def fail_point(environment: Mapping[str, str]) -> Reached:
    """The fail-point that the environment names as STEP:N, for instance `before-commit:3`.

    Raises:
        FailPointInvalid: it names none that there is.

    """
    text = environment.get(VARIABLE, "")
    if not text:
        return nothing_fails
    name, _, number = text.partition(":")
    if name not in {each.value for each in Step} or not number.isdecimal() or int(number) < 1:
        raise FailPointInvalid(text)
    logger.warning("this process will be killed: %s=%s", VARIABLE, text)
    return FailPoint(Step(name), number=int(number))
