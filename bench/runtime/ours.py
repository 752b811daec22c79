"""The cases of `voice_runtime`: `cases` for the table of times, and `KEYED` for the memory per key."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from voice_policies import (
    FILE_NAME,
    Address,
    Bulkhead,
    BundleMetadata,
    CircuitBreaker,
    Degradation,
    Duration,
    EnforcedBy,
    Health,
    InboundOperation,
    OutboundCall,
    PolicyBundle,
    Rate,
    RateLimit,
    Ratio,
    Retry,
    ServiceLevel,
    Timeout,
    Tracing,
)
from voice_policies import TokenBucket as TokenBucketPolicy
from voice_runtime import Caller, Outbound, Runtime
from voice_runtime import CircuitBreaker as Breaker
from voice_runtime import Retry as Retrying
from voice_runtime import Timeout as Timed
from voice_runtime.rate_limit.gate import Gate
from voice_runtime.rate_limit.keyed import Keyed, KeyedTokenBucket
from voice_runtime.rate_limit.sliding_window import SlidingWindow, WindowShape
from voice_runtime.rate_limit.token_bucket import TokenBucket

from bench.runtime.goals import CONSECUTIVE, FLOOR, FUSED, INBOUND, OURS, OURS_BY_KEY, OURS_WINDOW, WINDOWED
from bench.runtime.measure import Case

FULL_BREAKER = CircuitBreaker(
    failure_ratio=Ratio("50%"), slow_call_ratio=Ratio("50%"), slow_call_duration=Duration("1s")
)
LIMIT = 1_000_000
TENANT_LIMIT = RateLimit(limit=TokenBucketPolicy(rate=Rate(f"{LIMIT}/s"), burst=LIMIT), key="tenant")
CALLER = Caller(tenant="acme")


async def callee() -> int:
    """The function that the measured policies call. It does no work."""
    return 1


def callee_sync() -> int:
    """The synchronous form of `callee`."""
    return 1


def bundle() -> PolicyBundle:
    """A bundle with ten calls and one operation, as a busy service has them.

    Each call has a timeout, a retry, a breaker and a bulkhead. The operation has a deadline, a rate limit and a
    bulkhead.
    """
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
    run = InboundOperation(
        operation="run",
        deadline=Duration("2s"),
        service_level=ServiceLevel(availability=Ratio("99.9%"), latency=Duration("1s")),
        rate_limits=(TENANT_LIMIT,),
        bulkhead=Bulkhead(max_concurrent=100),
    )
    return PolicyBundle(
        metadata=BundleMetadata(service="agent-engine", environment="bench", language="python"),
        inbound=(run,),
        outbound=calls,
        degradation=Degradation(),
        health=Health(),
        tracing=Tracing(endpoint="http://collector:4317"),
    ).sealed()


def loaded() -> tuple[Runtime, float]:
    """A runtime that was loaded from a file, and the best of ten load times in milliseconds."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / FILE_NAME).write_text(json.dumps(bundle().to_document()))
        best = float("inf")
        for _ in range(10):
            begun = time.perf_counter()
            runtime = Runtime.load(directory)
            best = min(best, time.perf_counter() - begun)
    return runtime, best * 1e3


def opened() -> Breaker:
    """A breaker that stays open for the whole run."""
    hour = Duration("1h")
    breaker = Breaker("callee", FULL_BREAKER.model_copy(update={"break_duration": hour, "max_break_duration": hour}))
    for _ in range(5):
        breaker.report(breaker.state, OSError())
    return breaker


class Floor:
    """The least code for a timeout: a dictionary of the running calls, and one timer for all of them.

    It ends no call, and ignores enclosing deadlines and cancellations by other code. So its cost is a lower bound for
    a timeout.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, list[object]] = {}
        self._loop.call_later(3600, self._waiting.clear)

    async def call(self, fn: Callable[[], Awaitable[int]]) -> int:
        """Await `fn()`."""
        entry: list[object] = [time.monotonic() + 1.0, asyncio.current_task(self._loop)]
        key = id(entry)
        self._waiting[key] = entry
        try:
            return await fn()
        finally:
            del self._waiting[key]


def cases(runtime: Runtime, refusing: Breaker) -> list[Case]:
    """Every case of the table of times. Call it inside the running loop, because some cases bind to the loop."""
    return [*_breakers(refusing), *_calls(runtime), *_limits(), *_inbound(runtime)]


def _breakers(refusing: Breaker) -> list[Case]:
    full, plain = Breaker("callee", FULL_BREAKER), Breaker("callee", CircuitBreaker())

    async def refused() -> Any:
        try:
            await refusing.call(callee)
        except Exception as error:  # noqa: BLE001  # the bench measures the rejection
            return error

    group, sync_group = "breaker closed, async", "breaker closed, sync"
    return [
        Case(group, WINDOWED, partial(full.call, callee)),
        Case(group, CONSECUTIVE, partial(plain.call, callee)),
        Case(sync_group, WINDOWED, partial(full.call_sync, callee_sync), asynchronous=False),
        Case(sync_group, CONSECUTIVE, partial(plain.call_sync, callee_sync), asynchronous=False),
        Case("open rejection, async", OURS, refused),
    ]


def _calls(runtime: Runtime) -> list[Case]:
    retry, timed = Retrying("callee", Retry()), Timed("callee", 1.0)
    breaker = Breaker("callee", FULL_BREAKER)
    three = Outbound("callee", attempt_timeout=1.0, overall_timeout=60.0, retry=retry, breaker=breaker)
    return [
        Case("retry, success path, async", OURS, partial(retry.call, callee)),
        Case("timeout, async", OURS, partial(timed.call, callee)),
        Case("timeout, async", FLOOR, partial(Floor().call, callee)),
        Case("retry + breaker + timeout, async", OURS, partial(three.call, callee)),
        Case("retry + breaker + timeout, async", FUSED, partial(runtime.call, "callee-3.call", callee)),
    ]


def _limits() -> list[Case]:
    bucket, keyed = TokenBucket(1e9, LIMIT, 0.0), KeyedTokenBucket(1e9, LIMIT, 100_000)
    window = SlidingWindow(WindowShape(LIMIT, 1.0))
    now = time.monotonic
    gate = Gate("run", TENANT_LIMIT, time, Random(7))  # noqa: S311  # not a secret
    admit = partial(gate.admit, CALLER, 1, float("inf"))
    admit_sync = partial(gate.admit_sync, CALLER, 1, float("inf"))
    return [
        Case("token bucket", OURS, lambda: bucket.take(now()), asynchronous=False),
        Case("token bucket, keyed", OURS, lambda: keyed.take("tenant", now()), asynchronous=False),
        Case("token bucket, public path, async", OURS_BY_KEY, admit),
        Case("token bucket, public path, sync", OURS_BY_KEY, admit_sync, asynchronous=False),
        Case("sliding window", OURS, lambda: window.take(now()), asynchronous=False),
    ]


def _inbound(runtime: Runtime) -> list[Case]:
    async def served() -> None:
        async with runtime.request("run", CALLER):
            pass

    def served_sync() -> None:
        with runtime.request("run", CALLER):
            pass

    return [
        Case("inbound, async", INBOUND, served),
        Case("inbound, sync", INBOUND, served_sync, asynchronous=False),
    ]


def _keyed() -> Any:
    keyed, now = KeyedTokenBucket(1, 100, 100_000), time.monotonic()
    return lambda key: keyed.take(key, now)


def _keyed_window() -> Any:
    keyed, now = Keyed(partial(SlidingWindow, WindowShape(100, 3600.0)), 100_000), time.monotonic()
    return lambda key: keyed.take(key, now)


KEYED = {OURS: _keyed, OURS_WINDOW: _keyed_window}
