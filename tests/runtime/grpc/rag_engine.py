"""Stub and `add_to_server` work like generated code, with bytes as messages."""

# ruff: noqa: N802  # methods of a servicer are named as in the .proto

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from voice_policies import OutboundCall
from voice_runtime import Runtime
from voice_runtime.grpc import Grpc

from tests.bundles import bundle, call, mount

SERVICE = "voice.rag.v1.RagEngine"
METHODS = {
    "Context": "unary_unary",
    "ListSources": "unary_stream",
    "Upload": "stream_unary",
    "Chat": "stream_stream",
}
OPERATIONS = {"Context": "context", "ListSources": "list-sources", "Upload": "upload", "Chat": "chat"}


class RagEngineStub:
    Context: Any
    ListSources: Any
    Upload: Any
    Chat: Any

    def __init__(self, channel: Any) -> None:
        for name, kind in METHODS.items():
            method = getattr(channel, kind)(
                f"/{SERVICE}/{name}", request_serializer=bytes, response_deserializer=bytes, _registered_method=True
            )
            setattr(self, name, method)


class RagEngine:
    """Records the method, metadata and remaining time of each request."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any], float | None]] = []
        self.cancelled = 0

    async def behave(self, name: str, request: Any, context: Any) -> None:
        """A hook for tests, at the start of each handler."""

    async def _asked(self, name: str, request: Any, context: Any) -> None:
        self.asked.append((name, dict(context.invocation_metadata()), context.time_remaining()))
        try:
            await self.behave(name, request, context)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def Context(self, request: bytes, context: Any) -> bytes:
        await self._asked("Context", request, context)
        return request

    async def ListSources(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        await self._asked("ListSources", request, context)
        for number in range(int(request or b"3")):
            yield b"%d" % number

    async def Upload(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        await self._asked("Upload", b"", context)
        return b",".join([request async for request in requests])

    async def Chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await self._asked("Chat", b"", context)
        async for request in requests:
            yield request


def add_to_server(servicer: RagEngine, server: grpc.aio.Server) -> None:
    handlers = {
        name: getattr(grpc, f"{kind}_rpc_method_handler")(
            getattr(servicer, name), request_deserializer=bytes, response_serializer=bytes
        )
        for name, kind in METHODS.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)


@asynccontextmanager
async def serving(servicer: RagEngine, options: Any = (), port: int = 0) -> AsyncIterator[str]:
    server = grpc.aio.server(options=options)
    add_to_server(servicer, server)
    address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    await server.start()
    try:
        yield address
    finally:
        await server.stop(None)


def calls(**policies: Any) -> tuple[OutboundCall, ...]:
    return tuple(call(f"rag-engine.{operation}", **policies) for operation in OPERATIONS.values())


def runtime(directory: Path, *outbound: OutboundCall, **settings: Any) -> Runtime:
    return Runtime.load(mount(directory, bundle(*(outbound or calls()))), **settings)


@asynccontextmanager
async def wired(
    directory: Path, servicer: RagEngine, *outbound: OutboundCall, options: Any = (), **settings: Any
) -> AsyncIterator[tuple[Grpc, RagEngineStub]]:
    """A stub whose channel applies the policies, connected to a real server."""
    async with serving(servicer, options) as address:
        wire = Grpc(runtime(directory, *outbound, **settings))
        async with wire.channel("rag-engine", target=address) as channel:
            yield wire, RagEngineStub(channel)
        await wire.close()


@asynccontextmanager
async def connected(
    directory: Path, servicer: RagEngine, *outbound: OutboundCall, options: Any = (), **settings: Any
) -> AsyncIterator[tuple[Runtime, RagEngineStub]]:
    async with wired(directory, servicer, *outbound, options=options, **settings) as (wire, stub):
        yield wire.runtime, stub


async def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0.01)


async def ended(awaitable: Awaitable[Any]) -> Any:
    try:
        return await awaitable
    except BaseException as error:  # noqa: BLE001  # it is the result
        return error
