from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from voice_policies import Bulkhead, CircuitBreaker, Duration, OutboundCall, Ratio, Retry, RetryBudget, Timeout
from voice_runtime import AttemptTimeoutError, CircuitOpenError, RetriesExhaustedError, Runtime, UnknownCallError
from voice_runtime.grpc import Grpc

from tests.bundles import call
from tests.runtime.grpc.rag_engine import RagEngine, RagEngineStub, calls, eventually, runtime, serving

AT_ONCE = Retry(
    base_delay=Duration("1ms"), max_delay=Duration("1ms"), budget=RetryBudget(ratio=Ratio("100%"), reserve=1000)
)


async def asked(
    directory: Path, servicer: RagEngine, ask: Callable[[Runtime, RagEngineStub], Any], *outbound: OutboundCall
) -> Any:
    async with serving(servicer) as address:
        client = runtime(directory, *outbound)

        def on_a_thread() -> Any:
            with Grpc(client).sync_channel("rag-engine", target=address) as channel:
                return ask(client, RagEngineStub(channel))

        return await asyncio.to_thread(on_a_thread)


class Failing(RagEngine):
    def __init__(self, times: int = 1) -> None:
        super().__init__()
        self.times = times

    async def behave(self, name: str, request: Any, context: Any) -> None:
        if len(self.asked) <= self.times:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "busy")


class Hanging(RagEngine):
    async def behave(self, name: str, request: Any, context: Any) -> None:
        await asyncio.sleep(3600)


async def test_all_four_kinds_of_methods_work_through_an_unchanged_stub(tmp_path: Path) -> None:
    def ask(client: Runtime, stub: RagEngineStub) -> None:
        assert stub.Context(b"tides") == b"tides"
        answer, made = stub.Context.with_call(b"x", timeout=20)
        assert (answer, made.code()) == (b"x", grpc.StatusCode.OK)
        stream = stub.ListSources(b"3")
        assert list(stream) == [b"0", b"1", b"2"]
        assert stream.code() is grpc.StatusCode.OK
        assert list(stub.ListSources(b"0")) == []
        assert stub.Upload(iter([b"a", b"b"])) == b"a,b"
        assert list(stub.Chat(iter([b"a", b"b"]))) == [b"a", b"b"]
        assert client.outbound("rag-engine.list-sources").statistics.successful == 2

    await asked(tmp_path, RagEngine(), ask, *calls(timeout=Timeout(attempt=Duration("30s"), overall=Duration("30s"))))


@pytest.mark.parametrize("streams", [False, True], ids=["answer", "stream"])
async def test_r12_each_retry_sends_the_number_of_earlier_attempts(tmp_path: Path, *, streams: bool) -> None:
    def ask(_: Runtime, stub: RagEngineStub) -> Any:
        return list(stub.ListSources(b"1")) if streams else [stub.Context(b"0")]

    servicer = Failing(2)
    assert await asked(tmp_path, servicer, ask, *calls(retry=AT_ONCE)) == [b"0"]
    assert [metadata.get("grpc-previous-rpc-attempts") for _, metadata, _ in servicer.asked] == [None, "1", "2"]


async def test_r11_streamed_requests_are_never_sent_twice(tmp_path: Path) -> None:
    def ask(_: Runtime, stub: RagEngineStub) -> None:
        with pytest.raises(grpc.RpcError, match="busy"):
            stub.Upload([b"a"])
        with pytest.raises(grpc.RpcError, match="busy"):
            list(stub.Chat([b"a"]))

    servicer = Failing(100)
    await asked(tmp_path, servicer, ask, *calls(retry=AT_ONCE))
    assert len(servicer.asked) == 2


async def test_r11_a_stream_is_not_retried_after_its_first_message(tmp_path: Path) -> None:
    class Breaking(RagEngine):
        async def ListSources(self, request: bytes, context: Any) -> AsyncIterator[bytes]:  # noqa: N802  # as the .proto
            await self._asked("ListSources", request, context)
            yield b"0"
            await context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")

    def ask(_: Runtime, stub: RagEngineStub) -> None:
        stream = stub.ListSources(b"1")
        assert next(stream) == b"0"
        with pytest.raises(grpc.RpcError, match="connection lost"):
            next(stream)

    servicer = Breaking()
    await asked(tmp_path, servicer, ask, *calls(retry=AT_ONCE))
    assert len(servicer.asked) == 1


async def test_reading_the_status_or_metadata_of_a_stream_begins_the_call(tmp_path: Path) -> None:
    class Polite(RagEngine):
        async def behave(self, name: str, request: Any, context: Any) -> None:
            await context.send_initial_metadata((("first", "1"),))
            context.set_trailing_metadata((("last", "2"),))
            if request == b"missing":
                await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")

    def ask(_: Runtime, stub: RagEngineStub) -> None:
        stream = stub.ListSources(b"2")
        assert dict(stream.initial_metadata())["first"] == "1"
        assert list(stream) == [b"0", b"1"]
        assert (stream.code(), stream.details()) == (grpc.StatusCode.OK, "")
        assert dict(stream.trailing_metadata())["last"] == "2"
        empty = stub.ListSources(b"0")
        assert empty.code() is grpc.StatusCode.OK
        assert list(empty) == []
        missing = stub.ListSources(b"missing")
        assert (missing.code(), missing.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing")
        with pytest.raises(grpc.RpcError, match="no such thing"):
            next(missing)

    patient = Timeout(attempt=Duration("30s"), overall=Duration("30s"))
    await asked(tmp_path, Polite(), ask, *calls(timeout=patient))


async def test_a_stream_that_a_policy_refuses_has_a_status_and_no_metadata(tmp_path: Path) -> None:
    def ask(client: Runtime, stub: RagEngineStub) -> None:
        breaker = client.outbound("rag-engine.list-sources").breaker
        assert breaker is not None
        breaker.open()
        stream = stub.ListSources(b"3")
        with pytest.raises(AttributeError, match=r"rag-engine\.list-sources: no attempt of this call was sent"):
            stream.time_remaining()
        assert stream.code() is grpc.StatusCode.UNAVAILABLE
        assert "circuit breaker of rag-engine.list-sources is open" in stream.details()
        assert stream.initial_metadata() == stream.trailing_metadata() == ()
        with pytest.raises(CircuitOpenError):
            next(stream)
        unsent = stub.ListSources(b"3")
        unsent.cancel()
        assert unsent.code() is grpc.StatusCode.CANCELLED

    servicer = RagEngine()
    await asked(tmp_path, servicer, ask, *calls(circuit_breaker=CircuitBreaker()))
    assert servicer.asked == []


async def test_a_stream_that_is_cancelled_or_closed_ends_at_the_callee(tmp_path: Path) -> None:
    class Endless(RagEngine):
        async def ListSources(self, request: bytes, context: Any) -> AsyncIterator[bytes]:  # noqa: N802  # as the .proto
            try:
                while True:
                    yield request
                    await asyncio.sleep(0.01)
            finally:
                self.cancelled += 1

    kept: list[Any] = []

    def ask(client: Runtime, stub: RagEngineStub) -> None:
        for _ in range(2):
            stream = stub.ListSources(b"1")
            assert next(stream) == b"1"
            kept.append(stream)
        assert kept[0].cancel()
        assert not kept[0].cancel()
        with pytest.raises(grpc.RpcError):
            list(kept[0])
        kept[1].close()
        bulkhead = client.outbound("rag-engine.list-sources").bulkhead
        assert bulkhead is not None
        assert bulkhead.in_flight == 0

    servicer = Endless()
    long = Timeout(attempt=Duration("5m"), overall=Duration("5m"))
    async with serving(servicer) as address:
        client = runtime(tmp_path, *calls(timeout=long, bulkhead=Bulkhead(max_concurrent=2)))
        stub = RagEngineStub(Grpc(client).sync_channel("rag-engine", target=address))
        await asyncio.to_thread(ask, client, stub)
        await eventually(lambda: servicer.cancelled == 2)


async def test_a_stream_can_be_closed_while_another_thread_waits_for_a_message(tmp_path: Path) -> None:
    def ask(_: Runtime, stub: RagEngineStub) -> None:
        stream = stub.ListSources(b"1")
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(next, stream)
            while not servicer.asked:
                time.sleep(0.001)
            stream.close()
            with pytest.raises(grpc.RpcError):
                waiting.result()

    servicer = Hanging()
    long = Timeout(attempt=Duration("5m"), overall=Duration("5m"))
    await asked(tmp_path, servicer, ask, *calls(timeout=long))


async def test_a_synchronous_stub_raises_the_errors_of_the_policies(tmp_path: Path) -> None:
    def ask(client: Runtime, stub: RagEngineStub) -> None:
        with pytest.raises(RetriesExhaustedError) as gave_up:
            stub.Context(b"x")
        assert isinstance(gave_up.value.__cause__, grpc.RpcError)
        with pytest.raises(RetriesExhaustedError):
            stub.Context(b"x")
        with pytest.raises(CircuitOpenError):
            stub.Context(b"x")
        assert client.outbound("rag-engine.context").statistics.failed == 8

    breaker = CircuitBreaker(consecutive_failures=8)
    await asked(tmp_path, Failing(100), ask, *calls(retry=AT_ONCE, circuit_breaker=breaker))


@pytest.mark.parametrize("streams", [False, True], ids=["answer", "stream"])
async def test_a_timeout_frees_the_worker_threads(tmp_path: Path, *, streams: bool) -> None:
    short = Timeout(attempt=Duration("200ms"), overall=Duration("5m"))

    def ask(client: Runtime, stub: RagEngineStub) -> None:
        outbound = client.outbound("rag-engine.list-sources" if streams else "rag-engine.context")
        with pytest.raises(RetriesExhaustedError) as gave_up:
            _ = list(stub.ListSources(b"1")) if streams else stub.Context(b"x")
        assert isinstance(gave_up.value.__cause__, AttemptTimeoutError)
        assert outbound.statistics.timeouts == 4
        asyncio.run(eventually(lambda: outbound.workers.idle == outbound.workers.threads))

    await asked(tmp_path, Hanging(), ask, *calls(timeout=short, retry=AT_ONCE))


async def test_a_method_that_the_bundle_does_not_name_and_a_future_are_refused(tmp_path: Path) -> None:
    def ask(_: Runtime, stub: RagEngineStub) -> None:
        with pytest.raises(UnknownCallError, match=r"'rag-engine.upload' matches no outbound call"):
            stub.Upload([b"x"])
        with pytest.raises(NotImplementedError, match="a stub of this channel has no `future`"):
            stub.Context.future(b"x")

    await asked(tmp_path, RagEngine(), ask, call("rag-engine.context"))
