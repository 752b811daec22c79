"""The shared state of a call's attempts, and the metadata of each attempt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from math import isnan
from typing import Any

import grpc
from opentelemetry import context, trace
from opentelemetry.trace import Span

from voice_runtime import trace_context
from voice_runtime.attempt import current_attempt
from voice_runtime.clock import NEVER
from voice_runtime.context_variables import restore
from voice_runtime.deadline import MARGIN, next_hop, remaining
from voice_runtime.grpc.call_state import Ended, Made, Sent, State, Stopped, Waiting
from voice_runtime.grpc.methods import Resolved
from voice_runtime.grpc.requests import AsyncRequests, Requests, unsendable
from voice_runtime.grpc.status import never_sent, status_of, was_never_sent
from voice_runtime.outbound import Outbound
from voice_runtime.outcome import classify
from voice_runtime.timeout import CURRENT, TimedScope, Timeout, current_scope

ATTEMPTS = "grpc-previous-rpc-attempts"
"""Metadata key (gRPC A6) for the number of earlier attempts. The first attempt does not send it."""
WRITTEN: Iterator[Any] = iter(())
"""Placeholder for requests that the caller writes one by one. The placeholder is an iterator, because the pipeline
retries no call that has an iterator among its arguments."""
MADE, WAITING = Made(), Waiting()


class _CallContext:
    """Sets the context for the code inside a call: the call's span, and the `timeout` that the stub's caller gave."""

    __slots__ = ("_context", "_scope", "span")

    def __init__(self, span: Span | None, deadline: TimedScope | None) -> None:
        self.span = span
        self._context = None if span is None else context.attach(trace.set_span_in_context(span))
        self._scope = None if deadline is None else CURRENT.set(deadline)

    def leave(self) -> None:
        """Restore the previous context. A second call does nothing."""
        if self._context is not None:
            restore(self._context)
            self._context = None
        if self._scope is not None:
            restore(self._scope)
            self._scope = None


class Attempts:
    """One call of a stub, with all its attempts.

    Made ──begin──▶ Waiting ──send──▶ Sent ──┐
     │                 │               │ ▲   │ send: the next attempt
     │                 │               │ └───┘
     └─────────────────┴──── stop ─────┴──────▶ Stopped

    every state ──end──▶ Ended
    """

    state: State = MADE
    _requests: Requests | AsyncRequests | None = None
    _sent: asyncio.Future[None] | None = None
    _ended: asyncio.Future[None] | None = None
    _deadline: TimedScope | None = None
    _entered: _CallContext | None = None

    def __init__(self, method: Resolved, timeout: float | None, metadata: Any, options: dict[str, Any]) -> None:
        self.method = method
        self._metadata = tuple(metadata) if metadata else ()
        self._options = options
        if timeout is not None:
            self._deadline = _deadline(method.outbound, timeout)

    def begin(self) -> bool:
        """Claim the call. Only the code that claims it first gets True, and then runs the call."""
        if self.state is not MADE:
            return False
        self.state = WAITING
        return True

    def enter(self) -> None:
        """Begin the span and the deadline of the call. They apply to this task until `leave`."""
        method, span = self.method, None
        if method.is_recorded:
            span = trace_context.begin_client_span(method.path[1:], method.attributes)
        if method.is_internal and (carrier := trace_context.headers(span)):
            self._metadata = (*self._metadata, *carrier.items())
        if span is not None or self._deadline is not None:
            self._entered = _CallContext(span, self._deadline)

    def leave(self) -> None:
        """Restore the previous context. A second call does nothing."""
        if self._entered is not None:
            self._entered.leave()

    def stop(self) -> bool:
        """Cancel the RPC in flight, and send no further RPC. True if the call was still running."""
        state = self.state
        if isinstance(state, Stopped | Ended):
            return False
        self.state = Stopped(state.rpc)
        if state is MADE:
            self.end(asyncio.CancelledError())
        elif state.rpc is not None:
            state.rpc.cancel()
        return True

    def end(self, error: BaseException | None) -> None:
        """End the call and its span, with an answer or an error."""
        self.state = Ended(self.state, error)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        if self._entered is not None:
            self._entered.leave()
            _end_span(self._entered.span, error)

    @property
    def sent(self) -> asyncio.Future[None]:
        """Completes when an attempt has been sent."""
        if self._sent is None:
            self._sent = _future(done=self.state.rpc is not None)
        return self._sent

    @property
    def ended(self) -> asyncio.Future[None]:
        """Completes when the call has ended."""
        if self._ended is None:
            self._ended = _future(done=isinstance(self.state, Ended))
        return self._ended

    @property
    def error(self) -> BaseException | None:
        """The error that ended the call; `None` after an answer."""
        return self.state.error if isinstance(self.state, Ended) else None

    async def unary(self, request: Any) -> Any:
        """Make one attempt of a call with one answer."""
        scope = current_scope()
        rpc = self.send(request, scope, NEVER if scope is None else scope.expires)
        try:
            return await rpc
        except (Exception, asyncio.CancelledError) as error:
            self.raise_explained(error)
            raise

    async def stream(self, request: Any) -> AsyncGenerator[Any, None]:
        """Make one attempt of a call with many answers. The attempt timeout covers the wait for the first message."""
        scope = current_scope()
        rpc = self.send(request, scope, NEVER if scope is None else scope.limit)
        try:
            async for message in rpc:
                yield message
        except (Exception, asyncio.CancelledError) as error:
            self.raise_explained(error)
            raise
        finally:
            rpc.cancel()

    def send(self, request: Any, scope: TimedScope | None, end: float) -> Any:
        """Start the RPC of an attempt."""
        rpc = self.invoke(request, scope, end)
        self.has_sent(rpc)
        return rpc

    def invoke(self, request: Any, scope: TimedScope | None, end: float) -> Any:
        """Start the RPC, and return gRPC's result: the RPC, or for `with_call` the answer and the RPC.

        The caller must then pass the RPC to `has_sent`.
        """
        if self.state.cancelled:
            raise asyncio.CancelledError
        timeout, metadata = None, self._metadata
        if end < NEVER:
            timeout = next_hop(end - self.method.outbound.now())
        if scope is not None and scope.attempt > 1:
            metadata = (*metadata, (ATTEMPTS, str(scope.attempt - 1)))
        try:
            requests = self._serialized(request)
            return self.method.invoke(requests, timeout=timeout, metadata=metadata, **self._options)
        except (grpc.RpcError, grpc.FutureTimeoutError):
            raise
        except Exception as error:
            self._mark_own_fault(error)
            raise

    def _serialized(self, request: Any) -> Any:
        serialize = self.method.serialize
        if request is WRITTEN:
            return None  # the caller writes the messages one by one
        if isinstance(request, AsyncIterator):
            self._requests = AsyncRequests(request, serialize)
        elif isinstance(request, Iterator):
            self._requests = Requests(request, serialize)
        else:
            return serialize(request)
        return self._requests

    def has_sent(self, rpc: Any) -> None:
        """Record `rpc`, the RPC of an attempt that was sent."""
        if isinstance(self.state, Stopped):
            self.state.rpc = rpc
            rpc.cancel()  # another thread stopped the call meanwhile
        else:
            self.state = Sent(rpc)
        if self._sent is not None and not self._sent.done():
            self._sent.set_result(None)

    def raise_explained(self, error: BaseException) -> None:
        """If an error is known that is more exact than gRPC's, raise the more exact error.

        The more exact error is a fault of this process, a timeout of the runtime, or a `NeverSentError`.
        """
        self.raise_own_fault(error)
        scope = current_scope()
        if not isinstance(error, grpc.RpcError):
            return
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and scope is not None and (remaining() or 0) <= 2 * MARGIN:
            raise scope.timeout_error() from error
        if isinstance(error, grpc.aio.AioRpcError) and was_never_sent(error, self.method.channel.get_state()):
            raise never_sent(error) from error

    def raise_own_fault(self, error: BaseException) -> None:
        """If the caller's request iterator or serializer raised an error, raise this error in place of gRPC's.

        Mark the attempt as unsent if the error is a fault of this process.
        """
        task = asyncio.current_task() if isinstance(error, asyncio.CancelledError) else None
        if task is not None and task.cancelling():
            return
        raised = None if self._requests is None else self._requests.error
        if raised is not None:
            self._mark_own_fault(raised)
            raise raised from None
        if isinstance(error, Exception) and not isinstance(error, grpc.RpcError):
            self.state.rpc.cancel()  # without this, closing the channel waits for the call
            self._mark_own_fault(error)

    def _mark_own_fault(self, error: Exception) -> None:
        attempt = current_attempt()
        if attempt is not None:
            attempt.is_unsent = True
        if keys := unsendable(self._metadata):
            error.add_note(f"metadata that gRPC does not send: {', '.join(keys)}")


def _end_span(span: Span | None, error: BaseException | None) -> None:
    if span is not None and span.is_recording():
        code = grpc.StatusCode.OK if error is None else status_of(error)
        span.set_attribute("rpc.grpc.status_code", code.value[0])
        failed = isinstance(error, Exception) and classify(error) is not None
        trace_context.end_span(span, error, failed=failed)


def _future(*, done: bool) -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if done:
        future.set_result(None)
    return future


def _deadline(outbound: Outbound, timeout: float) -> TimedScope:
    """A scope for the `timeout` argument of the stub. It covers all attempts and the waits between them."""
    if isnan(timeout):
        raise ValueError(f"{outbound.name}: timeout must be a number of seconds, not {timeout}")
    parent, now = current_scope(), outbound.now()
    limit = now + timeout if parent is None else min(now + timeout, parent.expires)
    scope = TimedScope(Timeout(outbound.name, NEVER, outbound.clock), parent, limit, now)
    scope.expires = limit
    return scope
