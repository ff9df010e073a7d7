"""What happens around every call: access, admission, errors, the log line."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from facedex.indexer.errors import MalformedMessage
from facedex.server.access import Caller
from facedex.server.admission import HEALTH, Overloaded, Stopping
from facedex.server.status import Failure, failure_of, is_expected

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from facedex.server.admission import Admission, Places
    from facedex.server.gate import Gate
    from facedex.server.metrics import Metrics
    from facedex.server.patience import Patience
    from facedex.server.readiness import Readiness
    from facedex.server.recorder import Record, Recorder
    from facedex.server.tracing import Ended, Tracing

logger = structlog.get_logger("facedex.server")
# A photograph of the largest size arrives in this time at 3 Mbit/s.
MESSAGE_SECONDS = 60.0
TRACEPARENT = "traceparent"


@dataclass(frozen=True, slots=True)
class Around:
    """What is around every call: who may make it, what is told of it, how many there are, how long they wait."""

    gate: Gate
    metrics: Metrics
    recorder: Recorder
    places: Places
    patience: Patience
    readiness: Readiness
    tracing: Tracing


class CallInterceptor(grpc.ServerInterceptor):
    """Bounds, times and logs each call, and turns errors into statuses.

    The log says which method ended how and after how long: never who was on a photograph. Who has no key that is good for the
    method is sent away before anything is read of the request. Every call takes its place before keys are looked up and its
    message is waited for, so that callers who send slowly, or nothing, and a database that does not answer, cannot hold more
    than their share of the threads.
    """

    def __init__(self, around: Around) -> None:
        self._gate = around.gate
        self._metrics = around.metrics
        self._recorder = around.recorder
        self._places = around.places
        self._patience = around.patience
        self._readiness = around.readiness
        self._tracing = around.tracing

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler: Any = continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        # To gRPC, one message is a stream too; what goes over the wire is the same.
        if handler.unary_unary is not None:
            behaviour, make = self._unary(method, handler), grpc.stream_unary_rpc_method_handler
        elif handler.unary_stream is not None:
            behaviour, make = self._watch(method, handler), grpc.stream_stream_rpc_method_handler
        else:
            behaviour, make = self._stream(method, handler), grpc.stream_stream_rpc_method_handler
        wrapped: grpc.RpcMethodHandler[Any, Any] = make(behaviour, response_serializer=handler.response_serializer)
        return wrapped

    def _unary(self, method: str, handler: Any) -> Any:
        places = self._places.of_calls(method)

        def call(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            with self._told(method, context), self._recorder.recording(method, context) as record:
                with self._place(places, context, record):
                    caller = self._admitted(method, context, record)
                    request = self._asked_once(method, messages, handler, context, record)
                    with self._gate.open_for(caller, context):
                        record.note_answer(handler.unary_unary(request, context))
                self._metrics.answered(record.gallery, record.outcomes)
            return record.answer

        return call

    def _watch(self, method: str, handler: Any) -> Any:
        places = self._places.of_streams(method)

        def call(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            with (
                self._told(method, context),
                self._recorder.recording(method, context) as record,
                self._place(places, context, record),
            ):
                self._admitted(method, context, record)
                request = self._asked_once(method, messages, handler, context, record)
                with self._patience.waiting(context, seconds=math.inf):
                    yield from handler.unary_stream(request, context)

        return call

    def _stream(self, method: str, handler: Any) -> Any:
        places = self._places.of_streams(method)

        def call(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            with (
                self._told(method, context),
                self._recorder.recording(method, context) as record,
                self._place(places, context, record),
                self._patience.streaming(),
            ):
                self._admitted(method, context, record)
                self._readiness.require(method)
                requests = self._asked_each(method, messages, handler, context, record)
                for answer in handler.stream_stream(requests, context):
                    if record.rule.gallery is not None:
                        self._note_answer(record, getattr(answer, answer.WhichOneof("answer")))
                    yield answer

        return call

    def _note_answer(self, record: Record, answer: Any) -> None:
        gallery = record.oldest_gallery()
        record.note_answer(answer)
        self._metrics.answered(gallery, record.outcomes)
        self._recorder.answered(record, gallery)

    @contextmanager
    def _place(self, places: Admission, context: grpc.ServicerContext, record: Record) -> Generator[None]:
        """A place. For the audit, whoever finds none is known by the keys that were read before."""
        try:
            with places.place():
                yield
        except Overloaded:
            record.caller = self._gate.known_caller(context)
            raise

    def _admitted(self, method: str, context: grpc.ServicerContext, record: Record) -> Caller:
        if self._patience.is_lost and not method.startswith(HEALTH):
            raise Stopping
        caller = record.caller = self._gate.caller(method, context)
        self._gate.admit(method, caller)
        return caller

    def _asked_once(
        self, method: str, messages: Iterator[bytes], handler: Any, context: grpc.ServicerContext, record: Record
    ) -> Any:
        """The one request of a call, which its caller may make."""
        caller = record.caller or Caller()
        self._readiness.require(method)
        self._gate.charge(caller)
        request = self._only(messages, handler, context)
        record.asked(request)
        self._gate.check(method, caller, request)
        return request

    def _asked_each(
        self, method: str, messages: Iterator[bytes], handler: Any, context: grpc.ServicerContext, record: Record
    ) -> Iterator[Any]:
        """The requests of a stream; one that its caller may not make ends it, and so does a key that is revoked meanwhile."""
        for request in self._each(messages, handler, context):
            caller = self._admitted(method, context, record)
            self._recorder.require(record)
            record.asked(request)
            self._gate.check(method, caller, request)
            self._gate.charge_slowly(caller, goes_on=lambda: context.is_active() and not self._patience.is_lost)
            yield request

    def _only(self, messages: Iterator[bytes], handler: Any, context: grpc.ServicerContext) -> Any:
        with self._patience.waiting(context, seconds=MESSAGE_SECONDS):
            message = next(messages, None)
        if message is None:
            raise MalformedMessage
        return _parsed(handler, message)

    def _each(self, messages: Iterator[bytes], handler: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        while True:
            if self._patience.is_lost:
                raise Stopping
            with self._patience.waiting(context, seconds=math.inf):
                message = next(messages, None)
            if message is None:
                return
            yield _parsed(handler, message)

    @contextmanager
    def _told(self, method: str, context: grpc.ServicerContext) -> Generator[None]:
        self._metrics.call_began()
        with self._tracing.call(method, _traceparent(context)) as told:
            ended = partial(self._ended, method, time.perf_counter(), told)
            try:
                yield
            except grpc.RpcError:  # the caller hung up in the middle of a stream
                ended("CANCELLED")
                raise
            except Exception as error:  # noqa: BLE001  (whatever it is, the server lives and the caller is told)
                failure = failure_of(error)
                ended(failure.code.name, failure.reason)
                if not is_expected(failure):
                    log_unexpected(method, error)
                _abort(context, failure)
            except BaseException:  # gRPC gives up a stream that nobody reads any more
                ended("CANCELLED")
                raise
            else:
                ended("OK")

    def _ended(self, method: str, started: float, told: Ended, code: str, reason: str = "") -> None:
        seconds = time.perf_counter() - started
        told(code, reason)
        self._metrics.call_ended(method, code, reason, seconds)
        # Nobody wants a line every few seconds.
        if code != "OK" or not method.startswith(HEALTH):
            logger.info("call", method=method, code=code, reason=reason, duration_ms=round(1000 * seconds, 1))


def _traceparent(context: grpc.ServicerContext) -> str:
    """The span of the caller, as W3C's Trace Context has it; empty where it tells none."""
    return next((str(value) for key, value in context.invocation_metadata() if key == TRACEPARENT), "")


def _parsed(handler: Any, message: bytes) -> Any:
    # Here and not by gRPC, which would answer "internal" and log a stack trace for each malformed message.
    try:
        return handler.request_deserializer(message)
    except DecodeError:
        raise MalformedMessage from None


def _abort(context: grpc.ServicerContext, failure: Failure) -> NoReturn:
    context.abort_with_status(rpc_status.to_status(failure.status()))
    raise AssertionError("abort_with_status raises")


def log_unexpected(method: str, error: Exception) -> None:
    """Where the error was raised, without its text: that may hold what the caller sent."""
    trace = error.__traceback__
    places: list[str] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/facedex/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    logger.error("unexpected error", method=method, error=type(error).__name__, places=places[-8:])
