from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from voice_policies import Duration, Retry
from voice_runtime import Runtime, current_request
from voice_runtime.grpc import Grpc

from tests.bundles import bundle, mount, operation
from tests.runtime.grpc.rag_engine import RagEngine, RagEngineStub, add_to_server, calls, runtime, serving

SMALL, LARGE = 2**10, 8 * 2**20
LIMIT = (("grpc.max_receive_message_length", SMALL),)
ROOM = (("grpc.max_receive_message_length", LARGE), ("grpc.max_send_message_length", LARGE))
AT_ONCE = Retry(base_delay=Duration("1ms"), max_delay=Duration("1ms"))


class Stamping(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self) -> None:
        self.seen = 0

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.seen += 1
        metadata = grpc.aio.Metadata(*(details.metadata or ()), ("x-stamp", str(self.seen)))
        return await continuation(details._replace(metadata=metadata), request)


class SyncStamping(grpc.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = [*(details.metadata or ()), ("x-stamp", "sync")]
        return continuation(details._replace(metadata=metadata), request)


class Refusing(RagEngine):
    async def behave(self, name: str, request: Any, context: Any) -> None:
        if len(self.asked) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "busy")


async def test_a_channel_applies_an_option_for_the_message_size(tmp_path: Path) -> None:
    async with serving(RagEngine(), ROOM) as address:
        wire = Grpc(runtime(tmp_path))
        stub = RagEngineStub(wire.channel("rag-engine", target=address, options=LIMIT))
        roomy = RagEngineStub(wire.channel("rag-engine", target=address, options=ROOM))
        with pytest.raises(grpc.aio.AioRpcError, match="larger than max"):
            await stub.Context(b"x" * 2 * SMALL)
        assert len(await roomy.Context(b"x" * 5 * 2**20)) == 5 * 2**20  # above gRPC's default of 4 MiB
        await wire.close()


async def test_an_interceptor_runs_inside_each_attempt(tmp_path: Path) -> None:
    servicer, stamping = Refusing(), Stamping()
    async with serving(servicer) as address:
        wire = Grpc(runtime(tmp_path, *calls(retry=AT_ONCE)))
        stub = RagEngineStub(wire.channel("rag-engine", target=address, interceptors=[stamping]))
        assert await stub.Context(b"tides") == b"tides"
        await wire.close()
    assert [metadata["x-stamp"] for _, metadata, _ in servicer.asked] == ["1", "2"]


async def test_a_synchronous_channel_accepts_options_and_applies_interceptors(tmp_path: Path) -> None:
    servicer = RagEngine()
    async with serving(servicer) as address:
        channel = Grpc(runtime(tmp_path)).sync_channel(
            "rag-engine", target=address, options=LIMIT, interceptors=[SyncStamping()]
        )
        assert await asyncio.to_thread(RagEngineStub(channel).Context, b"tides") == b"tides"
    assert servicer.asked[0][1]["x-stamp"] == "sync"


class Recording(grpc.aio.ServerInterceptor):
    def __init__(self) -> None:
        self.operations: list[str] = []

    async def intercept_service(self, continuation: Callable[..., Any], details: Any) -> Any:
        handler = await continuation(details)
        inner = handler.unary_unary

        async def recorded(request: Any, context: Any) -> Any:
            if (current := current_request()) is not None:
                self.operations.append(current.operation.name)
            return await inner(request, context)

        return grpc.unary_unary_rpc_method_handler(recorded, handler.request_deserializer, handler.response_serializer)


async def test_a_server_applies_options_and_interceptors(tmp_path: Path) -> None:
    recording = Recording()
    wire = Grpc(Runtime.load(mount(tmp_path, bundle(inbound=(operation("context"),)))))
    server = wire.server(options=LIMIT, interceptors=[recording])
    add_to_server(RagEngine(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = RagEngineStub(channel)
        assert await stub.Context(b"tides") == b"tides"
        with pytest.raises(grpc.aio.AioRpcError, match="larger than max"):
            await stub.Context(b"x" * 2 * SMALL)
    await server.stop(None)
    assert recording.operations == ["context"]


async def test_an_option_that_the_runtime_sets_is_refused(tmp_path: Path) -> None:
    wire = Grpc(runtime(tmp_path))
    with pytest.raises(ValueError, match=r"the runtime sets grpc.enable_retries, grpc.lb_policy_name itself"):
        wire.channel("rag-engine", options=[("grpc.lb_policy_name", "pick_first"), ("grpc.enable_retries", 1)])
    with pytest.raises(ValueError, match=r"the runtime sets grpc.so_reuseport itself"):
        wire.server(options=[("grpc.so_reuseport", 1)])
