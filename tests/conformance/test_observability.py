from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from voice_policies import Duration, FaultInjection, Rate, RateLimit, Ratio, TokenBucket
from voice_runtime import Caller, Runtime
from voice_runtime.metrics import METRICS
from voice_runtime.testing import FakeClock
from voice_runtime.tracing import span, spans
from voice_runtime.tracing.collector import Collector

from tests.bundles import bundle, call, mount, operation
from tests.runtime.tracing.telemetry import telemetry, tracing

PATIENCE = 60.0
"""Seconds in which the shutdown must end. It takes 1 s on an idle machine. Without `shutdown_timeout` it would wait as
long as the Collector hangs."""
SLOWER = 5
"""The loop with export may use at most this many times the CPU time of the loop without export."""


def series(runtime: Runtime) -> set[tuple[str, ...]]:
    return {(metric.name, *labels) for metric in METRICS for labels, _ in metric.read(runtime)}


async def test_o1_ten_thousand_tenants_add_no_time_series(tmp_path: Path, clock: FakeClock) -> None:
    limit = RateLimit(limit=TokenBucket(rate=Rate("100/s"), burst=100), key="tenant")
    runtime = Runtime.load(mount(tmp_path, bundle(inbound=(operation(rate_limits=(limit,)),))), clock=clock)
    before = series(runtime)
    for number in range(10_000):
        async with runtime.request("run", Caller(tenant=f"tenant-{number}", user=f"user-{number}")):
            pass
    assert series(runtime) == before


@contextmanager
def mute_listener() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def closed_port() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
    yield endpoint


@pytest.mark.parametrize("away", [mute_listener, closed_port])
def test_o2_a_collector_that_does_not_answer_costs_little_time_and_loses_only_spans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: type[Iterator[str]]
) -> None:
    queue, sent = 100, 5_000

    def trace() -> float:
        began = time.thread_time()  # the time of other processes does not count
        for number in range(sent):
            with span(f"request {number}"):
                pass
        return time.thread_time() - began

    monkeypatch.setattr(spans, "TRACER", TracerProvider(shutdown_on_exit=False).get_tracer("nowhere"))
    alone = trace()
    policy = {"max_queue": queue, "shutdown_timeout": Duration("1s")}
    with away() as endpoint, telemetry(monkeypatch, tmp_path, endpoint, **policy) as (runtime, made):  # type: ignore[attr-defined]  # a context manager's function
        assert trace() < SLOWER * alone
        began = time.monotonic()
        made.shutdown()
        assert time.monotonic() - began < PATIENCE
    counted = runtime.spans
    assert counted.ended == sent
    assert counted.exported == 0
    # At most the queue and the batch that is being sent are in memory.
    assert sent - counted.dropped - counted.failed <= 2 * queue
    assert counted.dropped > sent / 2, "a full queue must drop spans, not wait"


def test_o2_queued_spans_are_sent_at_shutdown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Collector() as collector:
        with telemetry(monkeypatch, tmp_path, collector.endpoint) as (runtime, _):
            for number in range(1_000):
                with span(f"request {number}"):
                    pass
        assert len(collector.spans) == 1_000
        assert (runtime.spans.exported, runtime.spans.dropped, runtime.spans.failed) == (1_000, 0, 0)


PREFORK = """
import os, sys
from voice_runtime import Runtime
from voice_runtime.tracing import Telemetry, span

runtime = Runtime.load(sys.argv[1])
with Telemetry(runtime) as telemetry:
    with span("before the fork"):
        pass
    telemetry.provider.force_flush()
    children = []
    for worker in range(3):
        if child := os.fork():
            children.append(child)
        else:
            children, name = [], f"worker {worker}"
            break
    else:
        name = "parent"
    with span(name):
        runtime.call_sync("rag-engine", len, "")
sys.exit(any(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def test_o3_every_forked_process_traces_and_makes_calls(tmp_path: Path) -> None:
    with Collector() as collector:
        mounted = mount(tmp_path, bundle(call(), tracing=tracing(collector.endpoint)))
        command = [sys.executable, "-c", PREFORK, str(mounted)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert {each.name for each in collector.spans} == {
            "before the fork",
            "parent",
            "worker 0",
            "worker 1",
            "worker 2",
        }


@pytest.mark.parametrize(
    ("in_policy", "in_process"), [(True, False), (False, True)], ids=["only the policy", "only the process"]
)
async def test_o4_faults_are_injected_only_if_policy_and_process_allow_it(
    tmp_path: Path, clock: FakeClock, *, in_policy: bool, in_process: bool
) -> None:
    async def answers() -> str:
        return "answer"

    always = FaultInjection(enabled=True, error_ratio=Ratio("100%"), abort_ratio=Ratio("100%")) if in_policy else None
    mounted = mount(tmp_path, bundle(call(), fault_injection=always))
    runtime = Runtime.load(mounted, clock=clock, allow_fault_injection=in_process)
    for _ in range(100):
        assert await runtime.call("rag-engine", answers) == "answer"
