"""A facedex server as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

STOP_SECONDS = 60.0
REST_SECONDS = 2.0
IDLE_SHARE = 0.05


class ServerDidNotStart(Exception):
    """The server ended without an address; the text holds what it wrote."""


class ServerProcess:
    """A server over a data folder, from construction until `stop`; ready when constructed.

    `started` is the moment before its process was made, on the clock of time.perf_counter.
    """

    def __init__(self, data: Path, *options: str) -> None:
        self._log = data.parent / f"{data.name}.log"
        command = (str(Path(sys.executable).with_name("facedex-server")), "serve", "--data", str(data))
        with self._log.open("a") as log:
            self.started = time.perf_counter()
            self._process = subprocess.Popen(  # noqa: S603  (facedex's own program)
                [*command, "--listen", "127.0.0.1:0", *options], stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.address = self._announced_address()

    def _announced_address(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line.startswith("listening on "):
            raise ServerDidNotStart(self._log.read_text()[-2_000:])
        return line.removeprefix("listening on ").strip()

    @property
    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def rest(self) -> None:
        """Waits until it does nothing any more: after loading, it merges its segments and writes a snapshot."""
        busy = self.processor_seconds
        while True:
            time.sleep(REST_SECONDS)
            before, busy = busy, self.processor_seconds
            if busy - before < IDLE_SHARE * REST_SECONDS:
                return

    @property
    def processor_seconds(self) -> float:
        """User and system time of the process so far, to the nanosecond (Linux)."""
        # What clock_getcpuclockid(3) makes of a process id; Python has it for threads only.
        return time.clock_gettime((~self._process.pid << 3) | 2)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
