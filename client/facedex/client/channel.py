"""Bytes to a server and bytes back: the one place, with its asyncio twin, that touches gRPC."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue

import grpc

from facedex.client.calls import MAX_MESSAGE_BYTES
from facedex.client.errors import DeadlineError, FacedexError, Failure, ServerFaultError
from facedex.client.failures import error_of_call

OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # The client repeats calls itself, because only it knows which may be repeated.
    ("grpc.enable_retries", 0),
)


def stream_ended_early(target: str) -> FacedexError:
    return ServerFaultError(Failure(f"{target} ended the stream with requests unanswered; send those again"))


def stream_silent(target: str, timeout_seconds: float) -> FacedexError:
    message = f"no answer on the stream from {target} for {timeout_seconds:g} s; allow more, or send smaller requests"
    return DeadlineError(Failure(message, code="DEADLINE_EXCEEDED"))


class Channel:
    """A connection to one server, made when it is first used. Every failure is raised as a FacedexError."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._grpc = grpc.insecure_channel(target, options=OPTIONS)

    def send(self, method: str, payload: bytes, *, timeout_seconds: float) -> bytes:
        send: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._grpc.unary_unary(method, None, None)
        try:
            return send(payload, timeout=timeout_seconds)
        except grpc.RpcError as error:
            raise error_of_call(error, target=self.target) from None

    def open_stream(self, method: str) -> "Stream":
        return Stream(self._grpc.stream_stream(method, None, None), target=self.target)

    def close(self) -> None:
        self._grpc.close()


class Stream:
    """An open stream.

    What arrives is read by a thread of its own, so that waiting for an answer can end after a time.
    """

    def __init__(self, open_call: "grpc.StreamStreamMultiCallable[bytes, bytes]", *, target: str) -> None:
        self._target = target
        self._outgoing: SimpleQueue[bytes | None] = SimpleQueue()
        self._incoming: SimpleQueue[bytes | FacedexError | None] = SimpleQueue()
        self._call = open_call(iter(self._outgoing.get, None))
        threading.Thread(target=self._keep_reading, name="facedex-stream", daemon=True).start()

    def send(self, payload: bytes) -> None:
        self._outgoing.put(payload)

    def finish(self) -> None:
        """Says that no further request comes."""
        self._outgoing.put(None)

    def has_answer(self) -> bool:
        return not self._incoming.empty()

    def receive(self, *, timeout_seconds: float) -> bytes:
        try:
            arrived = self._incoming.get(timeout=timeout_seconds)
        except Empty:
            raise stream_silent(self._target, timeout_seconds) from None
        if arrived is None:
            raise stream_ended_early(self._target)
        if isinstance(arrived, FacedexError):
            raise arrived
        return arrived

    def await_end(self, *, timeout_seconds: float) -> None:
        """Lets the server end a finished stream, so that it sees no cancelled call."""
        with suppress(Empty):
            self._incoming.get(timeout=timeout_seconds)

    def close(self) -> None:
        self._call.cancel()
        self._outgoing.put(None)  # ends the thread of gRPC that waits for requests

    def _keep_reading(self) -> None:
        answers: Iterator[bytes] = iter(self._call)
        try:
            for answer in answers:
                self._incoming.put(answer)
            self._incoming.put(None)
        except grpc.RpcError as error:
            self._incoming.put(error_of_call(error, target=self._target))
