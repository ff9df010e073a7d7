"""A fake server, and both clients of it behind one face."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from tests.client.fake_server import FakeServer

from facedex.client import AsyncClient, Client, RetryPolicy
from facedex.client.async_channel import AsyncChannel
from facedex.client.channel import Channel

ALWAYS_HALF = 0.5


class FakeTime:
    """A clock that stands still but for the pauses that were asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def sleep_in_loop(self, seconds: float) -> None:
        self.sleep(seconds)


class Awaited:
    """An AsyncClient that is used as if it were a Client: each call runs the loop until it is answered."""

    def __init__(self, client: AsyncClient, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._result(getattr(self._client, name)(*args, **kwargs))

        return call

    def _result(self, outcome: Awaitable[Any] | AsyncIterator[Any] | AsyncClient) -> Any:
        if isinstance(outcome, AsyncClient):
            return Awaited(outcome, self._loop)
        if isinstance(outcome, AsyncIterator):
            return self._items(outcome)
        return self._loop.run_until_complete(_awaited(outcome))

    def _items(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        try:
            while True:
                try:
                    yield self._loop.run_until_complete(_awaited(anext(items)))
                except StopAsyncIteration:
                    return
        finally:
            self._loop.run_until_complete(items.aclose())  # type: ignore[attr-defined]


async def _awaited(outcome: Awaitable[Any]) -> Any:
    return await outcome


Connect = Callable[..., Any]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.stop()


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture(params=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest, server: FakeServer, time: FakeTime) -> Iterator[Connect]:
    """Connects one kind of client after the other; pauses are those of a fake clock."""
    retry = RetryPolicy(draw=lambda: ALWAYS_HALF)
    if request.param == "blocking":
        yield from _blocking(server, time, retry)
    else:
        yield from _awaiting(server, time, retry)


def _blocking(server: FakeServer, time: FakeTime, retry: RetryPolicy) -> Iterator[Connect]:
    clients: list[Client] = []

    def connect(**options: Any) -> Client:
        given: dict[str, Any] = {"retry": retry, "clock": time.clock, "sleep": time.sleep, **options}
        clients.append(Client(Channel(server.target), **given))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def _awaiting(server: FakeServer, time: FakeTime, retry: RetryPolicy) -> Iterator[Connect]:
    loop = asyncio.new_event_loop()
    clients: list[Awaited] = []

    async def made(**options: Any) -> AsyncClient:
        given: dict[str, Any] = {"retry": retry, "clock": time.clock, "sleep": time.sleep_in_loop, **options}
        return AsyncClient(AsyncChannel(server.target), **given)

    def connect(**options: Any) -> Awaited:
        clients.append(Awaited(loop.run_until_complete(made(**options)), loop))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.fixture
def client(connect: Connect) -> Any:
    return connect()
