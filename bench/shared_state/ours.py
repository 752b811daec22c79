"""Rows of docs/distributed-limits.md: checks by the runtime, and the baseline, which only sends the scripts."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from redis.asyncio import Redis
from voice_policies import CircuitBreaker as CircuitBreakerPolicy
from voice_policies import Duration, Rate, RateLimit, SlidingWindow, TokenBucket
from voice_runtime import Caller, CircuitBreaker, Outbound
from voice_runtime.rate_limit.distributed import DistributedGate
from voice_runtime.rate_limit.shared_count import SLIDING_WINDOW, TOKEN_BUCKET, Connection
from voice_runtime.redis import RedisStore, single

LIMIT = 1_000_000
"""Admissions per second. The bench makes fewer checks, so every check is admitted."""
LEASES = (1, 10, 100)
DEFAULT, ALIKE = "bare EVALSHA", "bare EVALSHA without redis-py's timeouts"
CALLER = Caller(tenant="acme")
Check = Callable[[], Awaitable[Any]]
BUCKET = TokenBucket(rate=Rate(f"{LIMIT}/s"), burst=LIMIT)
WINDOW = SlidingWindow(limit=LIMIT, window=Duration("1s"))


PATIENCE = 30.0
"""Timeout of the call to the store in seconds. It is long, so that no check is decided without the store."""


def name(lease: int) -> str:
    """The prefix of the keys of a gate."""
    return f"bench:rate-limit:run:{lease}"


def gate(url: str, limit: TokenBucket | SlidingWindow, lease: int = 1) -> DistributedGate:
    """A gate as in a service. It counts by tenant. A breaker and a timeout bound its call to the store."""
    policy = RateLimit(limit=limit, key="tenant", scope="distributed", store="redis.access", lease=lease)
    made = DistributedGate("run", name(lease), policy, time, Random(7))  # noqa: S311  # not a secret
    breaker = CircuitBreaker("redis.access", CircuitBreakerPolicy())
    call = Outbound("redis.access", attempt_timeout=PATIENCE, breaker=breaker)
    made.connection = Connection(RedisStore(lambda: single(url)), call)
    return made


def check(made: DistributedGate) -> Check:
    """A function that makes the check of one request."""
    return lambda: made.admit(CALLER, 1, float("inf"))


def cases(url: str) -> dict[str, Check]:
    """Title of a row → its check by the runtime."""
    leases = {
        f"voice_runtime, token bucket, lease {lease}": check(gate(url, BUCKET, lease)) for lease in LEASES if lease > 1
    }
    return {
        "voice_runtime, token bucket": check(gate(url, BUCKET)),
        "voice_runtime, sliding window": check(gate(url, WINDOW)),
        **leases,
    }


async def bare(url: str) -> dict[str, Check]:
    """Checks that only send the scripts: two with redis-py's defaults, and two without redis-py's timeouts."""
    plain, untimed = Redis.from_url(url), Redis.from_url(url, socket_timeout=None)
    for script in (TOKEN_BUCKET, SLIDING_WINDOW):
        await plain.script_load(script.text)

    def bucket(client: Redis) -> Check:
        return lambda: client.evalsha(TOKEN_BUCKET.sha, 1, "bare:bucket", 1, LIMIT, 1, 1)

    def window(client: Redis) -> Check:
        return lambda: client.evalsha(SLIDING_WINDOW.sha, 1, "bare:log", LIMIT, 1e6, 1, 1)

    return {
        f"{DEFAULT}, token bucket": bucket(plain),
        f"{DEFAULT}, sliding window": window(plain),
        f"{ALIKE}, token bucket": bucket(untimed),
        f"{ALIKE}, sliding window": window(untimed),
    }
