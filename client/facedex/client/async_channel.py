"""The asyncio twin of `channel`: bytes to a server and bytes back."""

import asyncio
from contextlib import suppress

import grpc
import grpc.aio

from facedex.client.channel import OPTIONS, stream_ended_early, stream_silent
from facedex.client.failures import error_of_call


class AsyncChannel:
    """A connection to one server, made when it is first used. Every failure is raised as a FacedexError."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._grpc = grpc.aio.insecure_channel(target, options=OPTIONS)

    async def send(self, method: str, payload: bytes, *, timeout_seconds: float) -> bytes:
        send: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._grpc.unary_unary(method, None, None)
        try:
            return await send(payload, timeout=timeout_seconds)
        except grpc.RpcError as error:
            raise error_of_call(error, target=self.target) from None

    def open_stream(self, method: str) -> "AsyncStream":
        return AsyncStream(self._grpc.stream_stream(method, None, None), target=self.target)

    async def close(self) -> None:
        await self._grpc.close()


class AsyncStream:
    """An open stream. One answer is read ahead, so that it is known whether one is there without waiting for it."""

    def __init__(self, open_call: "grpc.aio.StreamStreamMultiCallable[bytes, bytes]", *, target: str) -> None:
        self._target = target
        self._call = open_call()
        self._next_answer = asyncio.ensure_future(self._call.read())

    async def send(self, payload: bytes) -> None:
        # A stream that has ended tells why when the next answer is awaited.
        with suppress(grpc.RpcError, asyncio.InvalidStateError):
            await self._call.write(payload)

    async def finish(self) -> None:
        """Says that no further request comes."""
        with suppress(grpc.RpcError, asyncio.InvalidStateError):
            await self._call.done_writing()

    def has_answer(self) -> bool:
        return self._next_answer.done()

    async def receive(self, *, timeout_seconds: float) -> bytes:
        done, _ = await asyncio.wait({self._next_answer}, timeout=timeout_seconds)
        if not done:
            raise stream_silent(self._target, timeout_seconds)
        answer = self._arrived()
        self._next_answer = asyncio.ensure_future(self._call.read())
        return answer

    async def await_end(self, *, timeout_seconds: float) -> None:
        """Lets the server end a finished stream, so that it sees no cancelled call."""
        await asyncio.wait({self._next_answer}, timeout=timeout_seconds)

    async def aclose(self) -> None:
        self._call.cancel()
        self._next_answer.cancel()
        await asyncio.wait({self._next_answer})

    def _arrived(self) -> bytes:
        try:
            answer = self._next_answer.result()
        except grpc.RpcError as error:
            raise error_of_call(error, target=self._target) from None
        if not isinstance(answer, bytes):
            raise stream_ended_early(self._target)
        return answer
