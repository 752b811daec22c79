"""One invocation of a stub's method: what its attempts share, and what each sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import grpc
from opentelemetry.trace import INVALID_SPAN, Span

from voice_runtime import trace_context
from voice_runtime.clock import NEVER
from voice_runtime.deadline import CURRENT, attempt_number, remaining
from voice_runtime.grpc.status import never_sent, status_of, was_never_sent
from voice_runtime.outbound import Outbound
from voice_runtime.outcome import classify
from voice_runtime.timeout import TimedScope, Timeout

MARGIN = 0.005
"""Seconds that the callee gets less than the caller has, for the way back; a tenth of what is left if that is less."""
ATTEMPTS = "grpc-previous-rpc-attempts"
"""Metadata (gRPC A6): how often the request was sent before; left out the first time."""
WRITTEN: Iterator[Any] = iter(())
"""Stands for requests that the caller writes one by one: an iterator, which the pipeline never sends twice."""


class Invocation:
    """An RPC, as often as it is attempted."""

    __slots__ = (
        "_begun",
        "_cancelled",
        "_channel",
        "_closing",
        "_given",
        "_invoke",
        "_is_internal",
        "_options",
        "_path",
        "_span",
        "deadline",
        "outbound",
        "rpc",
    )

    def __init__(  # noqa: PLR0913  # the call, the way there, and what the stub was given
        self,
        outbound: Outbound,
        path: str,
        channel: grpc.aio.Channel,
        invoke: Callable[..., Any],
        *,
        timeout: float | None,
        metadata: Any,
        options: dict[str, Any],
        is_internal: bool,
    ) -> None:
        self.outbound = outbound
        self.rpc: Any = None
        """The RPC of the last attempt."""
        self.deadline = None if timeout is None else _deadline(outbound, timeout)
        self._path = path
        self._channel = channel
        self._invoke = invoke
        self._given = tuple(metadata or ())
        self._options = options
        self._is_internal = is_internal
        self._cancelled = False
        self._begun: asyncio.Future[None] | None = None
        self._span: Span = INVALID_SPAN
        self._closing: asyncio.Task[None] | None = None

    @property
    def begun(self) -> asyncio.Future[None]:
        """Done as soon as an attempt was sent."""
        if self._begun is None:
            self._begun = asyncio.get_running_loop().create_future()
            if self.rpc is not None:
                self._begun.set_result(None)
        return self._begun

    def begin(self) -> Span:
        """Begin the span."""
        service, _, method = self._path[1:].partition("/")
        attributes = {
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": method,
            "voice.call": self.outbound.name,
        }
        self._span = trace_context.begin_client_span(self._path[1:], attributes)
        return self._span

    def end(self, error: BaseException | None) -> None:
        """End the span."""
        if self._span.is_recording():
            code = grpc.StatusCode.OK if error is None else status_of(error)
            self._span.set_attribute("rpc.grpc.status_code", code.value[0])
        failed = isinstance(error, Exception) and classify(error) is not None
        trace_context.end_span(self._span, error, failed=failed)

    async def unary(self, *requests: Any) -> Any:
        """One attempt for one answer."""
        rpc = self._send(requests)
        try:
            return await rpc
        except grpc.aio.AioRpcError as error:
            self._raise_explained(error)
            raise

    async def stream(self, *requests: Any) -> AsyncGenerator[Any, None]:
        """One attempt for many answers."""
        rpc = self._send(requests)
        try:
            async for message in rpc:
                yield message
        except grpc.aio.AioRpcError as error:
            self._raise_explained(error)
            raise
        finally:
            rpc.cancel()

    def cancel(self, messages: AsyncGenerator[Any, None]) -> None:
        """Cancel a stream: the wait for its next message, or, between two messages, the generator that waits."""
        self._cancelled = True
        if not messages.ag_running:  # type: ignore[attr-defined]  # the protocol leaves it out
            self._closing = asyncio.get_running_loop().create_task(messages.aclose())
        elif self.rpc is not None:
            self.rpc.cancel()

    def _send(self, requests: tuple[Any, ...]) -> Any:
        if self._cancelled:
            raise asyncio.CancelledError
        left = remaining()
        timeout = None if left is None else left - min(MARGIN, left / 10)
        if requests[0] is WRITTEN:
            requests = ()
        self.rpc = self._invoke(*requests, timeout=timeout, metadata=self._metadata(), **self._options)
        if self._begun is not None and not self._begun.done():
            self._begun.set_result(None)
        return self.rpc

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        sent = (*self._given, *trace_context.headers(self._span).items()) if self._is_internal else self._given
        number = attempt_number()
        return sent if number <= 1 else (*sent, (ATTEMPTS, str(number - 1)))

    def _raise_explained(self, error: grpc.aio.AioRpcError) -> None:
        """Raise what the error is by our own measure: time that we limited, or a request that never left."""
        scope = CURRENT.get()
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and scope is not None and (remaining() or 0) <= 2 * MARGIN:
            raise scope.timeout_error() from error
        if was_never_sent(error, self._channel.get_state()):
            raise never_sent(error) from error


def _deadline(outbound: Outbound, timeout: float) -> TimedScope:
    """The stub's own `timeout`, as a scope around every attempt and wait; they end themselves when it is over."""
    parent, now = CURRENT.get(), outbound.now()
    limit = now + timeout if parent is None else min(now + timeout, parent.expires)
    scope = TimedScope(Timeout(outbound.name, NEVER, outbound.clock), parent, limit, now)
    scope.expires = limit
    return scope
