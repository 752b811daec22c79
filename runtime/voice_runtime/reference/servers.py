"""A reference service on the wire: its operations over gRPC and HTTP, its probes, its metrics."""

from __future__ import annotations

import json
from typing import Any

import grpc
from opentelemetry import context, trace
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from voice_runtime import trace_context
from voice_runtime.errors import UnknownCallError, VoiceRuntimeError
from voice_runtime.events import logger
from voice_runtime.health.app import Message, Receive, Send, respond
from voice_runtime.prometheus import RuntimeCollector
from voice_runtime.reference.operations import Operations
from voice_runtime.runtime import Runtime
from voice_runtime.tracing import record_error

METRICS_PATH = "/metrics"
STATUS = {"rate_limit": 429, "bulkhead": 503, "circuit_breaker": 503, "timeout": 504, "deadline": 504}
"""HTTP status of what a policy decided, by the policy; everything else that fails is 502, the callee's fault."""


def answer_to(error: Exception) -> tuple[int, dict[str, Any]]:
    """Status and body for a request that failed. Its text may hold anything, so only the log gets it."""
    if isinstance(error, UnknownCallError):
        return 404, {"error": "no such operation"}
    logger.warning("a request failed", exc_info=error)
    policy = error.policy if isinstance(error, VoiceRuntimeError) else ""
    return STATUS.get(policy, 502), {"error": type(error).__name__}


class GrpcOperations(grpc.GenericRpcHandler):
    """Any method whose last segment is an operation of the bundle. Messages are JSON: no stubs are needed."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of one RPC. The runtime's interceptor refuses what the bundle does not declare."""
        operation = str(handler_call_details.method).rpartition("/")[2]

        async def handle(_: bytes, __: object) -> bytes:
            return json.dumps(await self._operations.run(operation)).encode()

        return grpc.unary_unary_rpc_method_handler(handle)


class HttpOperations:
    """`POST /<operation>` runs an operation, `GET /metrics` shows the metrics of the runtime."""

    def __init__(self, runtime: Runtime, operations: Operations) -> None:
        self._runtime = runtime
        self._operations = operations
        self._registry = CollectorRegistry()
        self._registry.register(RuntimeCollector(runtime))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:  # noqa: ARG002  # a request says nothing
        """One request, as ASGI defines it."""
        if scope["type"] != "http":
            return
        if scope["path"] == METRICS_PATH:
            await self._metrics(send)
        elif scope["method"] == "POST":
            await self._operation(scope, send)
        else:
            await respond(send, 404, {"error": f"nothing is at {scope['path']}"})

    async def _operation(self, scope: Message, send: Send) -> None:
        operation = scope["path"].strip("/")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        received = trace_context.context_of(headers)
        context.attach(received)  # of this request's task, which ends with it
        span = trace_context.begin_server_span(f"POST /{operation}", {"http.request.method": "POST"}, received)
        status, answer = 200, {}
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                async with self._runtime.request(operation, trace_context.caller_of(received)):
                    answer = await self._operations.run(operation)
            except Exception as error:  # noqa: BLE001  # it becomes the status of the answer
                record_error(span, error)
                status, answer = answer_to(error)
            span.set_attribute("http.response.status_code", status)
        await respond(send, status, answer)

    async def _metrics(self, send: Send) -> None:
        headers = [(b"content-type", CONTENT_TYPE_LATEST.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": generate_latest(self._registry)})
