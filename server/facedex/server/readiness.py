from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from facedex.server.admission import HEALTH

if TYPE_CHECKING:
    from collections.abc import Callable

# What a server that is still loading answers: how far it is, and what it offers.
ANSWERED_ALWAYS = (HEALTH, "/facedex.v1.OperationsService/GetServerInfo", "/grpc.reflection.")


class Loading(Exception):
    """The server has not loaded every gallery yet."""

    reason = "LOADING"
    retry_after_seconds = 1.0

    def __init__(self, share: float) -> None:
        super().__init__(f"the server is loading its galleries ({share:.0%} done); try again in a moment")


class Readiness:
    """Whether the server answers, and how far it is until then. An answer from half a gallery would be a wrong one."""

    def __init__(self, loaded_share: Callable[[], float]) -> None:
        self._loaded_share = loaded_share
        self._ready = threading.Event()

    @property
    def share(self) -> float:
        """How much is loaded; 1 when the server answers."""
        # Loaded, but not yet said to be ready, is not quite 1.
        return 1.0 if self._ready.is_set() else min(0.99, self._loaded_share())

    def declare(self) -> None:
        """Everything is loaded."""
        self._ready.set()

    def require(self, method: str) -> None:
        """Raises Loading where the method needs what is not loaded yet."""
        if not self._ready.is_set() and not method.startswith(ANSWERED_ALWAYS):
            raise Loading(self.share)
