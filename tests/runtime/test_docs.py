from __future__ import annotations

import builtins
import logging
import re
from pathlib import Path

import pytest
import voice_runtime
from opentelemetry import trace
from opentelemetry.util._once import Once
from prometheus_client import REGISTRY
from voice_policies import CircuitBreaker, Degradation, DegradedFeature, Duration, HealthCheck, Timeout
from voice_policies import Health as HealthPolicy
from voice_runtime.metrics import METRICS
from voice_runtime.tracing import spans
from voice_runtime.tracing.collector import Collector

from tests.bundles import bundle, call, mount, operation
from tests.examples import DOCUMENTS, run_examples
from tests.runtime.tracing.telemetry import tracing

POLICY = "/etc/voice/policy"


def test_the_examples_in_runtime_md_run(tmp_path: Path) -> None:
    citations = DegradedFeature(name="citations", off_at="partial", fallback="answer without citations")
    timeout = Timeout(attempt=Duration("700ms"), overall=Duration("700ms"))
    mounted = mount(
        tmp_path,
        bundle(
            call("rag-engine.context", necessity="soft", fallback="no citations", timeout=timeout),
            call("model-adapter.generate", circuit_breaker=CircuitBreaker()),
            inbound=(operation("run"),),
            degradation=Degradation(features=(citations,)),
        ),
    )
    try:
        assert run_examples("runtime.md", {POLICY: mounted}) == 14
    finally:
        for collector in list(REGISTRY._collector_to_names):  # noqa: SLF001  # the library has no public list of collectors
            if type(collector).__name__ == "RuntimeCollector":
                REGISTRY.unregister(collector)


def test_the_errors_in_runtime_md_exist() -> None:
    text = (DOCUMENTS / "runtime.md").read_text()
    for name in re.findall(r"`(\w+Error)`", text):
        assert hasattr(voice_runtime, name) or hasattr(builtins, name), name


def test_the_examples_in_health_md_run(tmp_path: Path) -> None:
    check = HealthCheck(name="rag-engine", kind="grpc", target="rag-engine.context", critical=False)
    mounted = mount(tmp_path, bundle(call("rag-engine.context"), health=HealthPolicy(checks=(check,))))
    assert run_examples("health.md", {POLICY: mounted}) == 2


def test_the_examples_in_tracing_md_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(spans, "TRACER", trace.ProxyTracer("voice_runtime"))
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        with Collector() as collector:
            mounted = mount(tmp_path, bundle(tracing=tracing(collector.endpoint)))
            assert run_examples("tracing.md", {POLICY: mounted}) == 1
            assert {span.name: span.attributes["tenant.id"] for span in collector.spans} == {
                "search": "acme",
                "fuse": "acme",
            }
    finally:
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)


def test_the_metrics_in_the_table_of_policies_exist() -> None:
    text = (DOCUMENTS / "runtime.md").read_text()
    table = text.partition("## What each policy does to a call")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(voice_[a-z_]+)", table))
    assert len(named) >= 12
    assert named <= {metric.name for metric in METRICS}
