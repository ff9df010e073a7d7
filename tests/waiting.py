from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def wait_until(holds: Callable[[], bool], *, within_seconds: float = 15.0) -> None:
    """Waits for something that another thread or process is about to do."""
    deadline = time.monotonic() + within_seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not happen within {within_seconds} s")
        time.sleep(0.02)
