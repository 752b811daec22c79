from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from voice_policies import CircuitBreaker, Duration, Retry
from voice_runtime import CircuitBreaker as Breaker
from voice_runtime import RetriesExhaustedError
from voice_runtime.grpc import Grpc
from voice_runtime.grpc.requests import unsendable
from voice_runtime.grpc.status import answer_to

from tests.runtime.grpc.rag_engine import SERVICE, RagEngine, calls, ended, runtime, serving

TIMES = 3
BREAKER = CircuitBreaker(consecutive_failures=TIMES, count_resource_exhausted=True)
AT_ONCE = Retry(max_retries=1, base_delay=Duration("1ms"), max_delay=Duration("1ms"))


class UnserializableError(Exception):
    pass


def broken(_: object) -> bytes:
    raise UnserializableError


def broken_for_one_request(request: bytes) -> bytes:
    return broken(request) if request == b"broken" else request


def requests(*items: bytes) -> Iterator[bytes]:
    yield from items


async def raising_async_requests(*items: bytes) -> AsyncIterator[bytes]:
    for item in items:
        yield item
    raise UnserializableError


def raising_requests() -> Iterator[bytes]:
    yield b"a"
    raise UnserializableError


Ask = Callable[[Any], Any]
FAULTS: dict[str, tuple[Ask, type[Exception]]] = {
    "metadata value": (lambda stub: stub.answer()(b"x", metadata=(("x-token", "secret\n"),)), Exception),
    "metadata key": (lambda stub: stub.answer()(b"x", metadata=(("X Token", "a"),)), Exception),
    "metadata type": (lambda stub: stub.answer()(b"x", metadata=(("x-token", 1),)), TypeError),
    "request type": (lambda stub: stub.answer()(object()), TypeError),
    "serializer": (lambda stub: stub.answer(broken)(b"x"), UnserializableError),
    "serializer, many answers": (lambda stub: stub.answers(broken)(b"x"), UnserializableError),
    "serializer, many requests": (
        lambda stub: stub.upload(broken_for_one_request)(requests(b"a", b"broken")),
        UnserializableError,
    ),
    "raising iterator": (lambda stub: stub.upload()(raising_requests()), UnserializableError),
    "message too large": (lambda stub: stub.answer()(b"x" * 5_000_000), grpc.RpcError),
}
ASYNCHRONOUS: dict[str, tuple[Ask, type[Exception]]] = {
    "raising asynchronous iterator": (lambda stub: stub.upload()(raising_async_requests(b"a")), UnserializableError),
    "serializer, asynchronous requests": (
        lambda stub: stub.upload(broken_for_one_request)(raising_async_requests(b"a", b"broken")),
        UnserializableError,
    ),
}

UNSENDABLE = {"metadata value": "x-token", "metadata key": "X Token", "metadata type": "x-token"}


class Stub:
    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def answer(self, serializer: Any = None) -> Any:
        return self.channel.unary_unary(f"/{SERVICE}/Context", request_serializer=serializer)

    def answers(self, serializer: Any = None) -> Any:
        return self.channel.unary_stream(f"/{SERVICE}/ListSources", request_serializer=serializer)

    def upload(self, serializer: Any = None) -> Any:
        return self.channel.stream_unary(f"/{SERVICE}/Upload", request_serializer=serializer)


async def finish(made: Any) -> Any:
    return [message async for message in made] if hasattr(made, "__aiter__") else await made


def finish_sync(ask: Ask, stub: Stub) -> Any:
    made = ask(stub)
    return list(made) if hasattr(made, "__next__") else made


def blames_nobody(client: Any) -> bool:
    pipelines = [client.outbound(f"rag-engine.{name}") for name in ("context", "list-sources", "upload")]
    breakers: list[Breaker] = [pipeline.breaker for pipeline in pipelines]
    failed = sum(pipeline.statistics.failed + pipeline.statistics.retries for pipeline in pipelines)
    return failed == 0 and all(breaker.current() == "closed" and breaker.failed == 0 for breaker in breakers)


@pytest.mark.parametrize("fault", FAULTS | ASYNCHRONOUS)
async def test_a_request_that_cannot_be_sent_does_not_count_against_the_callee(tmp_path: Path, fault: str) -> None:
    ask, expected = (FAULTS | ASYNCHRONOUS)[fault]
    servicer = RagEngine()
    async with serving(servicer) as address:
        wire = Grpc(runtime(tmp_path, *calls(circuit_breaker=BREAKER, retry=AT_ONCE)))
        stub = Stub(wire.channel("rag-engine", target=address))
        for _ in range(TIMES):
            with pytest.raises(expected) as refused:
                await finish(ask(stub))
            assert any("a fault of this process, not of the callee" in note for note in refused.value.__notes__)
            if fault in UNSENDABLE:
                text = "\n".join(refused.value.__notes__)
                assert f"metadata that gRPC does not send: {UNSENDABLE[fault]}" in text
                assert "secret" not in text
        assert blames_nobody(wire.runtime)
        assert await stub.answer()(b"tides") == b"tides"
        async with asyncio.timeout(20):  # `close` would wait a minute for a call in flight
            await wire.close()
    assert [name for name, _, _ in servicer.asked if name != "Upload"] == ["Context"], "only the last call was sent"


@pytest.mark.parametrize("fault", FAULTS)
async def test_an_unsent_request_of_a_thread_does_not_count_against_the_callee(tmp_path: Path, fault: str) -> None:
    ask, expected = FAULTS[fault]
    servicer = RagEngine()
    async with serving(servicer) as address:
        wire = Grpc(runtime(tmp_path, *calls(circuit_breaker=BREAKER, retry=AT_ONCE)))
        stub = Stub(wire.sync_channel("rag-engine", target=address))
        for _ in range(TIMES):
            with pytest.raises(expected):
                await asyncio.to_thread(finish_sync, ask, stub)
        assert blames_nobody(wire.runtime)
        assert await asyncio.to_thread(stub.answer(), b"tides") == b"tides"
    assert [name for name, _, _ in servicer.asked if name != "Upload"] == ["Context"]


async def test_a_cancellation_while_requests_are_sent_raises_cancelled_error(tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.sleep(3600)

    async with serving(RagEngine()) as address:
        wire = Grpc(runtime(tmp_path, *calls(circuit_breaker=BREAKER)))
        uploading = asyncio.create_task(ended(Stub(wire.channel("rag-engine", target=address)).upload()(endless())))
        await asyncio.sleep(0.05)
        uploading.cancel()
        assert isinstance(await uploading, asyncio.CancelledError)
        await wire.close()


class Stopping(RagEngine):
    """Cancels the first requests, as gRPC's C core does while a server stops."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def behave(self, name: str, request: Any, context: Any) -> None:
        if len(self.asked) <= self.times:
            await context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")


@pytest.mark.parametrize("synchronous", [False, True], ids=["channel", "sync_channel"])
async def test_an_rpc_that_the_callee_cancelled_is_retried(tmp_path: Path, *, synchronous: bool) -> None:
    servicer = Stopping(1)
    async with serving(servicer) as address:
        wire = Grpc(runtime(tmp_path, *calls(retry=AT_ONCE, circuit_breaker=BREAKER)))
        channel = wire.sync_channel if synchronous else wire.channel
        answer = Stub(channel("rag-engine", target=address)).answer()
        assert await (asyncio.to_thread(answer, b"x") if synchronous else answer(b"x")) == b"x"
        await wire.close()
    assert len(servicer.asked) == 2
    breaker = wire.runtime.outbound("rag-engine.context").breaker
    assert breaker is not None
    assert breaker.failed == 1


async def test_a_non_idempotent_call_is_not_retried_after_the_callee_cancelled_it(tmp_path: Path) -> None:
    servicer = Stopping(9)
    never = AT_ONCE.model_copy(update={"conditions": ("connection_failed",)})
    async with serving(servicer) as address:
        wire = Grpc(runtime(tmp_path, *calls(retry=never, idempotency="never")))
        error = await ended(Stub(wire.channel("rag-engine", target=address)).answer()(b"x"))
        await wire.close()
    assert isinstance(error, grpc.aio.AioRpcError)
    assert len(servicer.asked) == 1


async def test_the_caller_gets_unavailable_if_the_callee_cancelled_the_rpc(tmp_path: Path) -> None:
    async with serving(Stopping(9)) as address:
        wire = Grpc(runtime(tmp_path, *calls(retry=AT_ONCE)))
        error = await ended(Stub(wire.channel("rag-engine", target=address)).answer()(b"x"))
        await wire.close()
    assert isinstance(error, RetriesExhaustedError)
    assert answer_to(error)[0] is grpc.StatusCode.UNAVAILABLE


def test_unsendable_returns_exactly_the_keys_that_grpc_refuses() -> None:
    good = (("x-token", "a b~"), ("x_1.b", b"bytes"), ("x-bin", b"\x00\xff"))
    bad = (("X-Token", "a"), ("x-a", "é"), ("x-b", 1), ("x-c-bin", "text"), ("", "a"), "text", 1, ("x-d", "a", "b"))
    assert unsendable(good) == []
    pair = "an entry that is not a pair"
    assert unsendable(bad) == ["X-Token", "x-a", "x-b", "x-c-bin", "", pair, pair, "x-d"]
    assert unsendable(((), [], ["X-List", "a"])) == [pair, pair, "X-List"]
