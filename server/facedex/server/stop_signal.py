from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


class StopSignal:
    """SIGTERM and Ctrl-C as something to wait for.

    A handler that sets an event is not enough: a signal that another thread receives, or that arrives just before the main
    thread begins to wait, does not wake it (seen once in a few hundred stops). The byte that Python writes to the wake-up
    descriptor does.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _noted)

    def wait(self) -> None:
        """Returns once one of the signals has arrived, also before this call."""
        os.read(self._read, 1)


def _noted(_number: int, _frame: FrameType | None) -> None:
    # The byte in the pipe says it all; without a handler the process would end at once.
    return
