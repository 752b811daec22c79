"""The servers of a reference service: operations over gRPC and HTTP, probes, metrics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import grpc
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from voice_runtime import Runtime, VoiceRuntimeError, dependency_failure
from voice_runtime.asgi import Receive, Scope, Send, respond
from voice_runtime.http import last_segment
from voice_runtime.prometheus import RuntimeCollector

from voice_reference.models import ModelCalls
from voice_reference.operations import Operations

METRICS_PATH = "/metrics"


class GrpcOperations(grpc.GenericRpcHandler):
    """Serves every method whose last segment is an operation of the bundle. Messages are JSON, so no stubs are needed.

    The method of a streamed operation answers with a stream.
    """

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of one RPC. The runtime's interceptor refuses methods that the bundle does not declare."""
        operation = str(handler_call_details.method).rpartition("/")[2]

        async def handle(_: bytes, __: object) -> bytes:
            return json.dumps(await self._operations.run(operation)).encode()

        async def stream(_: bytes, __: object) -> AsyncGenerator[bytes, None]:
            async with aclosing(self._operations.messages(operation)) as messages:
                async for message in messages:
                    yield json.dumps(message).encode()

        if self._operations.is_streamed(operation):
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(handle)


class HttpOperations:
    """`POST /<operation>` runs an operation. `GET /metrics` shows the metrics. The middleware enforces the policies.

    A client that accepts `text/event-stream` gets each message of the operation immediately, as an event. If the
    operation fails after its first message, the answer ends with an event `error`. The event contains the failure class
    if a dependency has failed. If a client that gets events leaves, the operation is cancelled.
    """

    def __init__(self, runtime: Runtime, operations: Operations, models: ModelCalls) -> None:
        self._operations = operations
        self._registry = CollectorRegistry()
        self._registry.register(RuntimeCollector(runtime))
        self._registry.register(models.collector)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI defines it."""
        if scope["type"] != "http":
            return
        if scope["path"] == METRICS_PATH:
            await self._metrics(send)
        elif scope["method"] == "POST" and _accepts_events(scope):
            await self._stream(last_segment(scope), receive, send)
        elif scope["method"] == "POST":
            await respond(send, 200, await self._operations.run(last_segment(scope)))
        else:
            await respond(send, 405, {"error": "use POST to run an operation"})

    async def _stream(self, operation: str, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a server runs each request in a task
        leaving = asyncio.ensure_future(_cancel_when_left(receive, task))
        try:
            await self._send_events(operation, send)
        except asyncio.CancelledError:
            if not leaving.done():
                raise
            task.uncancel()  # the cancellation has done its work: the client has left and needs no answer
        finally:
            leaving.cancel()

    async def _send_events(self, operation: str, send: Send) -> None:
        begun = False
        async with aclosing(self._operations.messages(operation)) as messages:
            try:
                async for message in messages:
                    if not begun:
                        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
                        await send({"type": "http.response.start", "status": 200, "headers": headers})
                        begun = True
                    await _send_event(send, f"data: {json.dumps(message)}")
            except (VoiceRuntimeError, grpc.RpcError) as error:
                if not begun:
                    raise
                await _send_event(send, f"event: error\ndata: {json.dumps(_fault(error))}")
        await send({"type": "http.response.body", "body": b""})

    async def _metrics(self, send: Send) -> None:
        headers = [(b"content-type", CONTENT_TYPE_LATEST.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": generate_latest(self._registry)})


def _accepts_events(scope: Scope) -> bool:
    return any(name == b"accept" and b"text/event-stream" in value for name, value in scope["headers"])


def _fault(error: Exception) -> dict[str, Any]:
    """The error that the client receives: its text, and the class and `retry_after` of a dependency's failure."""
    text = f"{error.policy}: {error.summary}" if isinstance(error, VoiceRuntimeError) else "the callee failed"
    failure = dependency_failure(error)
    return {"error": text} | ({} if failure is None else asdict(failure))


async def _send_event(send: Send, lines: str) -> None:
    await send({"type": "http.response.body", "body": f"{lines}\n\n".encode(), "more_body": True})


async def _cancel_when_left(receive: Receive, task: asyncio.Task[Any]) -> None:
    """Cancel the task of a request when its client has left."""
    while (await receive())["type"] != "http.disconnect":
        """Ignore the parts of the request's body."""
    task.cancel()
