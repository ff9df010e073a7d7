"""One span a call, with the steps of its work below it, for whoever collects traces; or nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

from facedex.indexer.tracing import untraced

if TYPE_CHECKING:
    from facedex.indexer.tracing import Work

Ended = Callable[[str, str], None]
"""Told of a call's end: its status code, and the reason where it was refused."""


class TracingUnavailable(Exception):
    """Traces are asked for, and the packages that make them are not there."""

    def __init__(self) -> None:
        super().__init__(
            "traces are asked for (--otlp-endpoint or OTEL_EXPORTER_OTLP_ENDPOINT), and OpenTelemetry is not "
            "installed: pip install 'facedex[tracing]', or start without"
        )


class Tracing(Protocol):
    """Sees each call and its steps. Neither a name, an id, a vector nor a photograph is told to it."""

    def call(self, method: str, traceparent: str) -> AbstractContextManager[Ended]:
        """Around a call, on the thread that answers it. `traceparent` is its caller's span (W3C), empty where there is none."""
        ...

    def step(self, work: Work) -> AbstractContextManager[object]:
        """Around a step of the call that this thread works for."""
        ...

    def close(self) -> None:
        """Sends what has not been sent."""
        ...


def tell_nobody(_code: str, _reason: str) -> None:
    """The end of a call that is in no trace."""


UNSEEN = nullcontext(tell_nobody)


class NoTracing:
    """Of a server whose traces nobody collects: costs two calls of a function a step."""

    def call(self, method: str, traceparent: str) -> AbstractContextManager[Ended]:  # noqa: ARG002  (of the protocol)
        return UNSEEN

    def step(self, work: Work) -> AbstractContextManager[object]:
        return untraced(work)

    def close(self) -> None:
        pass


def tracing_to(endpoint: str | None) -> Tracing:
    """What sends traces to an OTLP collector by gRPC; None: there is nobody to send them to.

    Raises:
        TracingUnavailable: OpenTelemetry is not installed.

    """
    if endpoint is None:
        return NoTracing()
    try:
        from facedex.server.otlp import OtlpTracing  # noqa: PLC0415  (an extra that most servers go without)
    except ModuleNotFoundError:
        raise TracingUnavailable from None
    return OtlpTracing.to(endpoint)
