"""One attempt on the network: sends the request, reads the answer within the timeouts, and ends exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import httpx
from opentelemetry.trace import Span
from voice_runtime import NoThreadError, Timeout
from voice_runtime.shared_store import LoopThread

from voice_models.answer import DONE
from voice_models.attempt import ModelAttempt
from voice_models.errors import ModelError
from voice_models.request import lower_case

Send = Callable[[httpx.Request], Awaitable[httpx.Response]]
NOT_HANDED_ON = frozenset({b"content-length", b"transfer-encoding", b"content-encoding", b"connection"})
"""Headers that the caller does not get, because they describe the provider's connection and body.

The caller's body may be shorter: the runtime removes a usage that the caller did not request.
"""
_WITHOUT_LOOP = LoopThread()
"""Settles attempts whose own event loop is closed."""


class Exchange(httpx.AsyncByteStream):
    """The answer of one attempt, as a stream for the SDK.

    `on_end` settles the attempt. It is awaited exactly once, after the provider's response is closed.
    """

    def __init__(  # noqa: PLR0913  # the parts of one attempt, and the function that settles it
        self,
        attempt: ModelAttempt,
        span: Span,
        send: Send,
        on_end: Callable[[Exchange], Awaitable[None]],
        *,
        idle: Timeout,
        kept: list[bytes] | None = None,
    ) -> None:
        """Prepare the attempt.

        `idle` limits each read after the first content. A `Timeout` needs half the processor time of `asyncio.timeout`.
        If `kept` is given, the bytes for the caller are also appended to it, for `whole_answer`.
        """
        self.attempt = attempt
        self.content_type = ""
        self._idle = idle
        self._kept = kept
        self.span = span
        self._send = send
        self._on_end = on_end
        self._source: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes]
        self._first = b""
        self._failure: ModelError | None = None
        self._is_over = False
        self._ending: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    def __del__(self) -> None:
        """Close and settle an attempt that was dropped before its answer was read to the end."""
        if self._ending is not None:
            return
        try:
            self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self.aclose()))
        except RuntimeError:  # the loop is closed, and with it the provider's connection
            self.attempt.cancelled()
            with suppress(NoThreadError):  # the process ends
                _WITHOUT_LOOP.start(self._settled())

    async def open(self, prepare: Callable[[ModelAttempt], httpx.Request]) -> httpx.Response:
        """Send the request, and read the answer up to its first content. Raises `ModelError`."""
        attempt = self.attempt
        try:
            attempt.connecting()
            async with asyncio.timeout(attempt.time_left()):
                self._source = source = await self._send(prepare(attempt))
                attempt.opened(source.status_code, lower_case(source.headers))
                await self._read_to_first_content(source)
        except Exception as error:  # noqa: BLE001  # `failed` re-raises a fault of this process, such as a bug
            self._failure = self._failed(error)
        finally:
            if self._failure is not None or not attempt.is_committed:
                await self.aclose()
        if self._failure is not None and not attempt.is_committed:
            raise self._failure
        return await self._response(source)

    async def _read_to_first_content(self, source: httpx.Response) -> None:
        # A proxy may compress an answer although no compression was asked for.
        is_packed = "content-encoding" in source.headers
        self._chunks = source.aiter_bytes() if is_packed else aiter(source.stream)  # type: ignore[arg-type]  # the stream of an asynchronous transport
        async for chunk in self._chunks:
            self._first += self.attempt.received(chunk)
            self._failure = self.attempt.broken()
            if self._failure is not None or self.attempt.is_committed:
                return
        self._first += self.attempt.ended()
        self._is_over = True

    async def _response(self, source: httpx.Response) -> httpx.Response:
        # The raw values, because httpx cannot encode a text that is not ASCII.
        headers = [(name, value) for name, value in source.headers.raw if name.lower() not in NOT_HANDED_ON]
        stream: httpx.AsyncByteStream = self
        self.content_type = source.headers.get("content-type", "")
        self._keep(self._first)
        if self._is_over:
            await self.aclose()
            stream = httpx.ByteStream(self._first)
        return httpx.Response(source.status_code, headers=headers, stream=stream, extensions=_extensions(source))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The bytes for the caller.

        Raises `ModelStreamError` if the answer breaks off, and `httpx.StreamClosed` if another task closes the
        stream.
        """
        try:
            handed_on = self._first
            while True:
                if handed_on:
                    yield handed_on
                if self._failure is not None or self._is_over:
                    break
                handed_on = await self._next()
                self._keep(handed_on)
        finally:
            await self.aclose()
        if self._failure is not None:
            raise self._failure

    async def _next(self) -> bytes:
        attempt = self.attempt
        try:
            left = attempt.time_left()
            if left < self._idle.timer.duration:
                async with asyncio.timeout(left):
                    chunk = await anext(self._chunks, None)
            else:
                chunk = await self._idle.call(anext, self._chunks, None)
            if chunk is None:
                self._is_over = True
                return attempt.ended()
            handed_on = attempt.received(chunk)
            self._failure = attempt.broken()
        except Exception as error:  # noqa: BLE001  # as above
            if self._ending is not None:  # `aclose` ended the read
                raise httpx.StreamClosed from None
            if attempt.is_finished:
                self._is_over = True
            else:
                self._failure = self._failed(error)
            return b""
        return handed_on

    def _keep(self, content: bytes) -> None:
        if self._kept is not None and content:
            self._kept.append(content)

    @property
    def whole_answer(self) -> bytes | None:
        """All bytes for the caller, if `kept` was given. `None` if the caller left before the last byte."""
        answer = b"".join(self._kept or ())
        return answer if self._is_over or answer.rstrip().endswith(DONE) else None

    def _failed(self, error: Exception) -> ModelError:
        """The error for the caller.

        It has no `__context__`, because an httpx error contains the request and its prompt.
        """
        failure = self.attempt.failed(error)
        failure.__cause__ = failure.__context__ = None
        return failure

    async def aclose(self) -> None:
        """Close the provider's response, and settle the attempt once. Both continue if the caller is cancelled."""
        if self._ending is None:
            self.attempt.cancelled()
            self._ending = asyncio.ensure_future(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        try:
            if self._source is not None:
                with suppress(Exception):  # a connection that fails while it closes changes no answer
                    await self._source.aclose()
        finally:
            await self._settled()

    async def _settled(self) -> None:
        await self._on_end(self)


def _extensions(source: httpx.Response) -> dict[str, object]:
    return {name: value for name, value in source.extensions.items() if name in {"http_version", "reason_phrase"}}
