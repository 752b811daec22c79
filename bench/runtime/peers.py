"""The rows of the compared libraries. Each library does the same task in its simplest way."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import aiobreaker
import aiolimiter
import circuitbreaker
import hyx.circuitbreaker
import hyx.ratelimit
import hyx.retry
import hyx.timeout
import interlock
import limits
import purgatory
import pybreaker
import pyrate_limiter
import pyresilience
import stamina
import tenacity
import throttled

from bench.runtime.measure import Case
from bench.runtime.ours import LIMIT, callee, callee_sync


async def breakers() -> list[Case]:
    """Closed breakers."""
    group, sync_group = "breaker closed, async", "breaker closed, sync"
    aio = aiobreaker.CircuitBreaker(fail_max=5)
    purgatory_async = await purgatory.AsyncCircuitBreakerFactory().get_breaker("callee")
    purgatory_sync = purgatory.SyncCircuitBreakerFactory().get_breaker("callee")
    py, inter = pybreaker.CircuitBreaker(), interlock.CircuitBreaker(name="callee")

    async def with_purgatory() -> None:
        async with purgatory_async:
            await callee()

    def with_purgatory_sync() -> None:
        with purgatory_sync:
            callee_sync()

    resilient = pyresilience.resilient(circuit_breaker=pyresilience.CircuitBreakerConfig())
    return [
        Case(group, "circuitbreaker", circuitbreaker.circuit(callee)),
        Case(group, "hyx", hyx.circuitbreaker.consecutive_breaker()(callee)),
        Case(group, "aiobreaker", partial(aio.call_async, callee)),
        Case(group, "purgatory", with_purgatory),
        Case(group, "pyresilience", resilient(callee)),
        Case(group, "interlock-cb", partial(inter.call_async, callee)),
        Case(sync_group, "circuitbreaker", circuitbreaker.circuit(callee_sync), asynchronous=False),
        Case(sync_group, "purgatory", with_purgatory_sync, asynchronous=False),
        Case(sync_group, "pybreaker", partial(py.call, callee_sync), asynchronous=False),
        Case(sync_group, "pyresilience", resilient(callee_sync), asynchronous=False),
        Case(sync_group, "interlock-cb", partial(inter.call_sync, callee_sync), asynchronous=False),
    ]


def refusing(call: Any) -> Any:
    """A function that makes a call, and returns the call's error instead of raising it."""

    async def refused() -> Any:
        try:
            await call()
        except Exception as error:  # noqa: BLE001  # the bench measures the rejection
            return error

    return refused


async def failing() -> None:
    """A callee whose failures open a breaker."""
    raise OSError


async def open_breakers() -> list[Case]:
    """Breakers that are open, and refuse every call."""
    group = "open rejection, async"
    aio, inter = aiobreaker.CircuitBreaker(timeout_duration=timedelta(hours=1)), interlock.CircuitBreaker(name="open")
    inter.force_open()
    opened = {
        "circuitbreaker": circuitbreaker.circuit(recovery_timeout=3600)(failing),
        "hyx": hyx.circuitbreaker.consecutive_breaker(recovery_time_secs=3600)(failing),
        "aiobreaker": partial(aio.call_async, failing),
        "pyresilience": pyresilience.resilient(
            circuit_breaker=pyresilience.CircuitBreakerConfig(recovery_timeout=3600)
        )(failing),
        "interlock-cb": partial(inter.call_async, callee),
    }

    for call in opened.values():
        for _ in range(6):
            await refusing(call)()
    return [Case(group, library, refusing(call)) for library, call in opened.items()]


def retries() -> list[Case]:
    """Retries around a call that succeeds at its first attempt."""
    group = "retry, success path, async"
    return [
        Case(group, "hyx", hyx.retry.retry(attempts=4)(callee)),
        Case(group, "pyresilience", pyresilience.resilient(retry=pyresilience.RetryConfig())(callee)),
        Case(group, "stamina", stamina.retry(on=OSError, attempts=4)(callee)),
        Case(group, "tenacity", tenacity.retry(stop=tenacity.stop_after_attempt(4))(callee)),
    ]


def timeouts() -> list[Case]:
    """Timeouts that do not fire."""
    group = "timeout, async"

    async def with_asyncio() -> None:
        async with asyncio.timeout(1):
            await callee()

    return [
        Case(group, "asyncio.timeout", with_asyncio),
        Case(group, "asyncio.wait_for", lambda: asyncio.wait_for(callee(), 1)),
        Case(group, "hyx", hyx.timeout.timeout(1)(callee)),
        Case(group, "pyresilience", pyresilience.resilient(timeout=pyresilience.TimeoutConfig(seconds=1))(callee)),
    ]


def limiters() -> list[Case]:
    """Rate limits that are not reached."""
    resilient = pyresilience.RateLimiter(pyresilience.RateLimiterConfig(max_calls=LIMIT))
    aio = aiolimiter.AsyncLimiter(LIMIT, 1)
    hyx_bucket = hyx.ratelimit.tokenbucket(LIMIT, 1, LIMIT)
    quota = throttled.per_sec(LIMIT, burst=LIMIT)
    throttle = {name: throttled.Throttled(using=name, quota=quota) for name in ("token_bucket", "sliding_window")}
    bucket = pyrate_limiter.limiter_factory.create_token_bucket_limiter(LIMIT, burst=LIMIT)
    log = pyrate_limiter.limiter_factory.create_inmemory_limiter(LIMIT)
    moving = limits.strategies.MovingWindowRateLimiter(limits.storage.MemoryStorage())
    counter = limits.strategies.SlidingWindowCounterRateLimiter(limits.storage.MemoryStorage())
    item = limits.RateLimitItemPerSecond(LIMIT)

    async def with_hyx() -> None:
        async with hyx_bucket:
            pass

    public, public_sync = "token bucket, public path, async", "token bucket, public path, sync"
    return [
        Case(public, "aiolimiter", aio.acquire),
        Case(public, "hyx (one key, one loop)", with_hyx),
        Case(public_sync, "pyresilience (one key)", resilient.acquire, asynchronous=False),
        Case(public_sync, "pyrate-limiter", lambda: bucket.try_acquire("a", blocking=False), asynchronous=False),
        Case(public_sync, "throttled-py", lambda: throttle["token_bucket"].limit("tenant"), asynchronous=False),
        Case("token bucket", "pyresilience", resilient.acquire, asynchronous=False),
        Case("token bucket", "pyrate-limiter", lambda: bucket.try_acquire("a", blocking=False), asynchronous=False),
        Case(
            "token bucket, keyed", "throttled-py", lambda: throttle["token_bucket"].limit("tenant"), asynchronous=False
        ),
        Case("sliding window", "limits (exact)", lambda: moving.hit(item, "tenant"), asynchronous=False),
        Case("sliding window", "limits (approximate)", lambda: counter.hit(item, "tenant"), asynchronous=False),
        Case("sliding window", "throttled-py", lambda: throttle["sliding_window"].limit("tenant"), asynchronous=False),
        Case("sliding window", "pyrate-limiter", lambda: log.try_acquire("a", blocking=False), asynchronous=False),
    ]


def composed() -> list[Case]:
    """Retry, breaker and timeout together."""
    group = "retry + breaker + timeout, async"

    async def in_time() -> None:
        async with asyncio.timeout(1):
            await callee()

    with_hyx = hyx.retry.retry(attempts=4)(hyx.circuitbreaker.consecutive_breaker()(hyx.timeout.timeout(1)(callee)))
    resilient = pyresilience.resilient(
        retry=pyresilience.RetryConfig(),
        circuit_breaker=pyresilience.CircuitBreakerConfig(),
        timeout=pyresilience.TimeoutConfig(seconds=1),
    )(callee)
    guarded = circuitbreaker.circuit(in_time)
    return [
        Case(group, "hyx", with_hyx),
        Case(group, "pyresilience", resilient),
        Case(group, "stamina + circuitbreaker + asyncio", stamina.retry(on=OSError, attempts=4)(guarded)),
        Case(
            group,
            "tenacity + circuitbreaker + asyncio",
            tenacity.retry(stop=tenacity.stop_after_attempt(4))(guarded),
        ),
    ]


async def cases() -> list[Case]:
    """All timed rows of the compared libraries. Some rows bind to the running loop, so the same loop must run them."""
    return [*await breakers(), *await open_breakers(), *retries(), *timeouts(), *limiters(), *composed()]


def _throttled() -> Any:
    store = throttled.MemoryStore(options={"MAX_SIZE": 200_000})
    throttle = throttled.Throttled(using="token_bucket", quota=throttled.per_hour(100), store=store)
    return throttle.limit


def _limits() -> Any:
    strategy = limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage())
    item = limits.RateLimitItemPerHour(100)
    return lambda key: strategy.hit(item, key)


def _limiter_per_key(make: Any) -> Any:
    kept: dict[str, Any] = {}

    def take(key: str) -> None:
        kept[key] = make()

    return take


KEYED = {
    "throttled-py": _throttled,
    "limits (fixed window)": _limits,
    "aiolimiter (one limiter per key)": lambda: _limiter_per_key(lambda: aiolimiter.AsyncLimiter(100, 3600)),
    "hyx (one limiter per key)": lambda: _limiter_per_key(lambda: hyx.ratelimit.tokenbucket(100, 3600, 100)),
    "pyresilience (one limiter per key)": lambda: _limiter_per_key(
        lambda: pyresilience.RateLimiter(pyresilience.RateLimiterConfig(max_calls=100, period=3600))
    ),
}
