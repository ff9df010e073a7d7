"""The asyncio twin of `channel`: bytes to a server and bytes back, awaited.

It awaits what gRPC's own threads do, instead of using `grpc.aio`: there, a request that is written while the server
ends the stream hides why the server did (github.com/grpc/grpc/issues/36066).
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import grpc

from facedex.client.access import OPEN, Access
from facedex.client.channel import Metadata, Stream, open_channel
from facedex.client.failures import error_of_call


class AsyncChannel:
    """A connection to one server, made when it is first used. Every failure is raised as a FacedexError."""

    def __init__(self, target: str, access: Access = OPEN) -> None:
        self.target = target
        self._grpc = open_channel(target, access)
        self._metadata = access.metadata()

    async def send(self, method: str, payload: bytes, *, timeout_seconds: float) -> bytes:
        send: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._grpc.unary_unary(method, None, None)
        call = send.future(payload, timeout=timeout_seconds, metadata=self._metadata)
        done = asyncio.Event()
        wake = _waker(done)
        call.add_done_callback(lambda _: wake())
        try:
            await done.wait()
            return call.result()
        except asyncio.CancelledError:
            call.cancel()
            raise
        except grpc.RpcError as error:
            raise error_of_call(error, target=self.target) from None

    def open_stream(self, method: str) -> "AsyncStream":
        return AsyncStream(self._grpc, method, target=self.target, metadata=self._metadata)

    async def close(self) -> None:
        await asyncio.to_thread(self._grpc.close)


class AsyncStream:
    """An open stream, whose answers are awaited."""

    def __init__(self, channel: grpc.Channel, method: str, *, target: str, metadata: Metadata = ()) -> None:
        self._arrival = asyncio.Event()
        woken = _waker(self._arrival)
        self._stream = Stream(channel, method, target=target, metadata=metadata, on_arrival=woken)
        self.send = self._stream.send
        self.finish = self._stream.finish
        self.has_answer = self._stream.has_answer
        self.close = self._stream.close

    async def receive(self, *, timeout_seconds: float) -> bytes:
        try:
            await asyncio.wait_for(self._until_arrival(), timeout_seconds)
        except TimeoutError:
            raise self._stream.silence(timeout_seconds) from None
        return self._stream.receive(timeout_seconds=0)

    async def await_end(self, *, timeout_seconds: float) -> None:
        """Lets the server end a finished stream, so that it sees no cancelled call."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._until_arrival(), timeout_seconds)

    async def _until_arrival(self) -> None:
        while not self.has_answer():
            self._arrival.clear()
            await self._arrival.wait()


def _waker(event: asyncio.Event) -> Callable[[], None]:
    """A function that sets the event from any thread; of no effect once the loop is closed."""
    loop = asyncio.get_running_loop()

    def wake() -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(event.set)

    return wake
