"""The steps of a call that take its time, for whoever wants to see where it went."""

from __future__ import annotations

import enum
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext


class Work(enum.Enum):
    """What a step does. A trace tells this and how long it took: never whose face, which gallery or which rows."""

    DECODE = "decode"
    DETECT = "detect"
    EMBED = "embed"
    SEARCH = "search"
    READ = "sql read"
    """A transaction that only reads."""
    WRITE = "sql write"
    """One that changes something: waiting for the lock and for the disk included."""


Traced = Callable[[Work], AbstractContextManager[object]]
"""Around each step while it is done, on the thread that does it."""

UNTRACED = nullcontext()


def untraced(_work: Work) -> AbstractContextManager[object]:
    """What everybody is given where nobody looks."""
    return UNTRACED
