"""Measures a gRPC call on loopback with and without voice_runtime, and prints a table.

`python -m bench.wire` runs this module in a virtual environment with the compared libraries.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

import grpc
import stamina
import tenacity
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from voice_policies import FILE_NAME
from voice_runtime import Runtime
from voice_runtime.grpc import Grpc

from bench.goals import at_most
from bench.runtime.ours import bundle
from bench.wire.measure import Rows, measure
from bench.wire.server import METHOD, SERVICE, serve

RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "10s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
SERVICE_CONFIG = {"methodConfig": [{"name": [{"service": SERVICE}], "timeout": "30s", "retryPolicy": RETRY_POLICY}]}
REQUEST = b"tides"
BARE, OURS = "bare grpc.aio", "voice_runtime"
IN_SPAN, TRACED = "bare grpc.aio in a span of the SDK, context injected", "voice_runtime, traced"


def ours(address: str) -> Any:
    """A method whose calls have a deadline, a retry with a budget, a bulkhead, a breaker and an attempt timeout."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, FILE_NAME).write_text(json.dumps(bundle().to_document()))
        runtime = Runtime.load(directory)
    return Grpc(runtime).channel("callee-0", target=address).unary_unary(METHOD)


def untraced(address: str) -> Rows:
    """The rows without tracing: bare gRPC, libraries that repeat calls, and the runtime."""
    bare: Any = grpc.aio.insecure_channel(address).unary_unary(METHOD)
    options = [("grpc.service_config", json.dumps(SERVICE_CONFIG))]
    configured: Any = grpc.aio.insecure_channel(address, options=options).unary_unary(METHOD)
    policed = ours(address)

    async def call() -> Any:
        return await bare(REQUEST, timeout=30)

    with_stamina = stamina.retry(on=grpc.aio.AioRpcError, attempts=4)(call)
    with_tenacity = tenacity.retry(stop=tenacity.stop_after_attempt(4))(call)
    return {
        BARE: lambda: bare(REQUEST),
        "bare grpc.aio with a deadline": lambda: bare(REQUEST, timeout=30),
        "bare grpc.aio, retries by service config": lambda: configured(REQUEST),
        "stamina around the stub (only a retry)": with_stamina,
        "tenacity around the stub (only a retry)": with_tenacity,
        OURS: lambda: policed(REQUEST),
    }


def traced(address: str, rows: Rows) -> Rows:
    """The rows with the SDK's spans, and the same calls without spans.

    A method of `voice_runtime` decides at its first call whether it records spans. The methods of `rows` were called
    before the SDK was set up, so their calls have no spans.
    """
    trace.set_tracer_provider(TracerProvider())
    bare: Any = grpc.aio.insecure_channel(address).unary_unary(METHOD)
    policed, tracer = ours(address), trace.get_tracer("bench")
    attributes = {"rpc.system": "grpc", "rpc.service": SERVICE, "rpc.method": "Call", "voice.call": "callee-0.call"}

    async def in_span() -> Any:
        with tracer.start_as_current_span(METHOD, kind=trace.SpanKind.CLIENT, attributes=attributes) as span:
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            answer = await bare(REQUEST, metadata=tuple(carrier.items()))
            span.set_attribute("rpc.grpc.status_code", 0)
            return answer

    return {BARE: rows[BARE], IN_SPAN: in_span, OURS: rows[OURS], TRACED: lambda: policed(REQUEST)}


async def main(address: str) -> None:
    """Measure both groups, and print them with the goals."""
    print("| call | p50 µs | p99 µs | p50 × bare | p99 × bare | goal |\n|---|---|---|---|---|---|")
    rows = untraced(address)
    results = await measure(rows)
    ratios = [taken / bare for taken, bare in zip(results[OURS], results[BARE], strict=True)]
    report(results, {OURS: f"p50 ≤ 1.05 {at_most(1.05, ratios[0])}, p99 ≤ 1.10 {at_most(1.10, ratios[1])}"})
    results = await measure(traced(address, rows))
    span = (results[TRACED][0] - results[OURS][0]) / (results[IN_SPAN][0] - results[BARE][0])
    report(
        results, {TRACED: f"a span of voice_runtime costs {span:.2f} × a span of the SDK, ≤ 1.00 {at_most(1.0, span)}"}
    )


def report(results: dict[str, tuple[float, float]], goals: dict[str, str]) -> None:
    """Print the lines of one group."""
    bare = results[BARE]
    for name, (p50, p99) in results.items():
        print(f"| {name} | {p50:.0f} | {p99:.0f} | {p50 / bare[0]:.2f} | {p99 / bare[1]:.2f} | {goals.get(name, '')} |")


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    server = context.Process(target=serve, args=(ports,), daemon=True)
    server.start()
    try:
        asyncio.run(main(f"127.0.0.1:{ports.get(timeout=30)}"))
    finally:
        server.terminate()
