"""The call objects that a stub returns.

They have the interface of `grpc.aio.Call`, but stand for all attempts of a call and not for one RPC.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import aclosing, suppress
from typing import Any

import grpc
from grpc.aio import EOF, Metadata

from voice_runtime.grpc.attempts import Attempts
from voice_runtime.grpc.call_state import Ended, Stopped
from voice_runtime.grpc.methods import Resolved
from voice_runtime.grpc.status import details_of, status_of


class _Call(grpc.aio.Call):
    """The base of both kinds of calls. The last attempt, or the policy that ended the call, sets the status."""

    _task: asyncio.Task[Any] | None = None
    """The task that runs a unary call, fetches the first message of a stream, or closes a cancelled stream.
    `None` if there is no such task."""

    _loop: asyncio.AbstractEventLoop
    _attempts: Attempts

    def _start(self) -> None:
        """Begin the call if it has not begun."""
        raise NotImplementedError

    async def _begun(self) -> Any:
        """Wait until an attempt is sent or the call ends. Returns the latest RPC, or `None` if there was no attempt."""
        self._start()
        attempts = self._attempts
        await asyncio.wait({attempts.ended, attempts.sent}, return_when=asyncio.FIRST_COMPLETED)
        return attempts.state.rpc

    async def _ended(self) -> BaseException | None:
        self._start()
        await asyncio.wait({self._attempts.ended})
        return self._attempts.error

    def time_remaining(self) -> float | None:
        """Seconds left for the current attempt. `None` before the first attempt."""
        rpc = self._attempts.state.rpc
        return None if rpc is None else rpc.time_remaining()

    async def initial_metadata(self) -> Metadata:
        """The callee's initial metadata. Empty if no attempt was sent."""
        rpc = await self._begun()
        return Metadata() if rpc is None else await rpc.initial_metadata()

    async def trailing_metadata(self) -> Metadata:
        """The callee's trailing metadata. Empty if no attempt was sent."""
        await self._ended()
        rpc = self._attempts.state.rpc
        return Metadata() if rpc is None else await rpc.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        """The callee's status, or the status of a policy's error."""
        error = await self._ended()
        return grpc.StatusCode.OK if error is None else status_of(error)

    async def details(self) -> str:
        """The text of the status."""
        return details_of(await self._ended())

    async def wait_for_connection(self) -> None:
        """Wait until the callee has answered for the first time. Raises the call's error."""
        await self.initial_metadata()
        if self._attempts.error is not None:
            raise self._attempts.error

    async def write(self, request: Any) -> None:
        """Wait until the policies admit the call, then send a message. Raises the call's error."""
        await (await self._writable()).write(self._attempts.method.serialize(request))

    async def done_writing(self) -> None:
        """Announce that no message follows."""
        await (await self._writable()).done_writing()

    async def _writable(self) -> Any:
        rpc = await self._begun()
        if rpc is None and self._attempts.error is not None:
            raise self._attempts.error
        return rpc

    def cancel(self) -> bool:
        """Stop the call and release its resources. True if it was still running."""
        if not self._attempts.stop():
            return False
        if self._task is not None:
            self._task.cancel()
        return True

    def cancelled(self) -> bool:
        """True if the client cancelled the call."""
        return self._attempts.state.cancelled

    def done(self) -> bool:
        """True if the call has ended."""
        return isinstance(self._attempts.state, Ended)

    def add_done_callback(self, callback: Any) -> None:
        """Call `callback(call)` when the call ends."""
        self._attempts.ended.add_done_callback(lambda _: callback(self))


class UnaryCall(_Call, grpc.aio.UnaryUnaryCall[Any, Any], grpc.aio.StreamUnaryCall[Any, Any]):
    """A call with one answer.

    If the caller awaits the call before the event loop regains control, the call runs in the caller's task. Otherwise
    the call begins in the next turn of the event loop and in a new task, as in `grpc.aio`.
    """

    _result: Any = None

    def __init__(self, loop: asyncio.AbstractEventLoop, attempts: Attempts, request: Any) -> None:
        self._loop = loop
        self._attempts = attempts
        self._request = request
        self._starting = loop.call_soon(self._start)

    def _start(self) -> None:
        if self._attempts.begin():
            self._starting.cancel()
            self._task = self._loop.create_task(self._run_apart())

    async def _run_apart(self) -> None:
        with suppress(Exception):  # `await call` raises the error, which the call keeps
            await self._run()

    async def _run(self) -> Any:
        attempts = self._attempts
        error: BaseException | None = None
        attempts.enter()
        try:
            self._result = result = await attempts.method.enter(attempts.unary, self._request)
        except BaseException as raised:
            error = raised
            raise
        finally:
            if isinstance(attempts.state, Stopped) and self._task is not None:
                self._task.uncancel()  # `cancel` stops only the call; the caller's task goes on
            attempts.end(error)
        return result

    async def _wait(self) -> Any:
        try:
            await asyncio.wait({self._attempts.ended})
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._attempts.error is not None:
            raise self._attempts.error
        return self._result

    def __await__(self) -> Generator[Any, None, Any]:
        if not self._attempts.begin():
            return self._wait().__await__()
        self._starting.cancel()
        self._task = asyncio.current_task()
        return self._run().__await__()


class StreamCall(_Call, grpc.aio.UnaryStreamCall[Any, Any], grpc.aio.StreamStreamCall[Any, Any]):
    """A call with many answers.

    The call begins at the first iteration, `read` or `write`, or when its status or metadata are read, so an unused
    call costs nothing. It closes when the iteration ends, on `cancel`, or when nothing refers to the call any more.
    """

    _reader: asyncio.Task[Any] | None = None
    """The task that waits for a message. `None` if no task waits, and after `cancel` has cancelled the task."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, attempts: Attempts, request: Any, resolve: Callable[[], Resolved]
    ) -> None:
        self._loop = loop
        self._attempts = attempts
        self._messages = _messages(attempts, request, resolve)

    def _start(self) -> None:
        """Begin to fetch the first message. The first reader gets it."""
        if self._attempts.begin():
            self._task = self._loop.create_task(_next(self._messages))
            self._task.add_done_callback(_seen)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._attempts.state.cancelled:
            raise asyncio.CancelledError
        self._attempts.begin()
        first, self._task = self._task, None
        reader = self._reader = first or asyncio.current_task()
        try:
            return await (first or anext(self._messages))
        finally:
            if self._reader is None and reader is not None and reader is not first:
                reader.uncancel()  # `cancel` stops only the call; the caller's task goes on
            self._reader = None

    async def read(self) -> Any:
        """The next message, or `grpc.aio.EOF`."""
        try:
            return await anext(self)
        except StopAsyncIteration:
            return EOF

    def cancel(self) -> bool:
        """Stop the call and release its resources. True if it was still running."""
        if not super().cancel():
            return False
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
        elif not self._messages.ag_running:  # type: ignore[attr-defined]  # the type of asynchronous generators lacks it
            self._task = self._loop.create_task(_close(self._messages))
        return True


async def _messages(attempts: Attempts, request: Any, resolve: Callable[[], Resolved]) -> AsyncGenerator[Any, None]:
    """The messages of a stream. The generator does not refer to the call, so dropping the call closes the stream."""
    error: BaseException | None = None
    try:
        attempts.method = resolve()  # the stream may begin long after its creation, on another connection
        attempts.enter()
        async with aclosing(attempts.method.outbound.stream(attempts.stream, request)) as messages:
            async for message in messages:
                attempts.leave()  # the consumer's code runs between messages, outside the scope of the attempt
                yield message
    except BaseException as raised:
        error = raised
        raise
    finally:
        attempts.end(error)


async def _next(messages: AsyncGenerator[Any, None]) -> Any:
    return await anext(messages)


def _seen(first: asyncio.Task[Any]) -> None:
    """Read the error of the first message, because asyncio logs an error that nobody reads. A reader still gets it."""
    if not first.cancelled():
        first.exception()


async def _close(messages: AsyncGenerator[Any, None]) -> None:
    await messages.aclose()
