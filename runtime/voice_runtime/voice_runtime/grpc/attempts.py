"""What the attempts of one call share, and what each of them sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextvars import Token
from typing import Any

import grpc
from opentelemetry import context, trace
from opentelemetry.trace import INVALID_SPAN, Span

from voice_runtime import trace_context
from voice_runtime.clock import NEVER
from voice_runtime.deadline import MARGIN, next_hop, remaining
from voice_runtime.grpc.methods import Resolved
from voice_runtime.grpc.status import never_sent, status_of, was_never_sent
from voice_runtime.outbound import Outbound
from voice_runtime.outcome import classify
from voice_runtime.timeout import CURRENT, TimedScope, Timeout

ATTEMPTS = "grpc-previous-rpc-attempts"
"""Metadata (gRPC A6): how often the request was sent before; left out the first time."""
WRITTEN: Iterator[Any] = iter(())
"""Stands for requests that the caller writes one by one: an iterator, which the pipeline never sends twice."""


class Attempts:
    """A call that a stub made, as often as it is attempted. Defaults stand in the class: most calls need no other."""

    rpc: Any = None
    """The RPC of the last attempt."""
    done = False
    """Whether it is over: nothing is sent any more."""
    cancelled = False
    error: BaseException | None = None
    """How it ended, where that was not with an answer."""
    _stopped = False
    _begun: asyncio.Future[None] | None = None
    _ended: asyncio.Future[None] | None = None
    _deadline: TimedScope | None = None
    _span: Span = INVALID_SPAN
    _context: Token[context.Context] | None = None
    _scope: Token[TimedScope | None] | None = None

    def __init__(self, method: Resolved, timeout: float | None, metadata: Any, options: dict[str, Any]) -> None:
        self.method = method
        self._given = tuple(metadata) if metadata else ()
        self._options = options
        if timeout is not None:
            self._deadline = _deadline(method.outbound, timeout)

    def enter(self) -> None:
        """Begin the span and the stub's own deadline; until `leave` both are what the code inside belongs to."""
        method, span = self.method, None
        if method.is_recorded:
            self._span = span = trace_context.begin_client_span(method.path[1:], method.attributes)
            self._context = context.attach(trace.set_span_in_context(span))
        if method.is_internal and (carrier := trace_context.headers(span)):
            self._given = (*self._given, *carrier.items())
        if self._deadline is not None:
            self._scope = CURRENT.set(self._deadline)

    def leave(self) -> None:
        """Go back to where it began; the second time does nothing."""
        if self._context is not None:
            context.detach(self._context)
            self._context = None
        if self._scope is not None:
            CURRENT.reset(self._scope)
            self._scope = None

    def end(self, error: BaseException | None) -> None:
        """It is over, with an answer or with an error; so is its span."""
        self.done = True
        if self._context is not None or self._scope is not None:
            self.leave()
        if error is not None:
            self.error = error
            self.cancelled = self.cancelled or isinstance(error, asyncio.CancelledError)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        span = self._span
        if span is not INVALID_SPAN and span.is_recording():
            code = grpc.StatusCode.OK if error is None else status_of(error)
            span.set_attribute("rpc.grpc.status_code", code.value[0])
            failed = isinstance(error, Exception) and classify(error) is not None
            trace_context.end_span(span, error, failed=failed)

    @property
    def begun(self) -> asyncio.Future[None]:
        """Done as soon as an attempt was sent."""
        if self._begun is None:
            self._begun = _future(done=self.rpc is not None)
        return self._begun

    @property
    def ended(self) -> asyncio.Future[None]:
        """Done as soon as it is over."""
        if self._ended is None:
            self._ended = _future(done=self.done)
        return self._ended

    async def unary(self, request: Any) -> Any:
        """One attempt for one answer."""
        scope = CURRENT.get()
        rpc = self.send(request, scope, NEVER if scope is None else scope.expires)
        try:
            return await rpc
        except grpc.aio.AioRpcError as error:
            self.raise_explained(error)
            raise

    async def stream(self, request: Any) -> AsyncGenerator[Any, None]:
        """One attempt for many answers. The attempt's own timeout is over with its first message."""
        scope = CURRENT.get()
        rpc = self.send(request, scope, NEVER if scope is None else scope.limit)
        try:
            async for message in rpc:
                yield message
        except grpc.aio.AioRpcError as error:
            self.raise_explained(error)
            raise
        finally:
            rpc.cancel()

    def stop(self) -> None:
        """Cancel the RPC that is under way, and send no other."""
        self.cancelled = self._stopped = True
        if self.rpc is not None:
            self.rpc.cancel()

    def send(self, request: Any, scope: TimedScope | None, end: float) -> Any:
        """Begin the RPC of an attempt."""
        if self._stopped:
            raise asyncio.CancelledError
        timeout, metadata = None, self._given
        if end < NEVER:
            timeout = next_hop(end - self.method.outbound.now())
        if scope is not None and scope.attempt > 1:
            metadata = (*metadata, (ATTEMPTS, str(scope.attempt - 1)))
        request = None if request is WRITTEN else request
        self.rpc = rpc = self.method.invoke(request, timeout=timeout, metadata=metadata, **self._options)
        if self._begun is not None and not self._begun.done():
            self._begun.set_result(None)
        return rpc

    def raise_explained(self, error: grpc.RpcError) -> None:
        """Raise what the error is by our own measure: time that we limited, or a request that never left."""
        scope = CURRENT.get()
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and scope is not None and (remaining() or 0) <= 2 * MARGIN:
            raise scope.timeout_error() from error
        if isinstance(error, grpc.aio.AioRpcError) and was_never_sent(error, self.method.channel.get_state()):
            raise never_sent(error) from error


def _future(*, done: bool) -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if done:
        future.set_result(None)
    return future


def _deadline(outbound: Outbound, timeout: float) -> TimedScope:
    """The stub's own `timeout`, as a scope around every attempt and wait; they end themselves when it is over."""
    parent, now = CURRENT.get(), outbound.now()
    limit = now + timeout if parent is None else min(now + timeout, parent.expires)
    scope = TimedScope(Timeout(outbound.name, NEVER, outbound.clock), parent, limit, now)
    scope.expires = limit
    return scope
