"""What happens around every call: admission, errors, the log line."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from facedex.indexer.errors import MalformedMessage
from facedex.server.status import Failure, failure_of, is_expected

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from facedex.server.admission import Admission

logger = structlog.get_logger("facedex.server")
HEALTH = "/grpc.health."
REFLECTION = "/grpc.reflection."


class CallInterceptor(grpc.ServerInterceptor):
    """Bounds, times and logs each call, and turns errors into statuses.

    The log says which method ended how and after how long: never who was on a photograph.
    """

    def __init__(self, *, requests: Admission, streams: Admission, reflections: Admission) -> None:
        self._requests = requests
        self._streams = streams
        self._reflections = reflections

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler: Any = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(HEALTH):
            return handler  # health is answered however busy the server is
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler), response_serializer=handler.response_serializer
            )
        places = self._reflections if method.startswith(REFLECTION) else self._streams
        return grpc.stream_stream_rpc_method_handler(
            _stream(method, handler, places), response_serializer=handler.response_serializer
        )

    def _unary(self, method: str, handler: Any) -> Any:
        def call(message: bytes, context: grpc.ServicerContext) -> Any:
            with _told(method, context), self._requests.place():
                return handler.unary_unary(_parsed(handler, message), context)

        return call


def _stream(method: str, handler: Any, places: Admission) -> Any:
    def call(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        with _told(method, context), places.place():
            yield from handler.stream_stream((_parsed(handler, each) for each in messages), context)

    return call


def _parsed(handler: Any, message: bytes) -> Any:
    # Here and not by gRPC, which would answer "internal" and log a stack trace for each malformed message.
    try:
        return handler.request_deserializer(message)
    except DecodeError:
        raise MalformedMessage from None


@contextmanager
def _told(method: str, context: grpc.ServicerContext) -> Generator[None]:
    started = time.perf_counter()
    try:
        yield
    except grpc.RpcError:  # the caller hung up in the middle of a stream
        _log(method, "CANCELLED", "", started)
        raise
    except Exception as error:  # noqa: BLE001  (whatever it is, the server lives and the caller is told)
        failure = failure_of(error)
        _log(method, failure.code.name, failure.reason, started)
        if not is_expected(failure):
            log_unexpected(method, error)
        _abort(context, failure)
    else:
        _log(method, "OK", "", started)


def _abort(context: grpc.ServicerContext, failure: Failure) -> NoReturn:
    context.abort_with_status(rpc_status.to_status(failure.status()))
    raise AssertionError("abort_with_status raises")


def _log(method: str, code: str, reason: str, started: float) -> None:
    milliseconds = round(1000 * (time.perf_counter() - started), 1)
    logger.info("call", method=method, code=code, reason=reason, duration_ms=milliseconds)


def log_unexpected(method: str, error: Exception) -> None:
    """Where the error was raised, without its text: that may hold what the caller sent."""
    trace = error.__traceback__
    places: list[str] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/facedex/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    logger.error("unexpected error", method=method, error=type(error).__name__, places=places[-8:])
