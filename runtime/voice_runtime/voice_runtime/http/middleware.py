"""ASGI middleware that runs inbound HTTP requests under the policies of their operations."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from http import HTTPMethod

from opentelemetry import context, trace

from voice_runtime import trace_context
from voice_runtime.asgi import Application, Message, Receive, Scope, Send
from voice_runtime.clock import NEVER
from voice_runtime.context_variables import restore
from voice_runtime.errors import RateLimitedError, UnknownCallError
from voice_runtime.events import logger
from voice_runtime.http.status import SHOULD_RETRY, StatusError, answer_to, failure_of, show_status
from voice_runtime.http.transport import TIMEOUT
from voice_runtime.inbound import Request, WorkCancelledError, is_being_cancelled
from voice_runtime.outcome import classify, decisive
from voice_runtime.runtime import Runtime

INFRASTRUCTURE = frozenset({"/health", "/ready", "/metrics"})
"""Paths that concern the process, so no policy of an operation applies."""
METHODS = frozenset(HTTPMethod)
"""Known methods. By OpenTelemetry's conventions a span shows every other method as `_OTHER`."""
API_KEY = "x-api-key"
NOT_AGAIN = (SHOULD_RETRY.encode(), b"false")
_NUMBER = re.compile(r"[0-9]+")


def last_segment(scope: Scope) -> str:
    """The operation that a path names: `/v1/agents/run` is `run`."""
    return str(scope["path"]).rstrip("/").rpartition("/")[2]


class Middleware:
    """Wraps an ASGI application.

    WebSockets pass without policies, because they outlive any deadline. Their application calls `runtime.request` for
    each turn of the conversation.
    """

    def __init__(self, app: Application, runtime: Runtime, operation: Callable[[Scope], str] = last_segment) -> None:
        self._app = app
        self._runtime = runtime
        self._operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in INFRASTRUCTURE:
            await self._app(scope, receive, send)
            return
        headers = trace_context.joined(
            (key.decode("latin-1"), value.decode("latin-1")) for key, value in scope["headers"]
        )
        received = trace_context.context_of(headers)
        name = self._operation(scope)
        # Span names become labels of metrics, so they contain only declared operations and known methods.
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        declared = name in self._runtime.assembled.inbound
        span = trace_context.begin_server_span(
            f"{method} {name}" if declared else method, {"http.request.method": method}, received
        )
        token = context.attach(trace.set_span_in_context(span, received))
        exchange = _Exchange(send)
        error: BaseException | None = None
        try:
            await self._serve(scope, receive, exchange, name, headers)
        except BaseException as raised:
            error = raised
            raise
        finally:
            restore(token)
            exchange.end(span, error)

    async def _serve(
        self, scope: Scope, receive: Receive, exchange: _Exchange, name: str, headers: dict[str, str]
    ) -> None:
        try:
            operation = self._runtime.inbound(name)
        except UnknownCallError as error:
            self._runtime.refused_requests["unknown_operation"] += 1
            await exchange.answer(404, str(error), {})
            return
        caller = trace_context.caller_of(context.get_current(), headers.get(API_KEY, ""))
        try:
            async with operation.request(caller, remaining=_seconds(headers.get(TIMEOUT))) as exchange.request:
                await _run(self._app, scope, receive, exchange.send)
                exchange.raise_for_status()
        except StatusError:
            return  # the application has answered
        except Exception as error:
            if exchange.status:
                raise  # the answer has begun, so the server can only close the connection
            status, text, answered = answer_to(error)
            if status == 500:
                logger.error("%s failed", name, exc_info=error)
            exchange.error = error
            await exchange.answer(status, text, answered)


async def _run(app: Application, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await app(scope, receive, send)
    except asyncio.CancelledError as error:
        if is_being_cancelled():
            raise
        raise WorkCancelledError from error  # so that the caller gets an answer, and the request counts as failed


class _Exchange:
    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.error: Exception | None = None
        self.request: Request | None = None

    async def send(self, message: Message) -> None:
        """Send a message of the application.

        If the answer is a failure and a call of this request exhausted its retries, a header asks the caller not to
        retry.
        """
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.request is not None and self.request.retries_spent and failure_of(self.status) is not None:
                message = {**message, "headers": [*message.get("headers", ()), NOT_AGAIN]}
        await self._send(message)

    def raise_for_status(self) -> None:
        """Raise `StatusError` for a status of 400 or above, so that the request's policies see the status."""
        if self.status >= 400:
            raise StatusError(self.status)

    async def answer(self, status: int, text: str, headers: dict[str, str]) -> None:
        pairs = {"content-type": "application/json"} | headers
        encoded = [(key.encode(), value.encode()) for key, value in pairs.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": encoded})
        await self.send({"type": "http.response.body", "body": json.dumps({"error": text}).encode()})

    def end(self, span: trace.Span, error: BaseException | None) -> None:
        """End the span. A caller above its rate limit is not an error of the service."""
        error = error or self.error
        limited = isinstance(error, Exception) and isinstance(decisive(error), RateLimitedError)
        if limited:
            span.set_attribute("http.response.status_code", self.status)
        elif self.status:
            show_status(self.status, span)
        neutral = isinstance(error, Exception) and classify(error) is None and failure_of(self.status) is None
        trace_context.end_span(span, error, failed=not (limited or neutral))


def _seconds(milliseconds: str | None) -> float:
    """The timeout of the header in seconds. Of several timeouts the shortest counts: `500,200` is 0.2 s.

    `NEVER` if the header contains no whole number. A number that is too large counts as infinite.
    """
    given = [part.strip() for part in (milliseconds or "").split(",")]
    return min((float(part) / 1000 for part in given if _NUMBER.fullmatch(part)), default=NEVER)
