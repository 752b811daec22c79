from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Thread

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry.trace import SpanKind
from voice_policies import CircuitBreaker, EnforcedBy, Ratio, Retry
from voice_runtime import CalleeError, CircuitOpenError, SoftCallError
from voice_runtime.tracing import JsonFormatter, attributed, span, traced
from voice_runtime.tracing.collector import ReceivedSpan

from tests.bundles import bundle, call, mount
from tests.runtime.tracing.telemetry import collected, tracing


def named(spans: list[ReceivedSpan], name: str) -> ReceivedSpan:
    (found,) = (each for each in spans if each.name == name)
    return found


def test_a_received_span_has_its_parent_its_attributes_and_the_identity_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_NAME", "agent-engine-7")
    received = collected(monkeypatch, tmp_path)
    with received as (_, collector), span("outer", SpanKind.SERVER, {"documents": 20}), span("inner"):
        pass
    outer, inner = named(collector.spans, "outer"), named(collector.spans, "inner")
    assert inner.trace_id == outer.trace_id
    assert (inner.parent_id, outer.parent_id) == (outer.span_id, "")
    assert outer.attributes["documents"] == 20
    assert outer.kind == 2
    expected = {
        "service.name": "agent-engine",
        "service.namespace": "voiceassistant",
        "service.instance.id": "agent-engine-7",
        "k8s.pod.name": "agent-engine-7",
        "deployment.environment.name": "test",
    }
    assert expected.items() <= outer.resource.items()


async def unavailable() -> None:
    raise CalleeError("rag-engine")


async def test_retries_rejections_and_fallbacks_are_events_on_the_span_around_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft = call(necessity="soft", fallback="none", retry=Retry(max_retries=1), circuit_breaker=CircuitBreaker())
    with collected(monkeypatch, tmp_path, soft) as (runtime, collector):
        with pytest.raises(SoftCallError), span("retried"):
            await runtime.call("rag-engine", unavailable)
        runtime.outbound("rag-engine").breaker.open()  # type: ignore[union-attr]  # the call has a breaker
        runtime.fallback("rag-engine", lambda _: None)
        with span("refused"):
            await runtime.call("rag-engine", unavailable)
    retried, refused = named(collector.spans, "retried"), named(collector.spans, "refused")
    assert [event.name for event in retried.events] == ["voice.retry", "voice.exhausted", "exception"]
    assert retried.events[0].attributes["voice.target"] == "rag-engine.context"
    assert retried.events[0].attributes["error.type"] == "CalleeError"
    assert retried.events[0].attributes["voice.delay_seconds"] > 0
    assert retried.failed
    assert [event.name for event in refused.events] == ["voice.rejected", "voice.fallback"]
    assert refused.events[0].attributes["voice.policy"] == "circuit_breaker"
    assert refused.events[1].attributes["error.type"] == "CircuitOpenError"
    assert not refused.failed


def test_events_of_many_threads_are_added_to_the_span_of_their_own_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, requests = 8, 500
    soft = call(necessity="soft", fallback="none", enforced_by=EnforcedBy(timeout="driver"))
    with collected(monkeypatch, tmp_path, soft, max_queue=threads * requests) as (runtime, collector):
        runtime.fallback("rag-engine", lambda _: None)

        def ask() -> None:
            for _ in range(requests):
                with span("request"):
                    runtime.call_sync("rag-engine", fails)

        def fails() -> None:
            raise ConnectionResetError

        asking = [Thread(target=ask) for _ in range(threads)]
        for each in asking:
            each.start()
        for each in asking:
            each.join()
    assert len(collector.spans) == threads * requests
    assert {len(each.events) for each in collector.spans} == {1}


async def test_an_error_fails_a_traced_span_and_a_cancellation_only_marks_the_span(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @traced("coroutine")
    async def waits() -> None:
        await asyncio.sleep(3600)

    @traced("plain")
    def fails() -> None:
        raise CircuitOpenError("rag-engine.context")

    with collected(monkeypatch, tmp_path) as (_, collector):
        with pytest.raises(CircuitOpenError):
            fails()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await waits()
    plain, coroutine = named(collector.spans, "plain"), named(collector.spans, "coroutine")
    assert plain.failed
    assert plain.attributes["voice.policy"] == "circuit_breaker"
    assert plain.events[0].attributes["exception.type"].endswith("CircuitOpenError")
    assert not coroutine.failed
    assert coroutine.attributes["voice.cancelled"] is True


async def test_a_span_inside_a_traced_generator_is_a_child_of_the_generators_span(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @traced("generator")
    async def words() -> AsyncIterator[str]:
        yield "one"
        with span("inside"):
            yield "two"

    with collected(monkeypatch, tmp_path) as (_, collector):
        assert [word async for word in words()] == ["one", "two"]
    assert named(collector.spans, "inside").parent_id == named(collector.spans, "generator").span_id


def test_only_allowed_baggage_is_sent_and_becomes_span_attributes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: dict[str, str] = {}
    with collected(monkeypatch, tmp_path, baggage=("tenant.id",)) as (_, collector):
        with attributed({"tenant.id": "acme", "user.id": "ann"}), span("request"):
            propagate.inject(inside)
        arrived = propagate.extract({**inside, "baggage": f"{inside['baggage']},card=4111"})
    assert inside["baggage"] == "tenant.id=acme"
    assert baggage.get_all(arrived) == {"tenant.id": "acme"}
    assert trace.get_current_span(arrived).get_span_context().is_remote
    request = named(collector.spans, "request")
    assert request.attributes["tenant.id"] == "acme"
    assert "user.id" not in request.attributes


def test_the_callers_sampling_decision_applies_and_a_reload_changes_the_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
    with collected(monkeypatch, tmp_path, sample_ratio=Ratio("0%")) as (runtime, collector):
        with span("unsampled"):
            pass
        with trace.use_span(trace.get_current_span(propagate.extract(sampled))), span("decided by the caller"):
            pass
        mount(tmp_path, bundle(tracing=tracing(collector.endpoint)))
        assert runtime.reload()
        with span("after the reload"):
            pass
    assert [each.name for each in collector.spans] == ["decided by the caller", "after the reload"]
    assert collector.spans[0].parent_id == "2" * 16


def test_log_lines_are_json_with_the_current_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with collected(monkeypatch, tmp_path) as (runtime, _):
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(JsonFormatter(runtime))
        logger = logging.getLogger("tests.logs")
        monkeypatch.setattr(logger, "handlers", [handler])
        logger.setLevel(logging.INFO)
        with span("request") as current:
            logger.info("found %d\nlines", 2, extra={"documents": 20, "trace_id": "forged"})
        try:
            json.loads("no JSON")
        except ValueError:
            logger.exception("failed")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["message"] == "found 2\nlines"
    assert first["trace_id"] == trace.format_trace_id(current.get_span_context().trace_id)
    assert first["span_id"] == trace.format_span_id(current.get_span_context().span_id)
    assert (first["policy_digest"], first["service"], first["level"]) == (runtime.digest, "agent-engine", "info")
    assert first["documents"] == 20
    assert "trace_id" not in second
    assert "JSONDecodeError" in second["exception"]
