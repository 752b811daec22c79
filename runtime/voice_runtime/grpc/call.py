"""The call objects that a stub gives back: what `grpc.aio` promises of them, over attempts instead of one RPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing
from typing import Any

import grpc
from grpc.aio import EOF, Metadata
from opentelemetry import context, trace

from voice_runtime.deadline import CURRENT
from voice_runtime.errors import RetriesExhaustedError
from voice_runtime.grpc.invocation import Invocation
from voice_runtime.grpc.status import status_of


class _Call(grpc.aio.Call):
    """What all kinds share: the status is that of the last attempt, or of the policy that decided."""

    def __init__(self, invocation: Invocation, requests: tuple[Any, ...]) -> None:
        self._invocation = invocation
        self._requests = requests
        self._error: BaseException | None = None

    async def _begun(self) -> Any:
        """The RPC that is under way, once there is one; `None` if there never was."""
        raise NotImplementedError

    async def _ended(self) -> None:
        """Wait for the end, however it ends."""
        raise NotImplementedError

    def time_remaining(self) -> float | None:
        """Seconds that the present attempt has left."""
        rpc = self._invocation.rpc
        return None if rpc is None else rpc.time_remaining()

    async def initial_metadata(self) -> Metadata:
        """What the callee sent first; empty where it was not asked."""
        rpc = await self._begun()
        return Metadata() if rpc is None else await rpc.initial_metadata()

    async def trailing_metadata(self) -> Metadata:
        """What the callee sent last; empty where it did not answer."""
        await self._ended()
        rpc = self._invocation.rpc
        return Metadata() if rpc is None or not rpc.done() else await rpc.trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        """The status: of the callee, or the one that a policy's decision reads as."""
        await self._ended()
        return grpc.StatusCode.OK if self._error is None else status_of(self._error)

    async def details(self) -> str:
        """What the status says in words."""
        await self._ended()
        error = self._error.__cause__ if isinstance(self._error, RetriesExhaustedError) else self._error
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
        rpc = await self._begun()
        if rpc is None and self._error is not None:
            raise self._error
        return rpc


class UnaryCall(_Call, grpc.aio.UnaryUnaryCall[Any, Any], grpc.aio.StreamUnaryCall[Any, Any]):
    """One answer. It begins when it is made, as those of `grpc.aio` do, in a task of its own."""

    def __init__(self, invocation: Invocation, requests: tuple[Any, ...]) -> None:
        super().__init__(invocation, requests)
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> Any:
        """The answer, or `None` with the error kept: nobody may ask, and an error that nobody saw would be logged."""
        invocation = self._invocation
        span = invocation.begin()
        context.attach(trace.set_span_in_context(span))  # the task's own context, which ends with it
        if invocation.deadline is not None:
            CURRENT.set(invocation.deadline)
        try:
            return await invocation.outbound.enter(invocation.unary, *self._requests)
        except Exception as error:  # noqa: BLE001  # raised to whoever awaits
            self._error = error
        except BaseException as error:
            self._error = error
            raise
        finally:
            invocation.end(self._error)

    def __await__(self) -> Generator[Any, None, Any]:
        result = yield from self._task
        if self._error is not None:
            raise self._error
        return result

    async def _begun(self) -> Any:
        await asyncio.wait((self._task, self._invocation.begun), return_when=asyncio.FIRST_COMPLETED)
        return self._invocation.rpc

    async def _ended(self) -> None:
        await asyncio.wait((self._task,))

    def cancel(self) -> bool:
        """Stop: whatever attempt or wait is under way. Whether there was anything to stop."""
        return self._task.cancel()

    def cancelled(self) -> bool:
        """Whether it was cancelled here."""
        return self._task.cancelled()

    def done(self) -> bool:
        """Whether it has ended."""
        return self._task.done()

    def add_done_callback(self, callback: Any) -> None:
        """Call `callback(call)` at the end."""
        self._task.add_done_callback(lambda _: callback(self))


class StreamCall(_Call, grpc.aio.UnaryStreamCall[Any, Any], grpc.aio.StreamStreamCall[Any, Any]):
    """Many answers. It begins when it is first iterated, read, written or asked: one that is not costs nothing.

    It is as open as its iteration: closed at the end of the stream, by `cancel`, or with the last reference to it.
    """

    def __init__(self, invocation: Invocation, requests: tuple[Any, ...]) -> None:
        super().__init__(invocation, requests)
        self._loop = asyncio.get_running_loop()
        self._messages = self._iterate()
        self._first: asyncio.Task[Any] | None = None
        self._end: asyncio.Future[None] = self._loop.create_future()
        self._cancelled = False

    async def _iterate(self) -> AsyncGenerator[Any, None]:
        invocation = self._invocation
        invocation.begin()
        token = None if invocation.deadline is None else CURRENT.set(invocation.deadline)
        try:
            async with aclosing(invocation.outbound.stream(invocation.stream, *self._requests)) as messages:
                async for message in messages:
                    if token is not None:
                        CURRENT.reset(token)
                        token = None
                    yield message
        except BaseException as error:
            self._error = error
            raise
        finally:
            if token is not None:
                CURRENT.reset(token)
            invocation.end(self._error)
            if not self._end.done():
                self._end.set_result(None)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._cancelled:
            raise asyncio.CancelledError
        if self._first is not None:
            first, self._first = self._first, None
            return await first
        return await anext(self._messages)

    async def read(self) -> Any:
        """The next message, or `grpc.aio.EOF`."""
        try:
            return await anext(self)
        except StopAsyncIteration:
            return EOF

    async def _begun(self) -> Any:
        begun = self._invocation.begun
        if self._first is None and not begun.done():
            self._first = self._loop.create_task(self._advance())
        await asyncio.wait({begun, self._first or begun}, return_when=asyncio.FIRST_COMPLETED)
        return self._invocation.rpc

    async def _advance(self) -> Any:
        return await anext(self._messages)

    async def _ended(self) -> None:
        await asyncio.wait((self._end,))

    def cancel(self) -> bool:
        """Stop, and let go of what it holds. Whether there was anything to stop."""
        if self._end.done() or self._cancelled:
            return False
        self._cancelled = True
        if self._first is not None:
            self._first.cancel()
        self._invocation.cancel(self._messages)
        return True

    def cancelled(self) -> bool:
        """Whether it was cancelled here."""
        return self._cancelled

    def done(self) -> bool:
        """Whether it has ended."""
        return self._end.done()

    def add_done_callback(self, callback: Any) -> None:
        """Call `callback(call)` at the end."""
        self._end.add_done_callback(lambda _: callback(self))
