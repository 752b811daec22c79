from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import baggage, context
from voice_policies import CircuitBreaker, Duration, OutboundCall, Timeout
from voice_runtime import DeadlineExceededError, UnknownCallError
from voice_runtime.grpc import Grpc

from tests.bundles import bundle, call, mount
from tests.runtime.grpc.rag_engine import (
    OPERATIONS,
    RagEngine,
    RagEngineStub,
    calls,
    connected,
    ended,
    runtime,
    serving,
    wired,
)


async def numbers() -> AsyncIterator[bytes]:
    for number in range(3):
        yield b"%d" % number


async def test_all_four_kinds_of_methods_work_through_an_unchanged_stub(tmp_path: Path) -> None:
    async with connected(tmp_path, RagEngine()) as (client, stub):
        assert await stub.Context(b"tides") == b"tides"
        assert [message async for message in stub.ListSources(b"3")] == [b"0", b"1", b"2"]
        assert await stub.Upload(numbers()) == b"0,1,2"
        assert await stub.Upload([b"a", b"b"]) == b"a,b"
        assert [message async for message in stub.Chat(numbers())] == [b"0", b"1", b"2"]
        for operation in OPERATIONS.values():
            assert client.outbound(f"rag-engine.{operation}").statistics.successful == (
                2 if operation == "upload" else 1
            )


async def test_streamed_calls_work_through_their_write_and_read_methods(tmp_path: Path) -> None:
    async with connected(tmp_path, RagEngine()) as (client, stub):
        chat = stub.Chat()
        for message in (b"a", b"b"):
            await chat.write(message)
            assert await chat.read() == message
        await chat.done_writing()
        assert await chat.read() is grpc.aio.EOF
        assert await chat.code() is grpc.StatusCode.OK
        upload = stub.Upload()
        await upload.write(b"a")
        await upload.write(b"b")
        await upload.done_writing()
        assert await upload == b"a,b"
        assert client.outbound("rag-engine.upload").statistics.successful == 1


async def test_the_call_object_has_the_callees_metadata_status_and_details(tmp_path: Path) -> None:
    class Polite(RagEngine):
        async def behave(self, name: str, request: Any, context: Any) -> None:
            await context.send_initial_metadata((("first", "1"),))
            context.set_trailing_metadata((("last", "2"),))
            if request == b"missing":
                await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing", (("last", "3"),))

    async with connected(tmp_path, Polite()) as (_, stub):
        answer = stub.Context(b"x")
        assert dict(await answer.initial_metadata())["first"] == "1"
        assert await answer == b"x"
        assert dict(await answer.trailing_metadata())["last"] == "2"
        assert (await answer.code(), await answer.details()) == (grpc.StatusCode.OK, "")
        missing = stub.Context(b"missing")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await missing
        assert refused.value.code() is await missing.code() is grpc.StatusCode.NOT_FOUND
        assert refused.value.details() == await missing.details() == "no such thing"
        assert dict(refused.value.trailing_metadata()) == dict(await missing.trailing_metadata()) == {"last": "3"}
        stream = stub.ListSources(b"2")
        assert dict(await stream.initial_metadata())["first"] == "1"
        assert [message async for message in stream] == [b"0", b"1"]
        assert dict(await stream.trailing_metadata())["last"] == "2"


async def test_calls_begin_before_they_are_awaited(tmp_path: Path) -> None:
    both = asyncio.Event()

    class Meeting(RagEngine):
        async def behave(self, name: str, request: Any, context: Any) -> None:
            if len(self.asked) == 2:
                both.set()
            await both.wait()

    async with connected(tmp_path, Meeting()) as (_, stub):
        first, second = stub.Context(b"1"), stub.Context(b"2")
        assert [await first, await second] == [b"1", b"2"]


async def test_a_method_that_the_bundle_does_not_name_is_refused(tmp_path: Path) -> None:
    async with connected(tmp_path, RagEngine(), call("rag-engine.context")) as (_, stub):
        with pytest.raises(UnknownCallError, match=r"'rag-engine.list-sources' matches no outbound call"):
            stub.ListSources(b"1")
        assert await stub.Context(b"x") == b"x"


async def test_a_channel_named_after_a_call_makes_that_call(tmp_path: Path) -> None:
    purposes = call("rag-engine.context:plan"), call("rag-engine.context:answer")
    async with serving(RagEngine()) as address:
        client = runtime(tmp_path, *purposes)
        wire = Grpc(client)
        async with wire.channel("rag-engine", target=address) as channel:
            with pytest.raises(UnknownCallError, match=r"rag-engine.context:answer, rag-engine.context:plan"):
                RagEngineStub(channel).Context(b"x")
        async with wire.channel("rag-engine.context:plan", target=address) as channel:
            assert await RagEngineStub(channel).Context(b"x") == b"x"
        await wire.close()
        assert client.outbound("rag-engine.context:plan").statistics.successful == 1
        with pytest.raises(UnknownCallError, match="'rag-engin' matches no gRPC callee"):
            wire.channel("rag-engin")


async def test_a_channel_connects_to_the_address_in_the_bundle(tmp_path: Path) -> None:
    wire = Grpc(runtime(tmp_path, call("rag-engine.context", addresses=({"host": "localhost", "port": 1},))))
    async with wire.channel("rag-engine") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match=r"127.0.0.1:1|::1.*:1"):
            await RagEngineStub(channel).Context(b"x")
    await wire.close()


@pytest.mark.parametrize("synchronous", [False, True], ids=["event loop", "threads"])
async def test_a_channel_connects_to_a_changed_address_after_a_reload(tmp_path: Path, *, synchronous: bool) -> None:
    first, second = RagEngine(), RagEngine()
    async with serving(first) as before, serving(second) as after:
        client = runtime(tmp_path, at(before))
        wire = Grpc(client)
        context = RagEngineStub(wire.sync_channel("rag-engine") if synchronous else wire.channel("rag-engine")).Context

        async def ask() -> bytes:
            return await asyncio.to_thread(context, b"x") if synchronous else await context(b"x")

        assert await ask() == b"x"
        mount(tmp_path, bundle(at(after)))
        assert client.reload()
        assert await ask() == b"x"
        mount(tmp_path, bundle(call("elsewhere.context")))
        assert client.reload()
        with pytest.raises(UnknownCallError, match="'rag-engine' matches no gRPC callee"):
            await ask()
        assert (len(first.asked), len(second.asked)) == (1, 1)
        await wire.close()


def at(address: str) -> OutboundCall:
    return call("rag-engine.context", addresses=({"host": "127.0.0.1", "port": int(address.rpartition(":")[2])},))


async def test_a_channel_through_a_proxy_uses_tls_by_default(tmp_path: Path) -> None:
    async with serving(RagEngine()) as proxy:
        addresses = ({"host": "store.example.com", "port": 443, "via": proxy},)
        wire = Grpc(runtime(tmp_path, call("rag-engine.context", addresses=addresses)))
        refused = await ended(RagEngineStub(wire.channel("rag-engine")).Context(b"x"))
        assert isinstance(refused, grpc.aio.AioRpcError)
        assert refused.code() is grpc.StatusCode.UNAVAILABLE
        assert "SSL" in (refused.details() or "")
        assert await RagEngineStub(wire.channel("rag-engine", target=proxy)).Context(b"x") == b"x"
        await wire.close()


async def test_a_closed_channel_refuses_calls(tmp_path: Path) -> None:
    async with wired(tmp_path, RagEngine()) as (wire, stub):
        async with wire.channel("rag-engine") as channel:
            pass
        with pytest.raises(RuntimeError, match="the channel to rag-engine is closed"):
            RagEngineStub(channel).Context(b"x")
        assert await stub.Context(b"x") == b"x"


async def test_the_attempt_timeout_of_a_stream_applies_only_until_its_first_message(tmp_path: Path) -> None:
    class Slow(RagEngine):
        async def ListSources(self, request: bytes, context: Any) -> AsyncIterator[bytes]:  # noqa: N802  # as the .proto
            await self._asked("ListSources", request, context)
            for number in range(4):
                yield b"%d" % number
                await asyncio.sleep(0.2)

    servicer = Slow()
    timeout = Timeout(attempt=Duration("300ms"), overall=Duration("20s"))
    async with connected(tmp_path, servicer, *calls(timeout=timeout)) as (client, stub):
        assert [message async for message in stub.ListSources(b"")] == [b"0", b"1", b"2", b"3"]
        with pytest.raises(DeadlineExceededError):
            assert [message async for message in stub.ListSources(b"", timeout=0.35)]
        statistics = client.outbound("rag-engine.list-sources").statistics
        assert (statistics.successful, statistics.deadlines_exceeded) == (1, 1)
    _, _, left = servicer.asked[0]
    assert 10 < (left or 0) <= 20


async def test_reading_only_the_status_of_a_stream_logs_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(tmp_path, RagEngine(), *calls(circuit_breaker=CircuitBreaker())) as (client, stub):
        breaker = client.outbound("rag-engine.list-sources").breaker
        assert breaker is not None
        breaker.open()
        assert await stub.ListSources(b"3").code() is grpc.StatusCode.UNAVAILABLE
        gc.collect()
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize(
    ("reached", "is_inside"), [({}, True), ({"via": "egress:8443"}, False), ({"tls": True}, False)]
)
async def test_only_a_callee_inside_the_platform_gets_the_baggage(
    tmp_path: Path, reached: dict[str, Any], *, is_inside: bool
) -> None:
    address = {"host": "milvus.example", "port": 19530, **reached}
    client, servicer = runtime(tmp_path, call("rag-engine.context", addresses=(address,))), RagEngine()
    wire, token = Grpc(client), context.attach(baggage.set_baggage("tenant.id", "acme"))
    try:
        async with serving(servicer) as target, wire.channel("rag-engine", target=target) as channel:
            await RagEngineStub(channel).Context(b"tides")
        await wire.close()
    finally:
        context.detach(token)
    ((_, metadata, _),) = servicer.asked
    assert ("baggage" in metadata) is is_inside
