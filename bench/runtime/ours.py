"""The rows of the runtime."""

from __future__ import annotations

import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from voice_policies import (
    FILE_NAME,
    Address,
    Bulkhead,
    BundleMetadata,
    CircuitBreaker,
    Duration,
    EnforcedBy,
    Health,
    OutboundCall,
    PolicyBundle,
    Ratio,
    Retry,
    Timeout,
    Tracing,
)
from voice_runtime import CircuitBreaker as Breaker
from voice_runtime import Outbound, Runtime
from voice_runtime import Retry as Retrying
from voice_runtime import Timeout as Timed
from voice_runtime.rate_limit.keyed import KeyedTokenBucket
from voice_runtime.rate_limit.sliding_window import SlidingWindow
from voice_runtime.rate_limit.token_bucket import TokenBucket

from bench.runtime.measure import Case

FULL_BREAKER = CircuitBreaker(
    failure_ratio=Ratio("50%"), slow_call_ratio=Ratio("50%"), slow_call_duration=Duration("1s")
)
LIMIT = 1_000_000


async def callee() -> int:
    """The callee of the bench."""
    return 1


def callee_sync() -> int:
    """The callee of the bench."""
    return 1


def bundle() -> PolicyBundle:
    """Ten calls under every policy, as a busy service has them."""
    calls = tuple(
        OutboundCall(
            name=f"callee-{number}.call",
            callee=f"callee-{number}",
            operation="call",
            protocol="grpc",
            addresses=(Address(host="callee", port=9000),),
            idempotency="idempotent",
            necessity="hard",
            timeout=Timeout(attempt=Duration("1s"), overall=Duration("1m")),
            retry=Retry(),
            circuit_breaker=FULL_BREAKER,
            bulkhead=Bulkhead(max_concurrent=100),
            enforced_by=EnforcedBy(timeout="runtime", retry="runtime", circuit_breaker="runtime", bulkhead="runtime"),
        )
        for number in range(10)
    )
    return PolicyBundle(
        metadata=BundleMetadata(service="agent-engine", environment="bench", language="python"),
        outbound=calls,
        health=Health(),
        tracing=Tracing(endpoint="http://collector:4317"),
    ).sealed()


def loaded() -> tuple[Runtime, float]:
    """A runtime on a bundle file, and the best of ten load times in milliseconds."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / FILE_NAME).write_text(json.dumps(bundle().to_document()))
        best = float("inf")
        for _ in range(10):
            begun = time.perf_counter()
            runtime = Runtime.load(directory)
            best = min(best, time.perf_counter() - begun)
    return runtime, best * 1e3


def opened() -> Breaker:
    """A breaker that is open."""
    breaker = Breaker("callee", FULL_BREAKER)
    for _ in range(5):
        breaker.report(breaker.state, OSError())
    return breaker


def cases(runtime: Runtime) -> list[Case]:
    """Every row of the runtime."""
    full, plain, refusing = Breaker("callee", FULL_BREAKER), Breaker("callee", CircuitBreaker()), opened()
    retry, timed = Retrying("callee", Retry()), Timed("callee", 1.0)
    three = Outbound(
        "callee",
        attempt_timeout=1.0,
        overall_timeout=60.0,
        retry=retry,
        breaker=Breaker("callee", FULL_BREAKER),
    )
    bucket, keyed, window = (
        TokenBucket(1e9, LIMIT, 0.0),
        KeyedTokenBucket(1e9, LIMIT, 100_000),
        SlidingWindow(LIMIT, 1.0),
    )
    now = time.monotonic

    async def refused() -> Any:
        try:
            await refusing.call(callee)
        except Exception as error:  # noqa: BLE001  # the bench measures the rejection
            return error

    return [
        Case("breaker closed, async", "voice_runtime (window, slow calls)", partial(full.call, callee), goal=0.55),
        Case("breaker closed, async", "voice_runtime (consecutive)", partial(plain.call, callee)),
        Case(
            "breaker closed, sync",
            "voice_runtime (consecutive)",
            partial(plain.call_sync, callee_sync),
            asynchronous=False,
            goal=0.25,
        ),
        Case(
            "breaker closed, sync",
            "voice_runtime (window, slow calls)",
            partial(full.call_sync, callee_sync),
            asynchronous=False,
        ),
        Case("open rejection, async", "voice_runtime", refused, goal=0.9),
        Case("retry, success path, async", "voice_runtime", partial(retry.call, callee), goal=0.25),
        Case("timeout, async", "voice_runtime", partial(timed.call, callee), goal=1.0),
        Case("token bucket", "voice_runtime", lambda: bucket.take(now()), asynchronous=False, goal=0.2),
        Case("token bucket, keyed", "voice_runtime", lambda: keyed.take("tenant", now()), asynchronous=False, goal=0.3),
        Case("sliding window", "voice_runtime", lambda: window.take(now()), asynchronous=False, goal=0.3),
        Case("retry + breaker + timeout, async", "voice_runtime", partial(three.call, callee)),
        Case(
            "retry + breaker + timeout, async",
            "voice_runtime, + bulkhead, budget, deadline, metrics",
            partial(runtime.call, "callee-3.call", callee),
            goal=2.0,
        ),
    ]


def _keyed() -> Any:
    keyed, now = KeyedTokenBucket(1, 100, 100_000), time.monotonic()
    return lambda key: keyed.take(key, now)


KEYED = {"voice_runtime": _keyed}
