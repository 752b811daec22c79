from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import baggage
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from voice_policies import (
    Bulkhead,
    Degradation,
    DegradedFeature,
    Duration,
    InboundOperation,
    Rate,
    RateLimit,
    TokenBucket,
)
from voice_runtime import CircuitOpenError, RetriesExhaustedError, Runtime, current_request, remaining
from voice_runtime.http import Http

from tests.bundles import bundle, mount, operation
from tests.runtime.grpc.rag_engine import eventually
from tests.runtime.http.servers import serving


class Agent:
    def __init__(self, act: Any = lambda: None, status: int = 200) -> None:
        self.act = act
        self.status = status
        self.asked = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        result = self.act()
        if asyncio.iscoroutine(result):
            await result
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


@asynccontextmanager
async def serving_with_policies(
    directory: Path, app: Any, *inbound: InboundOperation, **parts: Any
) -> AsyncIterator[tuple[Runtime, httpx.AsyncClient]]:
    service = Runtime.load(mount(directory, bundle(inbound=inbound or (operation("run"),), **parts)))
    async with serving(Http(service).middleware(app)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield service, client


async def test_a_request_is_served_and_counted(tmp_path: Path) -> None:
    async with serving_with_policies(tmp_path, Agent()) as (service, client):
        answer = await client.post("/v1/agents/run")
        assert (answer.status_code, answer.text) == (200, "done")
        statistics = service.inbound("run").statistics
        assert (statistics.successful, statistics.in_flight) == (1, 0)


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
async def test_no_policy_applies_to_health_ready_and_metrics(tmp_path: Path, path: str) -> None:
    async with serving_with_policies(tmp_path, Agent()) as (_, client):
        assert (await client.get(path)).text == "done"


async def test_an_operation_that_the_bundle_does_not_declare_is_refused(tmp_path: Path) -> None:
    app = Agent()
    async with serving_with_policies(tmp_path, app) as (service, client):
        answer = await client.post("/v1/agents/walk")
        assert answer.status_code == 404
        assert service.refused_requests == {"unknown_operation": 1, "draining": 0}
        assert answer.json() == {
            "error": "'walk' matches no inbound operation of the bundle, or more than one; declared: run"
        }
    assert app.asked == 0


async def test_the_name_of_a_span_contains_only_known_methods_and_declared_operations(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    async with serving_with_policies(tmp_path, Agent()) as (_, client):
        for method, path in (("POST", "/v1/run"), ("GET", "/wp-login.php"), ("BREW", "/run"), ("BREW", "/coffee")):
            await client.request(method, path)
    assert [span.name for span in spans.get_finished_spans()] == ["POST run", "GET", "_OTHER run", "_OTHER"]
    assert {(span.attributes or {})["http.request.method"] for span in spans.get_finished_spans()} == {
        "POST",
        "GET",
        "_OTHER",
    }


async def test_a_request_above_the_rate_limit_gets_a_retry_after(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    limit = RateLimit(limit=TokenBucket(rate=Rate("1/m"), burst=1), key="tenant")
    async with serving_with_policies(tmp_path, Agent(), operation("run", rate_limits=(limit,))) as (_, client):
        acme = {"baggage": "tenant.id=acme"}
        assert (await client.post("/run", headers=acme)).status_code == 200
        refused = await client.post("/run", headers=acme)
        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= 60
        assert refused.json() == {"error": "rate_limit: the rate limit is reached"}
        assert (await client.post("/run")).status_code == 200
    assert all(span.status.is_ok for span in spans.get_finished_spans())


async def test_a_full_bulkhead_refuses_a_request(tmp_path: Path) -> None:
    free = asyncio.Event()
    app = Agent(free.wait)
    full = operation("run", bulkhead=Bulkhead(max_concurrent=1, max_queue=0))
    async with serving_with_policies(tmp_path, app, full) as (_, client):
        first = asyncio.create_task(client.post("/run"))
        await eventually(lambda: app.asked == 1)
        assert (await client.post("/run")).status_code == 503
        free.set()
        assert (await first).status_code == 200


async def test_t4_the_timeout_header_becomes_the_deadline_of_the_request_unless_it_is_unusable(tmp_path: Path) -> None:
    seen: list[float | None] = []
    async with serving_with_policies(tmp_path, Agent(lambda: seen.append(remaining()))) as (_, client):
        await client.post("/run", headers={"x-envoy-expected-rq-timeout-ms": "500"})
        for unusable in ("never", "-1", "9" * 400, "9" * 5_000):
            assert (await client.post("/run", headers={"x-envoy-expected-rq-timeout-ms": unusable})).status_code == 200
    given, *without = seen
    assert 0 < (given or 0) <= 0.5
    assert all(1 < (left or 0) <= 20 for left in without)
    assert len(without) == 4


async def test_an_http_handler_is_cancelled_at_its_deadline(tmp_path: Path) -> None:
    short = operation("run", deadline=Duration("100ms"))
    async with serving_with_policies(tmp_path, Agent(lambda: asyncio.sleep(3600)), short) as (service, client):
        answer = await client.post("/run")
        assert (answer.status_code, answer.json()) == (504, {"error": "deadline: the deadline is exceeded"})
        assert service.inbound("run").statistics.deadlines_exceeded == 1


def raising(error: Exception) -> Any:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "status", "text", "retry_after"),
    [
        (CircuitOpenError("model-adapter", 1.5), 503, "circuit_breaker: the circuit breaker is open", "2"),
        (RetriesExhaustedError("model-adapter", 3.0, 2, "max_retries"), 500, "retry: gave up", None),
        (ValueError("the password is swordfish"), 500, "internal error", None),
    ],
    ids=["open breaker", "exhausted retries", "unexpected error"],
)
async def test_an_error_becomes_a_status_without_the_errors_text(  # noqa: PLR0913, PLR0917  # the parts of an answer
    tmp_path: Path, spans: InMemorySpanExporter, error: Exception, status: int, text: str, retry_after: str | None
) -> None:
    async with serving_with_policies(tmp_path, Agent(raising(error))) as (service, client):
        answer = await client.post("/run")
        assert (answer.status_code, answer.json()) == (status, {"error": text})
        assert answer.headers.get("retry-after") == retry_after
        assert service.inbound("run").statistics.failed == 1
    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.events[0].name == "exception"


@pytest.mark.parametrize(
    ("status", "failed"),
    [(404, 0), (429, 1), (500, 1), (503, 1)],
    ids=["not found", "too many requests", "internal server error", "service unavailable"],
)
async def test_an_error_status_counts_as_failure_only_if_it_blames_the_service(
    tmp_path: Path, spans: InMemorySpanExporter, status: int, failed: int
) -> None:
    async with serving_with_policies(tmp_path, Agent(status=status)) as (service, client):
        assert (await client.post("/run")).status_code == status
        assert service.inbound("run").statistics.failed == failed
    (span,) = spans.get_finished_spans()
    assert span.status.is_ok == (not failed)


async def test_an_answer_that_breaks_off_closes_the_connection(tmp_path: Path) -> None:
    async def breaking(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("broken off")

    async with serving_with_policies(tmp_path, breaking) as (service, client):
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/run")
        assert service.inbound("run").statistics.failed == 1


async def test_the_application_can_read_features_and_baggage(tmp_path: Path) -> None:
    seen: list[object] = []

    def act() -> None:
        request = current_request()
        assert request is not None
        seen.extend((request.feature("citations"), baggage.get_baggage("tenant.id")))

    citations = DegradedFeature(name="citations", off_at="partial", fallback="no citations")
    async with serving_with_policies(tmp_path, Agent(act), degradation=Degradation(features=(citations,))) as (
        _,
        client,
    ):
        await client.post("/run", headers={"baggage": "tenant.id=acme"})
    assert seen == [True, "acme"]


async def cancelled_work() -> None:
    work = asyncio.ensure_future(asyncio.sleep(60))
    work.cancel()
    await work


async def test_a_request_counts_as_failed_if_its_own_work_was_cancelled(tmp_path: Path) -> None:
    async with serving_with_policies(tmp_path, Agent(cancelled_work)) as (service, client):
        answer = await client.post("/v1/agents/run")
        assert (answer.status_code, answer.json()) == (500, {"error": "internal error"})
        statistics = service.inbound("run").statistics
        assert (statistics.failed, statistics.cancelled, statistics.in_flight) == (1, 0, 0)


@pytest.mark.parametrize("errors", [[], [ValueError()]], ids=["alone", "beside another error"])
async def test_a_task_group_is_answered_with_its_most_serious_error(tmp_path: Path, errors: list[Exception]) -> None:
    async def act() -> None:
        raise ExceptionGroup("tasks", [ExceptionGroup("inner", [CircuitOpenError("rag", 3.0)]), *errors])

    async with serving_with_policies(tmp_path, Agent(act)) as (service, client):
        answer = await client.post("/v1/agents/run")
        expected = (500, None, None) if errors else (503, "3", "circuit_breaker")
        found = (answer.status_code, answer.headers.get("retry-after"), answer.headers.get("x-rejected-by"))
        assert found == expected
        assert service.inbound("run").statistics.failed == 1
