"""One call as the services see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facedex.indexer.errors import DeadlinePassed
from facedex.indexer.texts import checked_text

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

MAX_REQUEST_ID_CHARACTERS = 64


def checkpoint_of(context: grpc.ServicerContext) -> Callable[[], None]:
    """Raises DeadlinePassed once nobody waits for the answer any more; called before each costly step."""

    def checkpoint() -> None:
        remaining = context.time_remaining()
        # None where the caller set no deadline, whatever the stubs say
        if not context.is_active() or (remaining is not None and remaining <= 0):  # pyright: ignore[reportUnnecessaryComparison]
            raise DeadlinePassed

    return checkpoint


def check_request_id(request_id: str) -> None:
    checked_text(request_id, "request_id", max_characters=MAX_REQUEST_ID_CHARACTERS)
