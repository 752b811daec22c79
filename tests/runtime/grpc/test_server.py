from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry import baggage, context, propagate, trace
from voice_policies import (
    Bulkhead,
    Degradation,
    DegradedFeature,
    Duration,
    Health,
    InboundOperation,
    Rate,
    RateLimit,
    TokenBucket,
)
from voice_runtime import CircuitOpenError, RetriesExhaustedError, Runtime, current_request, remaining
from voice_runtime.grpc import Grpc
from voice_runtime.health import Health as Readiness
from voice_runtime.metrics import METRICS

from tests.bundles import bundle, mount, operation
from tests.runtime.grpc.rag_engine import (
    OPERATIONS,
    SERVICE,
    RagEngine,
    RagEngineStub,
    add_to_server,
    ended,
    eventually,
)
from tests.runtime.recorded_spans import Spans

HEALTH = Health(drain_duration=Duration("0s"))


def operations(**policies: Any) -> tuple[InboundOperation, ...]:
    return tuple(operation(name, **policies) for name in OPERATIONS.values())


@asynccontextmanager
async def serving_with_policies(
    directory: Path, servicer: RagEngine, *, inbound: tuple[InboundOperation, ...] | None = None, **parts: Any
) -> AsyncIterator[tuple[Runtime, grpc.aio.Channel]]:
    content = bundle(inbound=inbound or operations(), service="rag-engine", **{"health": HEALTH} | parts)
    service = Runtime.load(mount(directory, content))
    server = Grpc(service).server()
    add_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield service, channel
    await server.stop(None)


class Acting(RagEngine):
    def __init__(self, act: Any) -> None:
        super().__init__()
        self.act = act

    async def behave(self, name: str, request: Any, context: Any) -> None:
        result = self.act(request, context)
        if asyncio.iscoroutine(result):
            await result


async def test_baggage_in_several_metadata_entries_is_joined(tmp_path: Path) -> None:
    limit = RateLimit(limit=TokenBucket(rate=Rate("1/h"), burst=1), key="tenant")
    async with serving_with_policies(tmp_path, RagEngine(), inbound=operations(rate_limits=(limit,))) as (_, channel):
        stub, found = RagEngineStub(channel), []
        for tenant in ("acme", "umbrella", "acme"):
            metadata = (("baggage", f"tenant.id={tenant}"), ("baggage", "session=1"))
            found.append(await ended(stub.Context(b"x", metadata=metadata)))
    assert found[:2] == [b"x", b"x"]
    assert found[2].code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_all_four_kinds_of_methods_are_served_and_counted(tmp_path: Path) -> None:
    async with serving_with_policies(tmp_path, RagEngine()) as (service, channel):
        stub = RagEngineStub(channel)
        assert await stub.Context(b"x") == b"x"
        assert [message async for message in stub.ListSources(b"2")] == [b"0", b"1"]
        assert await stub.Upload([b"a", b"b"]) == b"a,b"
        assert [message async for message in stub.Chat([b"a", b"b"])] == [b"a", b"b"]
        for name in OPERATIONS.values():
            assert service.inbound(name).statistics.successful == 1
            assert service.inbound(name).statistics.in_flight == 0


async def test_the_handlers_of_all_four_kinds_of_methods_run_in_the_callers_trace(tmp_path: Path, spans: Spans) -> None:
    seen: list[trace.SpanContext] = []
    servicer = Acting(lambda *_: seen.append(trace.get_current_span().get_span_context()))
    caller = (("traceparent", f"00-{'1' * 32}-{'2' * 16}-01"),)
    async with serving_with_policies(tmp_path, servicer) as (_, channel):
        stub = RagEngineStub(channel)
        await stub.Context(b"x", metadata=caller)
        await stub.Upload([b"a"], metadata=caller)
        for stream in (stub.ListSources(b"2", metadata=caller), stub.Chat([b"a"], metadata=caller)):
            assert [message async for message in stream]
        await eventually(lambda: len(spans.get_finished_spans()) == len(OPERATIONS))
    assert {each.trace_id for each in seen} == {int("1" * 32, 16)}
    assert {each.span_id for each in seen} == {each.context.span_id for each in spans.get_finished_spans()}
    assert {each.parent.span_id for each in spans.get_finished_spans() if each.parent} == {int("2" * 16, 16)}


async def test_a_request_above_the_rate_limit_gets_a_retry_after(tmp_path: Path) -> None:
    limit = RateLimit(limit=TokenBucket(rate=Rate("1/s"), burst=1), key="tenant")
    async with serving_with_policies(tmp_path, RagEngine(), inbound=operations(rate_limits=(limit,))) as (_, channel):
        stub = RagEngineStub(channel)
        carrier: dict[str, str] = {}
        propagate.inject(carrier, baggage.set_baggage("tenant.id", "acme"))
        assert await stub.Context(b"x", metadata=tuple(carrier.items())) == b"x"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Context(b"x", metadata=tuple(carrier.items()))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.value.details() == "rate_limit: the rate limit is reached"
        assert 0 < int(dict(refused.value.trailing_metadata())["grpc-retry-pushback-ms"]) <= 1000
        assert await stub.Context(b"x") == b"x"  # requests without a tenant have a count of their own


async def test_a_full_bulkhead_refuses_a_request(tmp_path: Path) -> None:
    free = asyncio.Event()
    servicer = Acting(lambda *_: free.wait())
    full = Bulkhead(max_concurrent=1, max_queue=0)
    async with serving_with_policies(tmp_path, servicer, inbound=operations(bulkhead=full)) as (_, channel):
        stub = RagEngineStub(channel)
        first = stub.Context(b"1")
        await eventually(lambda: len(servicer.asked) == 1)
        with pytest.raises(grpc.aio.AioRpcError, match="bulkhead: the bulkhead has no free slot"):
            await stub.Context(b"2")
        free.set()
        assert await first == b"1"


async def test_t4_the_shorter_deadline_of_caller_and_operation_becomes_the_deadline_of_the_request(
    tmp_path: Path,
) -> None:
    seen: list[float | None] = []
    async with serving_with_policies(tmp_path, Acting(lambda *_: seen.append(remaining()))) as (_, channel):
        stub = RagEngineStub(channel)
        await stub.Context(b"x", timeout=0.5)
        await stub.Context(b"x")
        await stub.Context(b"x", timeout=60)
    assert seen[0] is not None
    assert 0 < seen[0] <= 0.51  # gRPC's own clock is coarser
    for of_the_operation in seen[1:]:
        assert of_the_operation is not None
        assert 0.5 < of_the_operation <= 20


@pytest.mark.parametrize("streams", [False, True], ids=["answer", "stream"])
async def test_a_handler_is_cancelled_at_the_operations_deadline(tmp_path: Path, *, streams: bool) -> None:
    servicer = Acting(lambda *_: asyncio.sleep(3600))
    short = operations(deadline=Duration("100ms"))
    async with serving_with_policies(tmp_path, servicer, inbound=short) as (service, channel):
        stub = RagEngineStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="deadline: the deadline is exceeded") as ended_by:
            await (stub.ListSources(b"1").read() if streams else stub.Context(b"x"))
        assert ended_by.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert servicer.cancelled == 1
        name = "list-sources" if streams else "context"
        assert service.inbound(name).statistics.deadlines_exceeded == 1


async def test_a_handler_can_read_the_features_of_its_request(tmp_path: Path) -> None:
    feature = DegradedFeature(name="citations", off_at="partial", fallback="no citations")
    seen: list[bool] = []

    def act(*_: Any) -> None:
        request = current_request()
        assert request is not None
        seen.append(request.feature("citations"))

    degradation = Degradation(features=(feature,))
    async with serving_with_policies(tmp_path, Acting(act), degradation=degradation) as (service, channel):
        assert service.degradation is not None
        await RagEngineStub(channel).Context(b"x")
        service.degradation.override("partial")
        await RagEngineStub(channel).Context(b"x")
    assert seen == [True, False]


class OpenTheDoorError(Exception):
    pass


def raising(error: Exception) -> Any:
    def act(*_: Any) -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code", "pushback"),
    [
        (CircuitOpenError("model-adapter", 1.5), grpc.StatusCode.UNAVAILABLE, "1500"),
        (RetriesExhaustedError("model-adapter", None, 2, "max_retries"), grpc.StatusCode.INTERNAL, "-1"),
        (grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, details="10.0.0.1"), grpc.StatusCode.UNAVAILABLE, None),
        (grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, details="10.0.0.1"), grpc.StatusCode.INTERNAL, None),
        (OpenTheDoorError("the password is swordfish"), grpc.StatusCode.INTERNAL, None),
    ],
    ids=["open breaker", "exhausted retries", "unavailable callee", "callee's not found", "unexpected error"],
)
async def test_an_error_becomes_a_status_without_the_errors_text(
    tmp_path: Path, error: Exception, code: grpc.StatusCode, pushback: str | None
) -> None:
    async with serving_with_policies(tmp_path, Acting(raising(error))) as (service, channel):
        answered = await ended(RagEngineStub(channel).Context(b"x"))
        assert answered.code() is code
        assert dict(answered.trailing_metadata()).get("grpc-retry-pushback-ms") == pushback
        assert "swordfish" not in str(answered)
        assert "10.0.0.1" not in str(answered)
        assert service.inbound("context").statistics.failed == 1


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL], ids=["not found", "internal"])
@pytest.mark.parametrize("how", ["aborted", "set", "set as a number"])
async def test_g4_a_status_counts_as_failure_only_if_it_blames_the_service(
    tmp_path: Path, spans: Spans, code: grpc.StatusCode, how: str
) -> None:
    async def act(_: Any, context: Any) -> None:
        if how == "aborted":
            await context.abort(code, "because")
        context.set_code(code if how == "set" else code.value[0])
        context.set_details("because")

    async with serving_with_policies(tmp_path, Acting(act)) as (service, channel):
        with pytest.raises(grpc.aio.AioRpcError) as answered:
            await RagEngineStub(channel).Context(b"x")
        assert (answered.value.code(), answered.value.details()) == (code, "because")
        statistics = service.inbound("context").statistics
        await eventually(
            lambda: statistics.failed + statistics.successful == 1
        )  # the status is sent before the request is counted
        assert (statistics.failed, statistics.successful) == ((1, 0) if code.name == "INTERNAL" else (0, 1))
        await eventually(lambda: bool(spans.get_finished_spans()))
    (span,) = spans.get_finished_spans()
    assert span.status.is_ok == (code.name != "INTERNAL")


async def test_an_operation_that_the_bundle_does_not_declare_is_refused(tmp_path: Path) -> None:
    async with serving_with_policies(tmp_path, RagEngine(), inbound=(operation("context"),)) as (service, channel):
        with pytest.raises(grpc.aio.AioRpcError, match="'upload' matches no inbound operation") as refused:
            await RagEngineStub(channel).Upload([b"x"])
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert service.refused_requests == {"unknown_operation": 1, "draining": 0}


async def test_requests_that_a_draining_server_refuses_are_counted(tmp_path: Path) -> None:
    runtime = Runtime.load(mount(tmp_path, bundle(inbound=operations(), service="rag-engine")))
    server = Grpc(runtime).server()
    add_to_server(RagEngine(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    server._inbound.refusing = True  # noqa: SLF001  # `drain` sets `refusing` half a second before the server stops
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="about to stop"):
            await RagEngineStub(channel).Context(b"x")
    await server.stop(None)
    refused = next(metric for metric in METRICS if metric.name == "voice_requests_refused_total")
    assert dict(refused.read(runtime)) == {("unknown_operation",): 0, ("draining",): 1}


async def test_a_handler_that_awaits_a_cancelled_task_fails_immediately(tmp_path: Path) -> None:
    async def waits(*_: Any) -> None:
        work = asyncio.create_task(asyncio.sleep(3600))
        asyncio.get_running_loop().call_soon(work.cancel)
        await work

    async with serving_with_policies(tmp_path, Acting(waits)) as (service, channel), asyncio.timeout(60):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await RagEngineStub(channel).Context(b"")
        assert failed.value.code() is grpc.StatusCode.INTERNAL
        await eventually(lambda: service.inbound("context").statistics.failed == 1)


async def aborts(_: bytes, servicer: Any) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(servicer.abort(grpc.StatusCode.NOT_FOUND, "no such document"))


async def is_refused(*_: Any) -> None:
    raise ExceptionGroup("tasks", [CircuitOpenError("retrieval-service.search", 3.0)])


async def calls_a_failing_callee(*_: Any) -> None:
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
    raise ExceptionGroup("tasks", [error])


@pytest.mark.parametrize(
    ("act", "code", "text"),
    [
        (aborts, grpc.StatusCode.NOT_FOUND, "no such document"),
        (is_refused, grpc.StatusCode.UNAVAILABLE, "circuit_breaker: the circuit breaker is open"),
        (calls_a_failing_callee, grpc.StatusCode.UNAVAILABLE, "the handler failed"),
    ],
)
async def test_an_error_in_a_task_group_is_answered_like_the_same_error_outside_a_group(
    tmp_path: Path, act: Any, code: grpc.StatusCode, text: str
) -> None:
    async with serving_with_policies(tmp_path, Acting(act)) as (service, channel), asyncio.timeout(60):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await RagEngineStub(channel).Context(b"")
        assert (failed.value.code(), failed.value.details()) == (code, text)
        is_failure = code is not grpc.StatusCode.NOT_FOUND
        await eventually(lambda: service.inbound("context").statistics.failed == is_failure)


async def test_a_request_that_its_caller_cancels_does_not_count_as_a_failure(tmp_path: Path) -> None:
    servicer = Acting(lambda *_: asyncio.sleep(3600))
    async with serving_with_policies(tmp_path, servicer, inbound=operations(deadline=Duration("1h"))) as (
        service,
        channel,
    ):
        call = RagEngineStub(channel).Context(b"x")
        await eventually(lambda: len(servicer.asked) == 1)
        call.cancel()
        statistics = service.inbound("context").statistics
        await eventually(lambda: statistics.cancelled == 1)
        assert (statistics.failed, statistics.in_flight) == (0, 0)


async def test_the_standard_health_service_and_reflection_answer(tmp_path: Path) -> None:
    async with serving_with_policies(tmp_path, RagEngine()) as (_, channel):
        health: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub: Any = reflection_pb2_grpc.ServerReflectionStub
        reflection = stub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = [answer async for answer in reflection.ServerReflectionInfo(iter([request]))]
        listed = {service.name for service in answers[0].list_services_response.service}
        assert listed == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_the_baggage_reaches_the_handler(tmp_path: Path) -> None:
    seen: list[object] = []
    async with serving_with_policies(tmp_path, Acting(lambda *_: seen.append(baggage.get_baggage("tenant.id")))) as (
        _,
        channel,
    ):
        carrier: dict[str, str] = {}
        propagate.inject(carrier, baggage.set_baggage("tenant.id", "acme", context.Context()))
        await RagEngineStub(channel).Context(b"x", metadata=tuple(carrier.items()))
    assert seen == ["acme"]


async def test_health_reports_not_serving_while_readiness_fails(tmp_path: Path) -> None:
    """docs/grpc.md recommends this code."""
    service = Runtime.load(mount(tmp_path, bundle(inbound=operations(), service="rag-engine", health=HEALTH)))
    server, readiness = Grpc(service).server(), Readiness(service)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        seen: list[int] = []
        for draining in (False, True):
            readiness.draining = draining
            ready = (await readiness.readiness()).ready
            status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
            await server.health.set("", status)
            seen.append((await stub.Check(health_pb2.HealthCheckRequest())).status)
    await server.stop(None)
    assert seen == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
