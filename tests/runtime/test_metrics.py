from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from voice_policies import Bulkhead, CircuitBreaker, Degradation, Duration, Rate, RateLimit, Retry, TokenBucket
from voice_runtime import CalleeError, Caller, RetriesExhaustedError, Runtime
from voice_runtime.metrics import METRICS
from voice_runtime.otel import observe
from voice_runtime.prometheus import RuntimeCollector
from voice_runtime.testing import FakeClock

from tests.bundles import bundle, call, mount, operation


@pytest.fixture
def runtime(tmp_path: Path, clock: FakeClock) -> Runtime:
    full = call(circuit_breaker=CircuitBreaker(), bulkhead=Bulkhead(max_concurrent=5), retry=Retry(max_retries=1))
    limits = (RateLimit(limit=TokenBucket(rate=Rate("10/s"), burst=2000), key="tenant"),)
    inbound = operation("run", rate_limits=limits, bulkhead=Bulkhead(max_concurrent=5))
    mounted = mount(
        tmp_path, bundle(full, call("model-adapter.generate"), inbound=(inbound,), degradation=Degradation())
    )
    return Runtime.load(mounted, clock=clock)


def scrape(runtime: Runtime) -> dict[str, dict[frozenset[str], float]]:
    registry = CollectorRegistry()
    registry.register(RuntimeCollector(runtime))
    text = generate_latest(registry).decode()
    return {
        sample.name: {
            frozenset(other.labels.values()): other.value for other in family.samples if other.name == sample.name
        }
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def unavailable() -> None:
    raise CalleeError("rag-engine")


async def test_counters_count_the_results_of_calls(runtime: Runtime) -> None:
    with pytest.raises(RetriesExhaustedError):
        await runtime.call("rag-engine", unavailable)
    async with runtime.request("run"):
        pass
    scraped = scrape(runtime)
    assert scraped["voice_call_attempts_total"][frozenset({"rag-engine.context", "failed"})] == 2
    assert scraped["voice_call_retries_total"][frozenset({"rag-engine.context"})] == 1
    assert scraped["voice_call_exhausted_total"][frozenset({"rag-engine.context", "max_retries"})] == 1
    assert scraped["voice_circuitbreaker_calls_total"][frozenset({"rag-engine.context", "failed"})] == 2
    assert scraped["voice_circuitbreaker_state"][frozenset({"rag-engine.context", "closed"})] == 1
    assert scraped["voice_circuitbreaker_state"][frozenset({"rag-engine.context", "open"})] == 0
    assert scraped["voice_operation_requests_total"][frozenset({"run", "successful"})] == 1
    assert scraped["voice_rate_limit_requests_total"][frozenset({"run", "0", "tenant", "admitted"})] == 1
    assert scraped["voice_degradation_level"][frozenset({"normal"})] == 1
    assert scraped["voice_policy_info"][frozenset({"agent-engine", "test", runtime.digest})] == 1


def test_the_digest_of_the_mounted_bundle_is_exported_even_for_a_refused_bundle(
    tmp_path: Path, clock: FakeClock
) -> None:
    old, new = bundle(call("plain.read")), bundle(call("plain.write"))
    runtime = Runtime.load(mount(tmp_path, old), clock=clock)
    for text, mounted, enforced in (
        (new, new, new),
        (json.dumps(old.to_document() | {"apiVersion": "voiceassistant.dev/v0"}), old, new),
        ("[]", None, new),
    ):
        mount(tmp_path, text)
        runtime.reload()
        scraped = scrape(runtime)
        assert scraped["voice_policy_mounted_info"] == {frozenset({mounted.metadata.digest if mounted else ""}): 1}
        assert scraped["voice_policy_info"] == {frozenset({"agent-engine", "test", enforced.metadata.digest}): 1}


async def test_a_request_that_takes_longer_than_the_objective_counts_as_slow(
    runtime: Runtime, clock: FakeClock
) -> None:
    objective = runtime.bundle.inbound[0].service_level.latency.seconds
    for taken, slow in ((objective, 0), (objective * 1.01, 1)):
        with runtime.request("run"):
            clock.advance(taken)
        assert scrape(runtime)["voice_operation_slow_requests_total"][frozenset({"run"})] == slow


@pytest.mark.parametrize(
    ("waits", "late"), [([0.29], 0), ([0.31], 1), ([0.2, 0.2], 1)], ids=["in time", "late", "late after a retry"]
)
async def test_a_first_message_later_than_the_objective_counts_as_late(
    waits: list[float], late: int, tmp_path: Path, clock: FakeClock
) -> None:
    retry = Retry(max_retries=1, base_delay=Duration("1ms"), max_delay=Duration("1ms"))
    spoken = call("speech-providers.synthesize", first_message=Duration("300ms"), retry=retry)
    runtime = Runtime.load(mount(tmp_path, bundle(spoken, call("plain.read"))), clock=clock)
    begun = iter(waits)

    async def speech() -> AsyncIterator[str]:
        clock.advance(next(begun))
        if runtime.outbound("speech-providers").statistics.failed < len(waits) - 1:
            raise CalleeError("speech-providers")
        yield "audio"
        clock.advance(10)
        yield "more audio"

    assert [each async for each in runtime.stream("speech-providers", speech)] == ["audio", "more audio"]
    scraped, name = scrape(runtime), frozenset({"speech-providers.synthesize"})
    assert scraped["voice_call_first_messages_total"] == {name: 1}
    assert scraped["voice_call_late_first_messages_total"] == {name: late}


def test_the_prometheus_text_is_valid_and_describes_every_metric(runtime: Runtime) -> None:
    registry = CollectorRegistry()
    registry.register(RuntimeCollector(runtime))
    text = generate_latest(registry).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert len(families) == len(METRICS)
    for metric in METRICS:
        assert f"# HELP {metric.name} {metric.help}" in text
        assert f"# TYPE {metric.name} {metric.kind}" in text
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert re.fullmatch(r"voice(_[a-z]+)+", metric.name)
        assert not re.search(r"_(ms|milliseconds|minutes|percent)(_|$)", metric.name)
        assert metric.help.endswith(".")


async def test_a_tenant_is_never_a_label_and_adds_no_time_series(runtime: Runtime) -> None:
    before = sum(map(len, scrape(runtime).values()))
    for number in range(500):
        async with runtime.request("run", Caller(tenant=f"tenant-{number}", user="ann", api_key="secret")):
            pass
    for target in ("one", "two"):
        runtime.outbound("rag-engine", target)
    scraped = scrape(runtime)
    # `voice_circuitbreaker_targets` has at most one series for each state, however many targets a call has.
    assert sum(map(len, scraped.values())) <= before + 5
    labels = {value for family in scraped.values() for values in family for value in values}
    assert not {label for label in labels if "tenant-" in label or label in {"ann", "secret", "one", "two"}}
    assert scraped["voice_rate_limit_keys"][frozenset({"run", "0", "tenant"})] <= 500


async def test_opentelemetry_exports_attempts_and_the_states_of_breakers(runtime: Runtime) -> None:
    reader = InMemoryMetricReader()
    observe(runtime, MeterProvider([reader]).get_meter("voice_runtime"))
    with pytest.raises(RetriesExhaustedError):
        await runtime.call("rag-engine", unavailable)
    data = reader.get_metrics_data()
    assert data is not None
    points = {
        (metric.name, *(point.attributes or {}).values()): point.value
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if isinstance(point, NumberDataPoint)
    }
    assert points["voice_call_attempts", "rag-engine.context", "failed"] == 2
    assert points["voice_circuitbreaker_state", "rag-engine.context", "closed"] == 1


def test_importing_the_runtime_imports_no_extra() -> None:
    extras = {"prometheus_client", "opentelemetry", "grpc", "redis", "asyncpg", "httpx", "h11", "uvicorn"}
    code = f"import sys, voice_runtime; print([m for m in sys.modules if m.split('.')[0] in {extras}])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "text",
    [r'{"metadata": {"digest": "\ud83d"}}', json.dumps({"metadata": {"digest": "x" * 100_000}}), "[" * 100_000],
    ids=["half a surrogate pair", "long", "deeply nested"],
)
def test_a_broken_bundle_does_not_break_the_metrics(runtime: Runtime, tmp_path: Path, text: str) -> None:
    mount(tmp_path, text)
    assert not runtime.reload()
    assert scrape(runtime)["voice_policy_mounted_info"] == {frozenset({""}): 1.0}
