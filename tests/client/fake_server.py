"""A gRPC server whose answers each test plans, and which remembers what it was asked."""

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from facedex.v1 import (
    calibration_pb2,
    enrolment_pb2,
    erasure_pb2,
    gallery_pb2,
    identification_pb2,
    operations_pb2,
)

MODULES = (gallery_pb2, enrolment_pb2, identification_pb2, calibration_pb2, operations_pb2, erasure_pb2)
MAX_MESSAGE_BYTES = 32 * 1024 * 1024

StreamBehaviour = Callable[[Iterator[Any]], Iterator[Message]]


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer that is an error, with the details that the server gives."""

    code: grpc.StatusCode
    reason: str = ""
    message: str = "refused"
    metadata: tuple[tuple[str, str], ...] = ()
    violations: tuple[tuple[str, str], ...] = ()
    retry_after_seconds: float | None = None

    def status(self) -> status_pb2.Status:
        details: list[Message] = [
            error_details_pb2.ErrorInfo(reason=self.reason, domain="facedex", metadata=dict(self.metadata))
        ]
        if self.violations:
            violation = error_details_pb2.BadRequest.FieldViolation
            fields = [violation(field=field, description=text) for field, text in self.violations]
            details.append(error_details_pb2.BadRequest(field_violations=fields))
        if self.retry_after_seconds is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromNanoseconds(int(self.retry_after_seconds * 1e9))
            details.append(retry)
        return status_pb2.Status(
            code=self.code.value[0], message=self.message, details=[_packed(detail) for detail in details]
        )


@dataclass(frozen=True, slots=True)
class Bare:
    """An error as gRPC itself reports it, or a proxy between: a code and a text, without details."""

    code: grpc.StatusCode
    message: str = "refused"


class Silence:
    """No answer at all, until the server stops."""


Answer = Message | Refused | Bare | Silence


class FakeServer(grpc.GenericRpcHandler):
    """Answers each method with what was planned for it; the last answer planned is given again and again."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Any]] = []
        self.authorizations: list[str | bytes | None] = []
        self.ended = threading.Event()
        # Set only where the end came before all was answered; a cancelled stream may look finished to a quick server.
        self.cancelled = threading.Event()
        self._stopping = threading.Event()
        self._answers: dict[str, deque[Answer]] = defaultdict(deque)
        self._behaviours: dict[str, StreamBehaviour] = {}
        self._methods = {_path(method): method for method in wire_methods()}
        self._pool = ThreadPoolExecutor(8)
        size = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0)]
        self._server = grpc.server(self._pool, handlers=[self], options=size)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def plan(self, method: str, *answers: Answer) -> None:
        self._answers[method] = deque(answers)

    def plan_stream(self, method: str, behaviour: StreamBehaviour) -> None:
        self._behaviours[method] = behaviour

    def asked(self, method: str) -> list[Any]:
        return [request for name, request in self.received if name == method]

    def wait_until_stopped(self) -> None:
        self._stopping.wait(10)

    def stop(self) -> None:
        self._stopping.set()
        self._server.stop(grace=None).wait()
        self._pool.shutdown()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        method = self._methods[handler_call_details.method]
        metadata = dict(handler_call_details.invocation_metadata or ())
        self.authorizations.append(metadata.get("authorization"))
        request = GetMessageClass(method.input_type)
        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._stream(method.name), request.FromString, lambda reply: reply.SerializeToString()
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method.name), request.FromString, lambda reply: reply.SerializeToString()
        )

    def _unary(self, name: str) -> Callable[[Any, grpc.ServicerContext], Message]:
        def answer(request: Message, context: grpc.ServicerContext) -> Message:
            self.received.append((name, request))
            planned = self._next(name)
            if isinstance(planned, Refused):
                context.abort_with_status(rpc_status.to_status(planned.status()))
            if isinstance(planned, Bare):
                context.abort(planned.code, planned.message)
            if isinstance(planned, Silence):
                self.wait_until_stopped()
                raise TimeoutError
            return planned

        return answer

    def _stream(self, name: str) -> Callable[[Iterator[Any], grpc.ServicerContext], Iterator[Message]]:
        def exchange(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Message]:
            finished = threading.Event()
            context.add_callback(lambda: self._note_end(finished))
            try:
                yield from self._behaviours[name](requests)
            except Abort as abort:
                context.abort_with_status(rpc_status.to_status(abort.refused.status()))
            finished.set()

        return exchange

    def _note_end(self, finished: threading.Event) -> None:
        if not finished.is_set():
            self.cancelled.set()
        self.ended.set()

    def _next(self, name: str) -> Answer:
        answers = self._answers[name]
        return answers.popleft() if len(answers) > 1 else answers[0]


class Abort(Exception):
    """Ends a stream with an error."""

    def __init__(self, refused: Refused) -> None:
        super().__init__()
        self.refused = refused


def wire_methods() -> Iterator[MethodDescriptor]:
    for module in MODULES:
        for service in module.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
