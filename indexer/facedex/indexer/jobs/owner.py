"""The process that works on a job."""

from __future__ import annotations

import os
import secrets
import socket


def this_process() -> str:
    """Machine, number and a token: another process never has the same."""
    return f"{_machine()}:{os.getpid()}:{secrets.token_hex(4)}"


def place_of(owner: str) -> str:
    """Machine and number, for people."""
    return owner.rpartition(":")[0]


def is_gone(owner: str) -> bool:
    """Whether the process that a job names was on this machine and is no more."""
    machine, _, rest = owner.partition(":")
    number = rest.partition(":")[0]
    if machine != _machine() or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _machine() -> str:
    return socket.gethostname()[:32]
