"""Memory that was freed goes back to the system."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any


def return_freed_memory() -> None:
    """Has the C library give back what it keeps for later.

    glibc keeps arrays of up to 32 MB that were freed once: after merging, more than the index itself takes.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _trim() -> Any:
    """None where the C library has no such function."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
