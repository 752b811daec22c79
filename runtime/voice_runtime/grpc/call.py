"""The call objects that a stub gives back: what `grpc.aio` promises of them, over attempts instead of one RPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing, suppress
from typing import Any

import grpc
from grpc.aio import EOF, Metadata

from voice_runtime.errors import RetriesExhaustedError
from voice_runtime.grpc.attempts import Attempts
from voice_runtime.grpc.status import status_of


class _Call(Attempts, grpc.aio.Call):
    """What all kinds share: the status is that of the last attempt, or of the policy that decided."""

    _running = _done = _cancelled = False
    _error: BaseException | None = None
    _end: asyncio.Future[None] | None = None
    _task: asyncio.Task[Any] | None = None
    """What runs it, where nobody waits for it: a unary call, or a stream up to its first message."""
    _loop: asyncio.AbstractEventLoop

    def _start(self) -> None:
        """Begin without anybody waiting."""
        raise NotImplementedError

    def _finish(self, error: BaseException | None) -> None:
        """It is over: nothing is sent any more."""
        self._done = True
        if error is not None:
            self._error = error
            self._cancelled = self._cancelled or isinstance(error, asyncio.CancelledError)
        self.end(error)
        if self._end is not None and not self._end.done():
            self._end.set_result(None)

    def _ending(self) -> asyncio.Future[None]:
        if self._end is None:
            self._end = self._loop.create_future()
            if self._done:
                self._end.set_result(None)
        return self._end

    async def _sent(self) -> Any:
        """The RPC that is under way, once there is one; `None` if there never was."""
        self._start()
        await asyncio.wait({self._ending(), self.begun}, return_when=asyncio.FIRST_COMPLETED)
        return self.rpc

    async def _ended(self) -> BaseException | None:
        self._start()
        await asyncio.wait({self._ending()})
        return self._error

    def time_remaining(self) -> float | None:
        """Seconds that the present attempt has left."""
        rpc = self.rpc
        return None if rpc is None else rpc.time_remaining()

    async def initial_metadata(self) -> Metadata:
        """What the callee sent first; empty where it was not asked."""
        rpc = await self._sent()
        return Metadata() if rpc is None else await rpc.initial_metadata()

    async def trailing_metadata(self) -> Metadata:
        """What the callee sent last; empty where it did not answer."""
        await self._ended()
        rpc = self.rpc
        return Metadata() if rpc is None else await rpc.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        """The status: of the callee, or the one that a policy's decision reads as."""
        error = await self._ended()
        return grpc.StatusCode.OK if error is None else status_of(error)

    async def details(self) -> str:
        """What the status says in words."""
        error = await self._ended()
        if isinstance(error, RetriesExhaustedError):
            error = error.__cause__
        return (error.details() or "") if isinstance(error, grpc.RpcError) else str(error or "")

    async def wait_for_connection(self) -> None:
        """Wait until the callee has answered for the first time. Raises what the call raises."""
        await self.initial_metadata()
        if self._error is not None:
            raise self._error

    async def write(self, request: Any) -> None:
        """Send a message, once the policies let the call begin. Raises what the call raises."""
        await (await self._writable()).write(request)

    async def done_writing(self) -> None:
        """No message follows."""
        await (await self._writable()).done_writing()

    async def _writable(self) -> Any:
        rpc = await self._sent()
        if rpc is None and self._error is not None:
            raise self._error
        return rpc

    def cancel(self) -> bool:
        """Stop, and let go of what it holds. Whether there was anything to stop."""
        if self._done or self._cancelled:
            return False
        self._cancelled = True
        self.stop()
        if not self._running:
            self._running = True
            self._finish(asyncio.CancelledError())
        elif self._task is not None:
            self._task.cancel()
        return True

    def cancelled(self) -> bool:
        """Whether it was cancelled here."""
        return self._cancelled

    def done(self) -> bool:
        """Whether it has ended."""
        return self._done

    def add_done_callback(self, callback: Any) -> None:
        """Call `callback(call)` at the end."""
        self._ending().add_done_callback(lambda _: callback(self))


class UnaryCall(_Call, grpc.aio.UnaryUnaryCall[Any, Any], grpc.aio.StreamUnaryCall[Any, Any]):
    """One answer.

    It begins in the task that awaits it or, if that does not happen at once, by itself in the loop's next turn: when
    those of `grpc.aio` begin, without a task more than they have.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, request: Any, *given: Any) -> None:
        super().__init__(*given)
        self._loop = loop
        self._request = request
        self._result: Any = None
        self._starting = loop.call_soon(self._start)

    def _start(self) -> None:
        if not self._running:
            self._running = True
            self._starting.cancel()
            self._task = self._loop.create_task(self._run_apart())

    async def _run_apart(self) -> None:
        with suppress(Exception):  # it is kept for who awaits, and nobody may
            await self._run()

    async def _run(self) -> None:
        self.enter()
        error: BaseException | None = None
        try:
            self._result = await self._method.outbound.enter(self.unary, self._request)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.leave()
            self._finish(error)

    def __await__(self) -> Generator[Any, None, Any]:
        if not self._running:
            self._running = True
            self._starting.cancel()
            yield from self._run().__await__()
        elif not self._done:
            try:
                yield from asyncio.wait({self._ending()}).__await__()
            except asyncio.CancelledError:
                self.cancel()
                raise
        if self._error is not None:
            raise self._error
        return self._result


class StreamCall(_Call, grpc.aio.UnaryStreamCall[Any, Any], grpc.aio.StreamStreamCall[Any, Any]):
    """Many answers. It begins when it is first iterated, read, written or asked: one that is not costs nothing.

    It is as open as its iteration: closed at the end of the stream, by `cancel`, or with the last reference to it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, request: Any, *given: Any) -> None:
        super().__init__(*given)
        self._loop = loop
        self._messages = self._iterate(request)

    def _start(self) -> None:
        """Fetch the first message for whoever comes for it."""
        if not self._running:
            self._running = True
            self._task = self._loop.create_task(self._advance())

    async def _advance(self) -> Any:
        return await anext(self._messages)

    async def _iterate(self, request: Any) -> AsyncGenerator[Any, None]:
        self.enter()
        error: BaseException | None = None
        try:
            async with aclosing(self._method.outbound.stream(self.stream, request)) as messages:
                async for message in messages:
                    self.leave()  # what is between messages belongs to the consumer
                    yield message
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.leave()
            self._finish(error)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._cancelled:
            raise asyncio.CancelledError
        self._running = True
        if self._task is not None:
            first, self._task = self._task, None
            return await first
        return await anext(self._messages)

    async def read(self) -> Any:
        """The next message, or `grpc.aio.EOF`."""
        try:
            return await anext(self)
        except StopAsyncIteration:
            return EOF

    def cancel(self) -> bool:
        """Stop, and let go of what it holds. Whether there was anything to stop."""
        if not super().cancel():
            return False
        if not self._messages.ag_running:  # type: ignore[attr-defined]  # the protocol leaves it out
            self._task = self._loop.create_task(self._close())
        return True

    async def _close(self) -> None:
        await self._messages.aclose()
