"""The table. Run by `python -m bench.wire` inside the environment that holds the peers."""

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
    """A method under every policy: deadline, retry and budget, bulkhead, breaker, attempt timeout."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, FILE_NAME).write_text(json.dumps(bundle().to_document()))
        runtime = Runtime.load(directory)
    return runtime.grpc.channel("callee-0", target=address).unary_unary(METHOD)


def untraced(address: str) -> Rows:
    """What one would pick instead."""
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
        "bare grpc.aio, retries by service config": lambda: configured(REQUEST),
        "stamina around the stub (retry alone)": with_stamina,
        "tenacity around the stub (retry alone)": with_tenacity,
        OURS: lambda: policed(REQUEST),
    }


def traced(address: str) -> Rows:
    """The same with the SDK's spans."""
    trace.set_tracer_provider(TracerProvider())
    bare: Any = grpc.aio.insecure_channel(address).unary_unary(METHOD)
    policed, tracer = ours(address), trace.get_tracer("bench")

    async def in_span() -> Any:
        with tracer.start_as_current_span("call", kind=trace.SpanKind.CLIENT) as span:
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            answer = await bare(REQUEST, metadata=tuple(carrier.items()))
            span.set_attribute("rpc.grpc.status_code", 0)
            return answer

    return {BARE: lambda: bare(REQUEST), IN_SPAN: in_span, TRACED: lambda: policed(REQUEST)}


async def main(address: str) -> None:
    """Measure both groups and print them, with the goals."""
    print("| call | p50 µs | p99 µs | p50 × bare | p99 × bare | goal |\n|---|---|---|---|---|---|")
    for rows in (untraced, traced):
        results = await measure(rows(address))
        base = results[BARE]
        goals = {OURS: _verdict(results[OURS], base, (1.05, 1.10))} if OURS in results else {}
        if TRACED in results:
            goals[TRACED] = _verdict(results[TRACED], results[IN_SPAN], (1.0, 1.0))
        for name, (p50, p99) in results.items():
            ratios = f"{p50 / base[0]:.2f} | {p99 / base[1]:.2f}"
            print(f"| {name} | {p50:.0f} | {p99:.0f} | {ratios} | {goals.get(name, '')} |")


def _verdict(row: tuple[float, float], base: tuple[float, float], limits: tuple[float, float]) -> str:
    said = (
        f"{name} ≤ {limit:.2f} {'met' if taken / reference <= limit else 'missed'}"
        for name, taken, reference, limit in zip(("p50", "p99"), row, base, limits, strict=True)
    )
    return ", ".join(said)


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    server = context.Process(target=serve, args=(ports,), daemon=True)
    server.start()
    try:
        asyncio.run(main(f"127.0.0.1:{ports.get(timeout=30)}"))
    finally:
        server.terminate()
