"""The asyncio client: the same calls as the blocking one, awaited."""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from facedex.client import calls
from facedex.client.access import Access, Tls
from facedex.client.async_channel import AsyncChannel
from facedex.client.calls import Call, Page, Refusal, StreamCall
from facedex.client.client import DEFAULT_TIMEOUT_SECONDS
from facedex.client.erasures import ErasureRecord
from facedex.client.errors import FacedexError
from facedex.client.galleries import Gallery
from facedex.client.identification import Identification, IdentifyRequest
from facedex.client.identities import Enrolment, EnrolRequest, Identity
from facedex.client.jobs import Job, JobFinding
from facedex.client.retry import Attempts, RetryPolicy
from facedex.client.signatures import method_described_by
from facedex.client.streams import WINDOW, Unanswered

Parameters = ParamSpec("Parameters")
Request = TypeVar("Request")
Answer = TypeVar("Answer")


def _sending(
    call: Callable[Parameters, Call[Answer]],
) -> "Callable[Concatenate[AsyncClient, Parameters], Awaitable[Answer]]":
    """The method that makes this call and, awaited, returns its answer."""

    async def method(client: "AsyncClient", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Answer:
        return await client.invoke(call(*args, **kwargs))

    return method_described_by(call, method)


class AsyncClient:
    """A connection to a facedex server.

    To be used in the event loop of its callers. Each call ends within the timeout, repeated attempts included; those of
    a stream wait that long for each answer. Repeated is only what may be: see `RetryPolicy`. Everything raised is a
    FacedexError, or a ValueError for values that could never be sent.
    """

    def __init__(
        self,
        channel: AsyncChannel,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        retry: RetryPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._channel = channel
        self._timeout_seconds = timeout_seconds
        self._retry = retry or RetryPolicy()
        self._clock = clock
        self._sleep = sleep

    @classmethod
    def connect(
        cls,
        target: str,
        *,
        api_key: str | None = None,
        tls: Tls | None = None,
        allow_unencrypted_key: bool = False,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        retry: RetryPolicy | None = None,
    ) -> Self:
        """A client of the server at `target`, for instance "localhost:50051".

        Calls are spread over several servers of one database where `target` is "ipv4:10.0.0.1:50051,10.0.0.2:50051", or
        "dns:///faces.example.com:50051" and the name has several addresses; one that does not answer is passed over.
        With `tls`, the connection is encrypted. An `api_key` is sent without it to this machine only, unless
        `allow_unencrypted_key`, for a proxy or tunnel that encrypts. The connection is made with the first call.
        Raises InvalidTargetError, InvalidKeyError, InvalidCertificateError, UnencryptedKeyError.
        """
        access = Access(api_key=api_key, tls=tls, allows_unencrypted_key=allow_unencrypted_key)
        return cls(AsyncChannel(target, access), timeout_seconds=timeout_seconds, retry=retry)

    def with_timeout(self, timeout_seconds: float) -> Self:
        """The same client, over the same connection, with another timeout."""
        return type(self)(
            self._channel,
            timeout_seconds=timeout_seconds,
            retry=self._retry,
            clock=self._clock,
            sleep=self._sleep,
        )

    async def close(self) -> None:
        """Ends the connection, also for clients that share it."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    create_gallery = _sending(calls.create_gallery)
    get_gallery = _sending(calls.get_gallery)
    update_gallery = _sending(calls.update_gallery)
    delete_gallery = _sending(calls.delete_gallery)
    enrol = _sending(calls.enrol)
    get_identity = _sending(calls.get_identity)
    update_identity = _sending(calls.update_identity)
    delete_identity = _sending(calls.delete_identity)
    delete_template = _sending(calls.delete_template)
    identify = _sending(calls.identify)
    verify = _sending(calls.verify)
    verify_images = _sending(calls.verify_images)
    detect = _sending(calls.detect)
    server_info = _sending(calls.server_info)
    check_consistency = _sending(calls.check_consistency)
    calibrate = _sending(calls.calibrate)
    get_certificate = _sending(calls.get_certificate)
    resolve_threshold = _sending(calls.resolve_threshold)
    get_job = _sending(calls.get_job)
    cancel_job = _sending(calls.cancel_job)
    get_erasure = _sending(calls.get_erasure)
    check_erasure = _sending(calls.check_erasure)
    export_identity = _sending(calls.export_identity)

    def list_erasures(self, *, page_size: int = 100) -> AsyncIterator[ErasureRecord]:
        """All erasures, the newest first; fetched page by page while they are read."""
        return self._items(lambda token: calls.list_erasures(page_size=page_size, page_token=token))

    def list_jobs(self, *, page_size: int = 100) -> AsyncIterator[Job]:
        """All jobs, the newest first; fetched page by page while they are read."""
        return self._items(lambda token: calls.list_jobs(page_size=page_size, page_token=token))

    def list_job_findings(self, job_id: int) -> AsyncIterator[JobFinding]:
        """What was noticed about the items of a bulk enrolment or a stream, in their order. Raises NotFoundError."""
        return self._items(lambda token: calls.list_job_findings(job_id, page_token=token))

    def list_galleries(self, *, page_size: int = 100) -> AsyncIterator[Gallery]:
        """All galleries in order of their names; fetched page by page while they are read."""
        return self._items(lambda token: calls.list_galleries(page_size=page_size, page_token=token))

    def list_identities(
        self, gallery: str, *, filters: Mapping[str, Sequence[str]] | None = None, page_size: int = 100
    ) -> AsyncIterator[Identity]:
        """The identities of a gallery in order of their ids.

        With `filters`, those that have for each key one of its values.
        """
        return self._items(
            lambda token: calls.list_identities(gallery, filters=filters, page_size=page_size, page_token=token)
        )

    def enrol_stream(
        self, requests: AsyncIterable[EnrolRequest] | Iterable[EnrolRequest], *, window: int = WINDOW
    ) -> AsyncIterator[Enrolment | Refusal]:
        """Enrols many identities over one connection and gives one answer for each request, in order.

        The requests are read one by one while answers are read: never more than `window` are unanswered.
        An answer that has come is given out when the next request is there, or there is no further one, so no request may
        wait for an answer. A stream that breaks raises; the same requests, with their ids, may be sent again.
        """
        return self._exchange(calls.enrol_stream(), requests, window=window)

    def identify_stream(
        self, requests: AsyncIterable[IdentifyRequest] | Iterable[IdentifyRequest], *, window: int = WINDOW
    ) -> AsyncIterator[Identification | Refusal]:
        """Identifies frame after frame over one connection and gives one answer for each request, in order.

        The requests are read one by one while answers are read: never more than `window` are unanswered.
        An answer that has come is given out when the next request is there, or there is no further one: with a frame every
        two seconds, an answer is up to two seconds late. No request may wait for an answer.
        """
        return self._exchange(calls.identify_stream(), requests, window=window)

    async def invoke(self, call: Call[Answer]) -> Answer:
        """Makes one call, again where it may be repeated, until it is answered or the timeout has passed."""
        attempts = Attempts(self._retry, call.repeatable, deadline=self._clock() + self._timeout_seconds)
        while True:
            try:
                return call.read(await self._send(call, timeout_seconds=attempts.deadline - self._clock()))
            except FacedexError as error:
                pause_seconds = attempts.pause_seconds(error, now=self._clock())
            await self._sleep(pause_seconds)

    async def _send(self, call: Call[Answer], *, timeout_seconds: float) -> bytes:
        return await self._channel.send(call.method, call.payload, timeout_seconds=timeout_seconds)

    async def _items(self, call: Callable[[str], Call[Page[Answer]]]) -> AsyncIterator[Answer]:
        page = await self.invoke(call(""))
        for item in page.items:
            yield item
        while page.next_page_token:
            page = await self.invoke(call(page.next_page_token))
            for item in page.items:
                yield item

    async def _exchange(
        self, call: StreamCall[Request, Answer], requests: AsyncIterable[Request] | Iterable[Request], *, window: int
    ) -> AsyncIterator[Answer | Refusal]:
        unanswered = Unanswered(call, window=window)
        with closing(self._channel.open_stream(call.method)) as stream:

            async def answer() -> Answer | Refusal:
                refusal = unanswered.refuse_oldest()
                return refusal or call.read(await stream.receive(timeout_seconds=self._timeout_seconds))

            async for request in _each(requests):
                if (payload := unanswered.add(request)) is not None:
                    stream.send(payload)
                while unanswered.is_full or unanswered.oldest_was_not_sent or (unanswered and stream.has_answer()):
                    yield await answer()
            stream.finish()
            while unanswered:
                yield await answer()
            await stream.await_end(timeout_seconds=self._timeout_seconds)


async def _each(requests: AsyncIterable[Request] | Iterable[Request]) -> AsyncIterator[Request]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request
