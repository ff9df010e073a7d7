"""Bytes to a server and bytes back: the one place, with its asyncio twin, that touches gRPC."""

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

import grpc

from facedex.client.access import OPEN, Access, Tls
from facedex.client.calls import MAX_MESSAGE_BYTES
from facedex.client.errors import (
    DeadlineError,
    FacedexError,
    Failure,
    InvalidCertificateError,
    InvalidTargetError,
    ServerFaultError,
)
from facedex.client.failures import error_of_call

OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # The client repeats calls itself, because only it knows which may be repeated.
    ("grpc.enable_retries", 0),
)

Metadata = tuple[tuple[str, str], ...]

# Of several servers over one database, each call goes to the next one that answers.
SPREAD_CALLS = (("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),)

TARGET = re.compile(
    r"(dns:///)?([^\s:/]+|\[[0-9a-fA-F:.]+\]):\d{1,5}|unix:\S+"
    r"|ipv4:[\d.]+:\d{1,5}(,[\d.]+:\d{1,5})*|ipv6:\[[0-9a-fA-F:.]+\]:\d{1,5}(,\[[0-9a-fA-F:.]+\]:\d{1,5})*"
)
"""The addresses that gRPC knows. gRPC itself takes any text, and fails when it is first used."""
SEVERAL = re.compile(r"dns:///|ipv[46]:")
"""Such an address may stand for several servers."""


def open_channel(target: str, access: Access) -> grpc.Channel:
    """Raises InvalidTargetError, InvalidCertificateError, UnencryptedKeyError."""
    if not TARGET.fullmatch(target):
        raise InvalidTargetError(target)
    access.check(target)
    options = (*OPTIONS, *SPREAD_CALLS) if SEVERAL.match(target) else OPTIONS
    if access.tls is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, _credentials(access.tls), options=options)


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    # gRPC itself would say what is wrong with them in its log only, and then that nobody answers.
    for pem in (tls.ca, tls.certificate, tls.private_key):
        if pem is not None and b"-----BEGIN " not in pem:
            raise InvalidCertificateError
    return grpc.ssl_channel_credentials(tls.ca, tls.private_key, tls.certificate)


class Channel:
    """A connection to a server, or to several over one database, made when it is first used.

    Every failure is raised as a FacedexError.
    """

    def __init__(self, target: str, access: Access = OPEN) -> None:
        self.target = target
        self._grpc = open_channel(target, access)
        self._metadata = access.metadata()

    def send(self, method: str, payload: bytes, *, timeout_seconds: float) -> bytes:
        send: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._grpc.unary_unary(method, None, None)
        try:
            return send(payload, timeout=timeout_seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise error_of_call(error, target=self.target) from None

    def open_stream(self, method: str) -> "Stream":
        return Stream(self._grpc, method, target=self.target, metadata=self._metadata)

    def close(self) -> None:
        self._grpc.close()


class Stream:
    """An open stream. What arrives is read by a thread of its own, so that waiting for an answer can end after a time.

    `on_arrival` is called in that thread after each answer, and after the end.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        method: str,
        *,
        target: str,
        metadata: Metadata = (),
        on_arrival: Callable[[], None] = lambda: None,
    ) -> None:
        self._target = target
        self._on_arrival = on_arrival
        self._outgoing: SimpleQueue[bytes | None] = SimpleQueue()
        self._incoming: SimpleQueue[bytes | FacedexError | None] = SimpleQueue()
        open_call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method, None, None)
        self._call = open_call(iter(self._outgoing.get, None), metadata=metadata)
        threading.Thread(target=self._keep_reading, name="facedex-stream", daemon=True).start()

    def send(self, payload: bytes) -> None:
        self._outgoing.put(payload)

    def finish(self) -> None:
        """Says that no further request comes."""
        self._outgoing.put(None)

    def has_answer(self) -> bool:
        """Whether `receive` would return, or raise, without waiting."""
        return not self._incoming.empty()

    def receive(self, *, timeout_seconds: float) -> bytes:
        try:
            arrived = self._incoming.get(timeout=timeout_seconds)
        except Empty:
            raise self.silence(timeout_seconds) from None
        if arrived is None:
            message = f"{self._target} ended the stream with requests unanswered; send those again"
            raise ServerFaultError(Failure(message))
        if isinstance(arrived, FacedexError):
            raise arrived
        return arrived

    def await_end(self, *, timeout_seconds: float) -> None:
        """Lets the server end a finished stream, so that it sees no cancelled call."""
        with suppress(Empty):
            self._incoming.get(timeout=timeout_seconds)

    def silence(self, timeout_seconds: float) -> FacedexError:
        message = f"no answer on the stream from {self._target} for {timeout_seconds:g} s; allow more, or send less"
        return DeadlineError(Failure(message, code="DEADLINE_EXCEEDED"))

    def close(self) -> None:
        self._call.cancel()
        self._outgoing.put(None)  # ends the thread of gRPC that waits for requests

    def _keep_reading(self) -> None:
        try:
            for answer in self._call:
                self._arrived(answer)
            self._arrived(None)
        except grpc.RpcError as error:
            self._arrived(error_of_call(error, target=self._target))

    def _arrived(self, arrival: bytes | FacedexError | None) -> None:
        self._incoming.put(arrival)
        self._on_arrival()
