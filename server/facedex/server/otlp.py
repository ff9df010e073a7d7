"""Traces by OpenTelemetry, sent to a collector. Imported only where they are asked for."""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Self

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_TRACES_SAMPLER
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from facedex.indexer.tracing import UNTRACED
from facedex.server.admission import HEALTH
from facedex.server.tracing import UNSEEN

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

    from opentelemetry.sdk.trace.export import SpanExporter

    from facedex.indexer.tracing import Work
    from facedex.server.tracing import Ended

# How long a stop waits for a collector that does not answer.
FLUSH_SECONDS = 3.0
# Of the calls that no caller traces; who traces decides for its own calls.
SHARE_TRACED = 0.1
MOST_A_SECOND = 5
# OpenTelemetry's conventions for gRPC servers: what the caller did wrong is no error of the server's.
SERVERS_FAULT = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}


class OtlpTracing:
    """Spans of one server: one a call, below that of its caller where it has one, and one a step below it.

    A step of no call, of the threads that follow the change log say, makes none. Attributes are those that are written down
    here, and hold nothing that a caller sent.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        # Where the standard variable says nothing: tracing every call would cost a search by vector a quarter.
        self._lot = None if OTEL_TRACES_SAMPLER in os.environ else Lot(SHARE_TRACED, at_most=MOST_A_SECOND)
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("facedex.server", version("facedex"))
        self._callers = TraceContextTextMapPropagator()
        # How many calls are being traced: mostly none, and to know that is all that a step of another call costs.
        self._traced = 0
        self._counting = threading.Lock()

    @classmethod
    def to(cls, endpoint: str) -> Self:
        """Sends to http://HOST:PORT, unencrypted, or https://…; the standard OTEL_ variables say all the rest."""
        return cls(OTLPSpanExporter(endpoint=endpoint))

    def call(self, method: str, traceparent: str) -> AbstractContextManager[Ended]:
        if method.startswith(HEALTH):  # asked every few seconds, and tells of nothing
            return UNSEEN
        # Drawn here and not by a sampler, for which each call needs a span, if only to be dropped.
        if not traceparent and self._lot is not None and not self._lot.is_drawn():
            return UNSEEN
        return self._call(method, traceparent)

    @contextmanager
    def _call(self, method: str, traceparent: str) -> Generator[Ended]:
        name = method.removeprefix("/")
        # Of what the caller sent only the two numbers: its tracestate may hold anything.
        span = self._tracer.start_span(
            name,
            self._callers.extract({"traceparent": traceparent}, context.Context()),
            SpanKind.SERVER,
            {"rpc.system.name": "grpc", "rpc.method": name},
        )
        token = context.attach(trace.set_span_in_context(span))
        self._count(1)
        try:
            yield partial(_end, span)
        finally:
            self._count(-1)
            context.detach(token)
            span.end()

    def _count(self, change: int) -> None:
        with self._counting:
            self._traced += change

    def step(self, work: Work) -> AbstractContextManager[object]:
        return self._step(work) if self._traced and trace.get_current_span().is_recording() else UNTRACED

    @contextmanager
    def _step(self, work: Work) -> Generator[None]:
        # Not made the current one: a step has no steps, and one that reads row after row ends on another's watch.
        span = self._tracer.start_span(work.value)
        try:
            yield
        finally:
            span.end()

    def close(self) -> None:
        impatience = threading.Timer(FLUSH_SECONDS, self._exporter.shutdown)
        impatience.start()
        self._provider.shutdown()
        impatience.cancel()


class Lot:
    """Draws a share of the calls, and no two so soon after each other that they would be more than so many a second.

    So many short calls cost no more than a few long ones, also after a pause.
    """

    def __init__(self, share: float, *, at_most: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._pause_seconds = 1 / at_most
        self._clock = clock
        self._next_at = clock()
        self._drawing = threading.Lock()

    def is_drawn(self) -> bool:
        """Whether this call is traced."""
        if random.random() >= self._share:  # noqa: S311  (nobody gains by guessing it)
            return False
        with self._drawing:
            now = self._clock()
            if now < self._next_at:
                return False
            self._next_at = now + self._pause_seconds
            return True


def _resource() -> Resource:
    """Which server it is: the OTEL_ variables have the last word."""
    named = Resource({SERVICE_NAME: "facedex", SERVICE_VERSION: version("facedex")})
    return named.merge(OTELResourceDetector().detect())


def _end(span: Span, code: str, reason: str) -> None:
    span.set_attribute("rpc.response.status_code", code)
    if reason:
        span.set_attribute("facedex.reason", reason)
    if code in SERVERS_FAULT:
        span.set_status(Status(StatusCode.ERROR))
