"""Servers that start in a fifth of a second: forks of one process that has everything imported.

Nine tenths of a server's start are Python's imports. What is forked is the composition root of `facedex-server`, before
anything runs; each fork is a process of its own, which can be killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tests.torture.hasty_store import HastyStore
from tests.waiting import wait_until

import facedex.server.app
from facedex.indexer.failpoints import VARIABLE
from facedex.server.log import configure_logging
from facedex.server.settings import Settings

ROOT = Path(__file__).parent.parent.parent
FOLLOW_SECONDS = 0.05
DIE_WITH_PARENT = 1  # linux/prctl.h: PR_SET_PDEATHSIG
CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h


@dataclass(frozen=True, slots=True)
class Order:
    """Which server is to be started."""

    data: str
    database: str
    failpoint: str = ""
    store: str = "honest"
    """`hasty` starts a server that acknowledges before it commits: the checkers' own test."""
    largest_file_bytes: int = 0
    """No file may grow beyond this: the disk is full then; 0: no limit."""
    obeys_permissions: bool = False
    """Also root's server cannot write where permissions say so."""


@dataclass(frozen=True, slots=True)
class Born:
    """A server; without an address it died before it listened."""

    pid: int
    address: str


class Nursery:
    """The process that is forked, one server at a time."""

    def __init__(self, log: Path) -> None:
        self._log_path = log
        self._log = log.open("ab")
        command = [sys.executable, "-m", "tests.torture.nursery"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._alive: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._alive is not None:
            self.kill()
        self._process.communicate(timeout=20)
        self._log.close()

    def log(self) -> str:
        return self._log_path.read_text()

    def start(self, order: Order) -> Born:
        """A new server; the one before must be dead."""
        born = Born(**self._asked({"start": asdict(order)}))
        self._alive = born.pid
        if not born.address:
            wait_until(self.is_dead)  # its end of the pipe closes a moment before
        return born

    def send(self, order: Order) -> int:
        """Like `start`, for a server that is to die while it starts: its process number, at once."""
        pid = int(self._asked({"send": asdict(order)})["pid"])
        self._alive = pid
        return pid

    def kill(self) -> int:
        """`kill -9`, and how it ended."""
        if self._alive is not None:
            os.kill(self._alive, signal.SIGKILL)  # its number is not given away before `wait`
        return self.wait()

    def kill_if_alive(self) -> bool:
        """Whether it was still alive; it is dead and waited for in any case."""
        is_alive = not self.is_dead()
        self.kill()
        return is_alive

    def wait(self) -> int:
        """Waits until it is dead, and tells how it ended: -9 for a kill."""
        ended = int(self._asked({"wait": self._alive})["status"])
        self._alive = None
        return ended

    def is_dead(self) -> bool:
        """Whether it died by itself; it is still to be waited for."""
        stat = Path(f"/proc/{self._alive}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "Z"

    def _asked(self, question: dict[str, Any]) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("both are pipes")
        print(json.dumps(question), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def main() -> None:
    configure_logging()
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)  # noqa: T201


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    if "wait" in question:
        _, status = os.waitpid(question["wait"], 0)
        return {"status": os.waitstatus_to_exitcode(status)}
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _live(Order(**(question.get("start") or question["send"])), writing)
    os.close(writing)
    with os.fdopen(reading) as announced:
        return {"pid": pid, "address": announced.readline().strip() if "start" in question else ""}


def _live(order: Order, announcements: int) -> None:
    code = 1
    try:
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)  # no server outlives a torture that is broken off
        os.environ[VARIABLE] = order.failpoint
        _hinder(order)
        if order.store == "hasty":
            setattr(facedex.server.app, "Store", HastyStore)  # noqa: B010  (a fault, planted in this process alone)
        facedex.server.app.serve(_settings(order), announce=lambda address: _tell(announcements, address))
        code = 0
    except BaseException:  # noqa: BLE001  (a fork never goes back to where its parent was)
        traceback.print_exc()
    os._exit(code)


def _hinder(order: Order) -> None:
    if order.largest_file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order.largest_file_bytes, order.largest_file_bytes))
    if order.obeys_permissions and os.geteuid() == 0:
        header, nothing = struct.pack("<Ii", CAPABILITY_VERSION_3, 0), bytes(24)
        if ctypes.CDLL(None).capset(header, nothing) != 0:
            raise OSError("the capabilities of root cannot be given up here")


def _tell(announcements: int, address: str) -> None:
    try:
        os.write(announcements, f"{address}\n".encode())
    except BrokenPipeError:
        return  # nobody waits for a server that is to die while it starts


def _settings(order: Order) -> Settings:
    return Settings(
        data=Path(order.data),
        listen="127.0.0.1:0",
        database=order.database,
        workers=1,
        follow_interval_seconds=FOLLOW_SECONDS,
        check_every=1,
    )


if __name__ == "__main__":
    main()
