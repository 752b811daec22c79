from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import propagate, trace
from opentelemetry.util._once import Once
from voice_policies import Duration, Ratio, Tracing
from voice_runtime import Runtime
from voice_runtime.tracing import SpanEvents, Telemetry, spans
from voice_runtime.tracing.collector import Collector

from tests.bundles import bundle, mount


def tracing(endpoint: str, **overrides: Any) -> Tracing:
    policy = {"sample_ratio": Ratio("100%"), "shutdown_timeout": Duration("20s")}
    return Tracing(endpoint=endpoint, **(policy | overrides))


@contextmanager
def telemetry(
    monkeypatch: pytest.MonkeyPatch, directory: Path, endpoint: str, *calls: Any, **policy: Any
) -> Iterator[tuple[Runtime, Telemetry]]:
    """The global propagator is restored when the block ends. `monkeypatch` restores the rest when the test ends."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    before = propagate.get_global_textmap()
    runtime = Runtime.load(
        mount(directory, bundle(*calls, tracing=tracing(endpoint, **policy))), listeners=[SpanEvents()]
    )
    try:
        with Telemetry(runtime) as made:
            monkeypatch.setattr(spans, "TRACER", made.provider.get_tracer("voice_runtime"))
            yield runtime, made
    finally:
        propagate.set_global_textmap(before)


@contextmanager
def collected(
    monkeypatch: pytest.MonkeyPatch, directory: Path, *calls: Any, **policy: Any
) -> Iterator[tuple[Runtime, Collector]]:
    """Read the Collector's spans after the `with` block, because some spans arrive only when the block ends."""
    with Collector() as collector, telemetry(monkeypatch, directory, collector.endpoint, *calls, **policy) as (run, _):
        yield run, collector
