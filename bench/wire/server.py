"""The echo server that every row of `bench.wire.table` calls: bare grpc.aio in a separate process."""

from __future__ import annotations

import asyncio
from multiprocessing.queues import Queue
from typing import Any

import grpc

SERVICE = "voice.bench.v1.Echo"
METHOD = f"/{SERVICE}/Call"


async def _echo(request: bytes, _: Any) -> bytes:
    return request


async def _serve(ports: Queue[int]) -> None:
    server = grpc.aio.server()
    handlers: Any = {"Call": grpc.unary_unary_rpc_method_handler(_echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ports.put(port)
    await server.wait_for_termination()


def serve(ports: Queue[int]) -> None:
    """Serve until the process is ended."""
    asyncio.run(_serve(ports))
