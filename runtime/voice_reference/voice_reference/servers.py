"""The servers of a reference service: operations over gRPC and HTTP, probes, metrics."""

from __future__ import annotations

import json
from typing import Any

import grpc
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from voice_runtime import Runtime
from voice_runtime.asgi import Receive, Scope, Send, respond
from voice_runtime.http import last_segment
from voice_runtime.prometheus import RuntimeCollector

from voice_reference.operations import Operations

METRICS_PATH = "/metrics"


class GrpcOperations(grpc.GenericRpcHandler):
    """Accepts any method whose last segment is an operation of the bundle. Messages are JSON: no stubs are needed."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of one RPC. The runtime's interceptor refuses methods that the bundle does not declare."""
        operation = str(handler_call_details.method).rpartition("/")[2]

        async def handle(_: bytes, __: object) -> bytes:
            return json.dumps(await self._operations.run(operation)).encode()

        return grpc.unary_unary_rpc_method_handler(handle)


class HttpOperations:
    """`POST /<operation>` runs an operation, under the middleware's policies; `GET /metrics` shows the metrics."""

    def __init__(self, runtime: Runtime, operations: Operations) -> None:
        self._operations = operations
        self._registry = CollectorRegistry()
        self._registry.register(RuntimeCollector(runtime))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # the body of a request is ignored
        """One request, as ASGI defines it."""
        if scope["type"] != "http":
            return
        if scope["path"] == METRICS_PATH:
            await self._metrics(send)
        elif scope["method"] == "POST":
            await respond(send, 200, await self._operations.run(last_segment(scope)))
        else:
            await respond(send, 405, {"error": "an operation is run by POST"})

    async def _metrics(self, send: Send) -> None:
        headers = [(b"content-type", CONTENT_TYPE_LATEST.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": generate_latest(self._registry)})
