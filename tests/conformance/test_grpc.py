from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from pydantic import ValidationError
from voice_policies import CircuitBreaker, Duration, OutboundCall, Ratio, Retry, RetryBudget, RetryCondition, Timeout
from voice_runtime import (
    AttemptTimeoutError,
    DeadlineExceededError,
    RetriesExhaustedError,
    Runtime,
    classify,
    remaining,
)
from voice_runtime.grpc import Grpc, connections
from voice_runtime.grpc.connections import CHANNEL_OPTIONS
from voice_runtime.grpc.status import failure_of

from tests.bundles import bundle, call, mount, operation
from tests.driver import settle
from tests.loopback import free_port
from tests.runtime.grpc.rag_engine import (
    RagEngine,
    RagEngineStub,
    calls,
    connected,
    ended,
    eventually,
    runtime,
    serving,
    wired,
)
from tests.runtime.recorded_spans import Spans

GENEROUS = RetryBudget(ratio=Ratio("100%"), reserve=1000)
QUICK = Retry(base_delay=Duration("1ms"), max_delay=Duration("1ms"), budget=GENEROUS)
"""Three retries with almost no wait."""


def retrying(*conditions: RetryCondition, **fields: Any) -> tuple[OutboundCall, ...]:
    retry = QUICK if not conditions else QUICK.model_copy(update={"conditions": conditions})
    return calls(**{"retry": retry} | fields)


class Failing(RagEngine):
    def __init__(
        self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, times: int = 1, details: str = "", trailing: Any = ()
    ) -> None:
        super().__init__()
        self.code, self.times, self.details, self.trailing = code, times, details, trailing

    async def behave(self, name: str, request: Any, context: Any) -> None:
        if len(self.asked) <= self.times:
            await context.abort(self.code, self.details, self.trailing)


class Hanging(RagEngine):
    async def behave(self, name: str, request: Any, context: Any) -> None:
        await asyncio.sleep(3600)


@pytest.mark.parametrize("streams", [False, True], ids=["answer", "stream"])
@pytest.mark.parametrize("by", ["task", "call"])
async def test_g1_a_cancellation_raises_cancelled_error_and_cancels_the_rpc_at_the_callee(
    tmp_path: Path, spans: Spans, by: str, *, streams: bool
) -> None:
    servicer = Hanging()
    async with connected(tmp_path, servicer, *retrying()) as (client, stub):
        made = stub.ListSources(b"1") if streams else stub.Context(b"x")
        task = asyncio.create_task(ended(made.read() if streams else made))
        await eventually(lambda: len(servicer.asked) == 1)
        assert task.cancel() if by == "task" else made.cancel()
        assert isinstance(await task, asyncio.CancelledError)
        await eventually(made.done)
        assert made.cancelled()
        assert await made.code() is grpc.StatusCode.CANCELLED
        await eventually(lambda: servicer.cancelled == 1)
        statistics = client.outbound("rag-engine.list-sources" if streams else "rag-engine.context").statistics
        assert (statistics.cancelled, statistics.failed, statistics.retries) == (1, 0, 0)
    assert len(spans.get_finished_spans()) == 1


async def test_g1_a_call_that_is_not_awaited_begins_and_can_be_cancelled(tmp_path: Path) -> None:
    servicer = Hanging()
    async with connected(tmp_path, servicer) as (_, stub):
        made = stub.Context(b"x")
        finished: list[object] = []
        made.add_done_callback(finished.append)
        await eventually(lambda: len(servicer.asked) == 1)
        assert not made.done()
        assert made.time_remaining() <= 10
        assert made.cancel()
        assert not made.cancel()
        await eventually(lambda: finished == [made])
        unsent = stub.Context(b"y")
        unsent.cancel()
        with pytest.raises(asyncio.CancelledError):
            await unsent
    assert len(servicer.asked) == 1


@pytest.mark.parametrize("method", ["answer", "stream", "begun stream"])
async def test_g1_a_call_that_is_cancelled_in_its_backoff_ends_immediately(tmp_path: Path, method: str) -> None:
    hour = Retry(max_retries=1, base_delay=Duration("1h"), max_delay=Duration("1h"), conditions=("unavailable",))
    limits = Timeout(attempt=Duration("1m"), overall=Duration("3h"))
    servicer = Failing(grpc.StatusCode.UNAVAILABLE, 100)
    made: list[Any] = []

    async def asked() -> bool:
        made.append(stub.Context(b"x") if method == "answer" else stub.ListSources(b"1"))
        code = asyncio.create_task(made[0].code()) if method == "begun stream" else None
        await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await (made[0] if method == "answer" else made[0].read())
        assert code is None or await code is grpc.StatusCode.CANCELLED
        await asyncio.sleep(0)
        task = asyncio.current_task()
        return task is not None and not task.cancelling()

    async with connected(tmp_path, servicer, *calls(retry=hour, timeout=limits)) as (client, stub):
        task = asyncio.create_task(asked())
        name = "rag-engine.context" if method == "answer" else "rag-engine.list-sources"
        await eventually(lambda: client.outbound(name).statistics.retries == 1)
        assert made[0].cancel()
        async with asyncio.timeout(60):
            assert await task
        assert made[0].cancelled()
        assert len(servicer.asked) == 1


async def test_g1_a_failed_call_keeps_the_callees_code_details_and_metadata(tmp_path: Path) -> None:
    servicer = Failing(grpc.StatusCode.UNAVAILABLE, 100, "down for today", (("reason", "holiday"),))
    async with connected(tmp_path, servicer, *retrying()) as (_, stub):
        made = stub.Context(b"x")
        with pytest.raises(RetriesExhaustedError) as gave_up:
            await made
        cause = gave_up.value.__cause__
        assert isinstance(cause, grpc.aio.AioRpcError)
        assert (cause.code(), cause.details()) == (grpc.StatusCode.UNAVAILABLE, "down for today")
        assert (await made.code(), await made.details()) == (grpc.StatusCode.UNAVAILABLE, "down for today")
        assert dict(await made.trailing_metadata()) == dict(cause.trailing_metadata()) == {"reason": "holiday"}
    assert len(servicer.asked) == 4


async def test_g1_a_span_ends_after_an_answer_a_failure_and_an_early_close(tmp_path: Path, spans: Spans) -> None:
    async with connected(tmp_path, Failing(grpc.StatusCode.INTERNAL)) as (_, stub):
        await ended(stub.Context(b"x"))
        await stub.Context(b"x")
        stream = stub.ListSources(b"5")
        async for _message in stream:
            break
        assert len(spans.get_finished_spans()) == 2
        stream.cancel()
        await eventually(lambda: len(spans.get_finished_spans()) == 3)
    failed, answered, closed = spans.get_finished_spans()
    assert [span.status.is_ok for span in (failed, answered, closed)] == [False, True, True]
    assert [code_of(span) for span in (failed, answered, closed)] == [13, 0, 1]
    assert failed.name == "voice.rag.v1.RagEngine/Context"
    assert failed.kind is trace.SpanKind.CLIENT


def code_of(span: ReadableSpan) -> object:
    return (span.attributes or {})["rpc.grpc.status_code"]


async def test_g1_a_dropped_stream_holds_no_slot_and_no_open_span(tmp_path: Path, spans: Spans) -> None:
    async with connected(tmp_path, RagEngine(), *calls(bulkhead={"max_concurrent": 1})) as (client, stub):
        for _ in range(20):
            stub.ListSources(b"1")
        bulkhead = client.outbound("rag-engine.list-sources").bulkhead
        assert bulkhead is not None
        assert (bulkhead.in_flight, len(spans.get_finished_spans())) == (0, 0)
        begun = stub.ListSources(b"1000000")
        assert await begun.read() == b"0"
        assert bulkhead.in_flight == 1
        del begun
        gc.collect()
        await eventually(lambda: bulkhead.in_flight == 0)
        assert [message async for message in stub.ListSources(b"1")] == [b"0"]
    assert len(spans.get_finished_spans()) == 2


async def test_g1_the_callee_continues_the_trace(tmp_path: Path, spans: Spans) -> None:
    servicer = RagEngine()
    async with connected(tmp_path, servicer) as (_, stub):
        await stub.Context(b"x", metadata=(("mine", "1"),))
        assert [message async for message in stub.ListSources(b"1")] == [b"0"]
    for span, (_name, metadata, _left) in zip(spans.get_finished_spans(), servicer.asked, strict=True):
        assert span.context is not None
        assert metadata["traceparent"].split("-")[1:3] == [
            f"{span.context.trace_id:032x}",
            f"{span.context.span_id:016x}",
        ]
    assert servicer.asked[0][1]["mine"] == "1"


async def test_g1_an_external_callee_gets_no_trace_context(tmp_path: Path, spans: Spans) -> None:
    servicer = RagEngine()
    address = {"host": "milvus.example", "port": 19530, "via": "egress-proxy:8443"}
    async with connected(tmp_path, servicer, call("rag-engine.context", addresses=(address,))) as (_, stub):
        await stub.Context(b"x")
    assert "traceparent" not in servicer.asked[0][1]
    assert len(spans.get_finished_spans()) == 1


async def test_g2_a_channel_refuses_calls_from_another_event_loop(tmp_path: Path) -> None:
    async with connected(tmp_path, RagEngine()) as (_, stub):

        async def elsewhere() -> None:
            stub.Context(b"x")

        with pytest.raises(
            RuntimeError, match="rag-engine belongs to another event loop: create a channel in each event loop"
        ):
            await asyncio.to_thread(asyncio.run, elsewhere())


async def test_g2_all_channels_to_a_target_share_one_connection(tmp_path: Path) -> None:
    async with serving(RagEngine()) as address:
        client = runtime(tmp_path)
        wire = Grpc(client)
        channels = [wire.channel("rag-engine", target=address) for _ in range(10)]
        assert len({id(channel.connection(client.assembled).channel) for channel in channels}) == 1
        other = wire.channel("rag-engine", target="127.0.0.1:1")
        assert other.connection(client.assembled) is not channels[0].connection(client.assembled)
        await wire.close()


async def test_g2_a_replaced_connection_closes_after_the_longest_time_of_a_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "CONNECTION_AGE", 0.05)
    free, begun = asyncio.Event(), asyncio.Event()
    peers: list[str] = []

    class Patient(RagEngine):
        async def behave(self, name: str, request: Any, context: Any) -> None:
            peers.append(context.peer())
            if request == b"slow":
                begun.set()
                await free.wait()

    async with serving(Patient()) as address:
        longest = Duration("1s")
        client = runtime(tmp_path, *calls(timeout=Timeout(attempt=longest, overall=longest)))
        wire = Grpc(client)
        async with wire.channel("rag-engine", target=address) as channel:
            stub = RagEngineStub(channel)
            old = channel.connection(client.assembled)
            slow = asyncio.ensure_future(ended(stub.Context(b"slow")))
            await begun.wait()
            await asyncio.sleep(0.06)
            assert await stub.Context(b"quick") == b"quick"
            assert channel.connection(client.assembled) is not old
            assert len(set(peers)) == 2
            free.set()
            assert await slow == b"slow"
            shutdown = grpc.ChannelConnectivity.SHUTDOWN
            await eventually(lambda: old.channel.get_state() is shutdown)
        await wire.close()


async def test_g2_an_attempt_is_retried_after_its_connection_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "CONNECTION_AGE", 0.05)
    free, begun = asyncio.Event(), asyncio.Event()

    class FailingLate(RagEngine):
        async def behave(self, name: str, request: Any, context: Any) -> None:
            if request == b"slow" and not free.is_set():
                begun.set()
                await free.wait()
                await context.abort(grpc.StatusCode.UNAVAILABLE, "try again")

    servicer = FailingLate()
    async with connected(tmp_path, servicer, *retrying("unavailable")) as (_, stub):
        slow = asyncio.ensure_future(ended(stub.Context(b"slow")))
        late = stub.ListSources(b"2")
        await begun.wait()
        await asyncio.sleep(0.06)
        assert await stub.Context(b"quick") == b"quick"
        free.set()
        assert await slow == b"slow"
        assert [message async for message in late] == [b"0", b"1"]
        assert [name for name, _, _ in servicer.asked] == ["Context", "Context", "Context", "ListSources"]


async def test_g2_old_connections_to_unused_targets_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECTION_AGE", 0.05)
    short = Duration("10ms")
    async with serving(RagEngine()) as address:
        client = runtime(tmp_path, *calls(timeout=Timeout(attempt=short, overall=short)))
        wire = Grpc(client)
        once = wire.channel("rag-engine", target="127.0.0.1:1").connection(client.assembled)
        await asyncio.sleep(0.06)
        wire.channel("rag-engine", target=address).connection(client.assembled)
        await eventually(lambda: once.channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN)
        await wire.close()


async def test_g2_calls_are_balanced_round_robin_over_all_replicas(tmp_path: Path) -> None:
    replicas = [RagEngine() for _ in range(2)]
    async with serving(replicas[0]) as first, serving(replicas[1]) as second:
        wire = Grpc(runtime(tmp_path))
        async with wire.channel("rag-engine", target=f"ipv4:{first},{second}") as channel:
            stub = RagEngineStub(channel)
            async with asyncio.timeout(20):
                while not all(replica.asked for replica in replicas):
                    # Until both servers are connected, one server answers all calls.
                    assert await stub.Context(b"x") == b"x"
            before = [len(replica.asked) for replica in replicas]
            for _ in range(10):
                assert await stub.Context(b"x") == b"x"
        assert [len(replica.asked) - count for replica, count in zip(replicas, before, strict=True)] == [5, 5]
        await wire.close()


@pytest.mark.parametrize("synchronous", [False, True], ids=["event loop", "threads"])
async def test_g2_a_new_runtime_does_not_share_the_reconnect_backoff_of_another_runtime(
    tmp_path: Path, *, synchronous: bool
) -> None:
    """When the second runtime connects, the first is in its reconnect backoff."""
    wires = [Grpc(runtime(tmp_path, *retrying())) for _ in range(2)]
    port = free_port()
    for wire in wires:
        async with serving(RagEngine(), port=port) as address:
            if synchronous:
                waiting = RagEngineStub(wire.sync_channel("rag-engine", target=address))
                assert await asyncio.to_thread(waiting.Context, b"x") == b"x"
            else:
                assert await RagEngineStub(wire.channel("rag-engine", target=address)).Context(b"x") == b"x"
        await asyncio.sleep(0.05)  # the connection breaks, and reconnecting fails
    for wire in wires:
        await wire.close()


async def test_g2_closing_waits_for_calls_in_flight(tmp_path: Path) -> None:
    free = asyncio.Event()

    class Patient(RagEngine):
        async def behave(self, name: str, request: Any, context: Any) -> None:
            await free.wait()

    servicer = Patient()
    async with wired(tmp_path, servicer) as (wire, stub):
        made = stub.Context(b"x")
        await eventually(lambda: len(servicer.asked) == 1)
        closing = asyncio.create_task(wire.close())
        await settle()
        assert not closing.done()
        free.set()
        assert await made == b"x"
        await closing


async def test_g2_no_call_fails_when_the_server_sends_goaway(tmp_path: Path) -> None:
    old_age = (("grpc.max_connection_age_ms", 100), ("grpc.max_connection_age_grace_ms", 10_000))
    async with connected(tmp_path, RagEngine(), *retrying(), options=old_age) as (client, stub):
        begun = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() - begun < 1:
            assert await stub.Context(b"x") == b"x"
        assert client.outbound("rag-engine.context").statistics.exhausted["max_retries"] == 0


async def test_g2_calls_reach_a_callee_that_moves_to_its_other_address(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(2)]
    wire = Grpc(runtime(tmp_path, *retrying(timeout=Timeout(attempt=Duration("5s"), overall=Duration("1m")))))
    target = f"ipv4:127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}"
    async with wire.channel("rag-engine", target=target) as channel:
        stub = RagEngineStub(channel)
        for port in ports:
            async with serving(RagEngine(), port=port):
                answer: Any = None
                async with asyncio.timeout(30):
                    while answer != b"x":
                        answer = await ended(stub.Context(b"x"))
            assert isinstance(await ended(stub.Context(b"x")), Exception)
    await wire.close()


def with_shorter_keepalive(options: Any, divisor: int) -> list[tuple[str, Any]]:
    return [(key, value // divisor if key == "grpc.keepalive_time_ms" else value) for key, value in options]


@pytest.mark.parametrize(
    ("interval", "tolerated"), [(None, True), (200_000, False)], ids=["the client's interval", "200 s"]
)
async def test_g3_a_default_server_accepts_the_clients_keepalive_interval_and_refuses_200_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval: int | None, *, tolerated: bool
) -> None:
    # 0 means no limit. Under gRPC's default limit the client sends so few pings that the server refuses none.
    options = dict(CHANNEL_OPTIONS) | {"grpc.http2.max_pings_without_data": 0}
    if interval is not None:
        options["grpc.keepalive_time_ms"] = interval
    # All intervals are divided by 200: 200 s becomes 1 s, the smallest interval that gRPC accepts.
    monkeypatch.setattr(connections, "CHANNEL_OPTIONS", tuple(with_shorter_keepalive(options.items(), 200)))
    default = (("grpc.http2.min_ping_interval_without_data_ms", 300_000 // 200),)
    servicer = Hanging()
    patient = calls(timeout=Timeout(attempt=Duration("7s"), overall=Duration("7s")))
    async with connected(tmp_path, servicer, *patient, options=default) as (_, stub):
        error = await ended(stub.Context(b"x"))
    if tolerated:
        assert isinstance(error, AttemptTimeoutError)
    else:
        assert isinstance(error, grpc.aio.AioRpcError)
        assert error.details() == "Too many pings"


BLAMED = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "DATA_LOSS", "ABORTED", "RESOURCE_EXHAUSTED"}
CANCELLED = {"CANCELLED"}
"""A client counts CANCELLED from its callee as a failure. `failure_of` does not, because servers count their own
answers with `failure_of`, and a handler ends with CANCELLED if the caller has disconnected."""


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name != "OK"], ids=lambda code: code.name)
async def test_g4_the_breaker_counts_only_status_codes_that_blame_the_callee(
    tmp_path: Path, code: grpc.StatusCode
) -> None:
    breaker = CircuitBreaker(consecutive_failures=2)
    async with connected(tmp_path, Failing(code, 100), *calls(circuit_breaker=breaker)) as (client, stub):
        for _ in range(2):
            error = await ended(stub.Context(b"x"))
            assert isinstance(error, grpc.aio.AioRpcError)
            assert error.code() is code
        state = client.outbound("rag-engine.context").breaker
        assert state is not None
        opens = code.name in BLAMED - {"RESOURCE_EXHAUSTED"} | CANCELLED
        assert state.current() == ("open" if opens else "closed")
    assert (failure_of(code) is not None) == (code.name in BLAMED)


async def test_g4_the_breaker_counts_resource_exhausted_if_the_policy_says_so(tmp_path: Path) -> None:
    breaker = CircuitBreaker(consecutive_failures=2, count_resource_exhausted=True)
    servicer = Failing(grpc.StatusCode.RESOURCE_EXHAUSTED, 100)
    async with connected(tmp_path, servicer, *calls(circuit_breaker=breaker)) as (client, stub):
        for _ in range(2):
            await ended(stub.Context(b"x"))
        state = client.outbound("rag-engine.context").breaker
        assert state is not None
        assert state.current() == "open"
        rejected = stub.Context(b"x")
        await ended(rejected)
        assert await rejected.code() is grpc.StatusCode.UNAVAILABLE
        assert "circuit breaker of rag-engine.context is open" in await rejected.details()
    assert len(servicer.asked) == 2


async def test_g5_no_attempt_is_sent_while_another_is_in_flight(tmp_path: Path) -> None:
    servicer = Hanging()
    slow = Timeout(attempt=Duration("30s"), overall=Duration("3m"))
    async with connected(tmp_path, servicer, *calls(retry=QUICK, timeout=slow)) as (_, stub):
        waiting = stub.Context(b"x")
        await eventually(lambda: len(servicer.asked) == 1)
        await asyncio.sleep(0.2)
        assert len(servicer.asked) == 1
        waiting.cancel()


def test_g5_a_bundle_with_a_hedging_policy_is_refused() -> None:
    with pytest.raises(ValidationError, match="hedge"):
        OutboundCall.model_validate({**call("rag-engine.context").model_dump(), "hedge": {"delay": "50ms"}})


async def test_t4_the_callee_gets_the_remaining_time_less_a_margin(tmp_path: Path) -> None:
    servicer = RagEngine()
    second = Timeout(attempt=Duration("1s"), overall=Duration("1m"))  # gRPC sends longer times less exactly
    content = bundle(*calls(timeout=second), inbound=(operation("run", deadline=Duration("500ms")),))
    async with serving(servicer) as address:
        client = Runtime.load(mount(tmp_path, content))
        wire = Grpc(client)
        async with wire.channel("rag-engine", target=address) as channel:
            stub = RagEngineStub(channel)
            await stub.Context(b"attempt")
            await stub.Context(b"given", timeout=0.2)
            async with client.request("run"):
                left = remaining()
                await stub.Context(b"request")
                assert [message async for message in stub.ListSources(b"1")] == [b"0"]
        await wire.close()
    attempt, given, request, stream = (time or 0 for _, _, time in servicer.asked)
    assert 0.5 < attempt <= 0.998  # 1 s − 5 ms (`MARGIN`) + 3 ms: gRPC rounds up, and its clock is coarser
    assert 0 < given <= 0.198
    assert left is not None
    assert 0 < request < left <= 0.5
    assert 0 < stream < left


async def test_t4_nothing_is_sent_after_the_deadline(tmp_path: Path) -> None:
    servicer = RagEngine()
    async with connected(tmp_path, servicer) as (_, stub):
        with pytest.raises(DeadlineExceededError) as over:
            await stub.Context(b"x", timeout=0)
        assert over.value.attempts == 0
        with pytest.raises(DeadlineExceededError):
            await stub.ListSources(b"1", timeout=0).read()
        with pytest.raises(DeadlineExceededError):
            await stub.Upload([b"x"], timeout=-1)
    assert servicer.asked == []


@pytest.mark.parametrize("streams", [False, True], ids=["answer", "stream"])
async def test_t4_a_timeout_raises_the_runtimes_error_and_cancels_the_rpc_at_the_callee(
    tmp_path: Path, *, streams: bool
) -> None:
    short = Timeout(attempt=Duration("100ms"), overall=Duration("1m"))
    servicer = Hanging()
    async with connected(tmp_path, servicer, *calls(timeout=short)) as (client, stub):
        with pytest.raises(AttemptTimeoutError):
            await (stub.ListSources(b"1").read() if streams else stub.Context(b"x"))
        with pytest.raises(DeadlineExceededError):
            await (stub.ListSources(b"1", timeout=0.05).read() if streams else stub.Context(b"x", timeout=0.05))
        name = "rag-engine.list-sources" if streams else "rag-engine.context"
        statistics = client.outbound(name).statistics
        assert (statistics.timeouts, statistics.deadlines_exceeded) == (1, 1)
        # On a busy machine the time may be over before a request arrives.
        await eventually(lambda: servicer.cancelled == len(servicer.asked))


@pytest.mark.parametrize(
    ("pushback", "attempts"),
    [("0", 2), ("40", 2), ("-1", 1), ("soon", 1), ("600000", 1)],
    ids=["no wait", "40 ms", "never", "unreadable", "after the deadline"],
)
async def test_r4_the_callees_pushback_decides_whether_a_call_is_retried(
    tmp_path: Path, pushback: str, attempts: int
) -> None:
    slow = Retry(base_delay=Duration("9s"), max_delay=Duration("9s"), max_retries=1, budget=GENEROUS)
    servicer = Failing(trailing=(("grpc-retry-pushback-ms", pushback),))
    patient = Timeout(attempt=Duration("5s"), overall=Duration("30s"))
    begun = asyncio.get_running_loop().time()
    async with connected(tmp_path, servicer, *calls(retry=slow, timeout=patient)) as (_, stub):
        answer = await ended(stub.Context(b"x"))
    waited = asyncio.get_running_loop().time() - begun
    assert len(servicer.asked) == attempts
    if attempts == 1:
        assert isinstance(answer, RetriesExhaustedError)
        assert answer.reason == ("deadline" if pushback == "600000" else "pushback")
    else:
        assert answer == b"x"
        assert waited >= int(pushback) / 1000


def test_r4_an_unreadable_pushback_forbids_another_attempt() -> None:
    """gRPC's C core reads an unreadable pushback as a negative number. Other implementations may pass on the text."""
    failure = failure_of(grpc.StatusCode.UNAVAILABLE, (("grpc-retry-pushback-ms", "soon"),))
    assert failure is not None
    assert failure.retry_after is not None
    assert failure.retry_after < 0


async def test_r4_resource_exhausted_is_retried_only_with_a_pushback(tmp_path: Path) -> None:
    for trailing, attempts in (((), 1), ((("grpc-retry-pushback-ms", "1"),), 2)):
        servicer = Failing(grpc.StatusCode.RESOURCE_EXHAUSTED, trailing=trailing)
        async with connected(tmp_path, servicer, *retrying("resource_exhausted")) as (_, stub):
            await ended(stub.Context(b"x"))
        assert len(servicer.asked) == attempts


def once_only(**fields: Any) -> tuple[OutboundCall, ...]:
    return retrying("connection_failed", idempotency="never", **fields)


@pytest.mark.parametrize(
    "details",
    ["", "connections to all backends failing; last error: UNKNOWN: ipv4:10.0.0.1:9000: Connection refused"],
    ids=["plain", "about the callee of the callee"],
)
async def test_r5_a_non_idempotent_call_is_not_retried_after_unavailable(tmp_path: Path, details: str) -> None:
    servicer = Failing(details=details)
    async with connected(tmp_path, servicer, *once_only()) as (_, stub):
        error = await ended(stub.Context(b"x"))
    assert isinstance(error, grpc.aio.AioRpcError)
    assert len(servicer.asked) == 1
    assert classify(error) is not None


async def test_r5_a_request_that_was_never_sent_is_retried(tmp_path: Path) -> None:
    wire = Grpc(runtime(tmp_path, *once_only()))
    async with wire.channel("rag-engine", target="127.0.0.1:1") as channel:
        with pytest.raises(RetriesExhaustedError) as gave_up:
            await RagEngineStub(channel).Context(b"x")
        assert gave_up.value.attempts == 4
        cause = gave_up.value.__cause__
        assert isinstance(cause, grpc.aio.AioRpcError)
        failure = classify(cause)
        assert failure is not None
        assert failure.condition == "connection_failed"
    await wire.close()


async def test_r11_a_stream_is_retried_only_before_its_first_message(tmp_path: Path) -> None:
    class Breaking(Failing):
        async def ListSources(self, request: bytes, context: Any) -> AsyncIterator[bytes]:  # noqa: N802  # as the .proto
            await self._asked("ListSources", request, context)
            yield b"0"
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    servicer = Breaking(times=1)
    async with connected(tmp_path, servicer, *retrying()) as (_, stub):
        stream = stub.ListSources(b"1")
        assert await stream.read() == b"0"
        with pytest.raises(grpc.aio.AioRpcError, match="gone"):
            await stream.read()
    assert len(servicer.asked) == 2


async def test_r11_a_call_with_streamed_requests_is_never_retried(tmp_path: Path) -> None:
    servicer = Failing(times=100)
    async with connected(tmp_path, servicer, *retrying()) as (_, stub):
        for made in (stub.Upload([b"a"]), stub.Upload(iter([b"a"])), stub.Chat([b"a"]), stub.Chat()):
            error = await ended(anext(made) if hasattr(made, "__anext__") else made)
            assert isinstance(error, grpc.aio.AioRpcError)
    assert len(servicer.asked) == 4


async def test_r12_the_number_of_earlier_attempts_is_sent_and_grpc_itself_does_not_retry(tmp_path: Path) -> None:
    servicer = Failing(times=100)
    async with connected(tmp_path, servicer, *retrying()) as (_, stub):
        await ended(stub.Context(b"x"))
        await ended(stub.ListSources(b"1").read())
    sent = [metadata.get("grpc-previous-rpc-attempts") for _, metadata, _ in servicer.asked]
    assert sent == [None, "1", "2", "3"] * 2
    assert dict(CHANNEL_OPTIONS)["grpc.enable_retries"] == 0


ASK_AFTER_FORK = """
import asyncio, os, sys
from voice_runtime import Runtime
from voice_runtime.grpc import Grpc

runtime = Runtime.load(sys.argv[1])
wire = Grpc(runtime)

async def ask():
    async with wire.channel("rag-engine", target=sys.argv[2]) as channel:
        answer = await channel.unary_unary("/voice.rag.v1.RagEngine/Context")(b"x")
    await wire.close()
    return 0 if answer == b"x" else 1

workers = []
for _ in range(2):
    worker = os.fork()
    if worker == 0:
        os._exit(asyncio.run(ask()))
    workers.append(worker)
sys.exit(max(os.waitpid(worker, 0)[1] for worker in workers))
"""


async def test_o3_forked_processes_connect_with_the_runtime_of_their_parent(tmp_path: Path) -> None:
    patient = Timeout(attempt=Duration("30s"), overall=Duration("30s"))
    mounted = mount(tmp_path, bundle(*calls(timeout=patient)))
    servicer = RagEngine()
    async with serving(servicer) as address:
        command = [sys.executable, "-c", ASK_AFTER_FORK, str(mounted), address]
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        _, complaints = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, complaints.decode()
    assert len(servicer.asked) == 2
