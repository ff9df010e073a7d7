"""A collector of traces, as small as one can be: what arrives by OTLP over gRPC is kept."""

from __future__ import annotations

import threading
from concurrent import futures
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

SERVER_KIND = 2


@dataclass(frozen=True, slots=True)
class SeenSpan:
    """A span as it came over the wire; `raw` is all of it."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    is_server: bool
    is_error: bool
    attributes: dict[str, str]
    nanoseconds: int
    raw: bytes


class Collector:
    """Listens while in a `with` block; `spans` are those that have come so far."""

    def __init__(self) -> None:
        self._requests: list[Any] = []
        self._lock = threading.Lock()
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        collector = self

        class Service(trace_service_pb2_grpc.TraceServiceServicer):
            def Export(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802  (gRPC calls it so)
                collector.keep(request)
                return trace_service_pb2.ExportTraceServiceResponse()

        register: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server  # its package has no types here
        register(Service(), self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def keep(self, request: Any) -> None:
        with self._lock:
            self._requests.append(request)

    @property
    def services(self) -> set[str]:
        """The names of the services that spans came from."""
        return {
            each.value.string_value
            for request in list(self._requests)
            for resource in request.resource_spans
            for each in resource.resource.attributes
            if each.key == "service.name"
        }

    @property
    def spans(self) -> list[SeenSpan]:
        return [
            _seen(span)
            for request in list(self._requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def trace_of(self, is_root: Callable[[SeenSpan], bool]) -> tuple[SeenSpan, list[SeenSpan]]:
        """The server's span that is looked for, once it has come, and those right below it."""
        wait_until(lambda: any(each.is_server and is_root(each) for each in self.spans))
        spans = self.spans
        (root,) = [each for each in spans if each.is_server and is_root(each)]
        return root, [each for each in spans if each.parent_id == root.span_id]


def _seen(span: Any) -> SeenSpan:
    return SeenSpan(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        is_server=span.kind == SERVER_KIND,
        is_error=span.status.code == span.status.STATUS_CODE_ERROR,
        attributes={each.key: each.value.string_value for each in span.attributes},
        nanoseconds=span.end_time_unix_nano - span.start_time_unix_nano,
        raw=span.SerializeToString(),
    )
