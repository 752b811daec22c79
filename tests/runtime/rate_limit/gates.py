from __future__ import annotations

import time
from random import Random
from typing import Any

from voice_policies import CircuitBreaker as CircuitBreakerPolicy
from voice_policies import Duration, Rate, RateLimit, SlidingWindow, TokenBucket
from voice_runtime import CircuitBreaker, Outbound, RateLimitedError
from voice_runtime.caller import NOBODY, Caller
from voice_runtime.clock import Clock
from voice_runtime.rate_limit.distributed import DistributedGate
from voice_runtime.rate_limit.shared_count import Connection
from voice_runtime.shared_store import SharedStore

FOREVER = float("inf")
NAME = "agent-engine:rate-limit:run:0"
BREAKER = CircuitBreakerPolicy(break_duration=Duration("200ms"), max_break_duration=Duration("200ms"))


def bucket(rate: str, burst: int) -> TokenBucket:
    return TokenBucket(rate=Rate(rate), burst=burst)


def window(limit: int, length: str) -> SlidingWindow:
    return SlidingWindow(limit=limit, window=Duration(length))


def shared(limit: TokenBucket | SlidingWindow, **fields: Any) -> RateLimit:
    return RateLimit(limit=limit, scope="distributed", store="redis.access", **fields)


def guarded(timeout: float = 5.0) -> Outbound:
    """A call to the store, with a breaker. Its timeout is long, because the machine may be busy."""
    return Outbound("redis.access", attempt_timeout=timeout, breaker=CircuitBreaker("redis.access", BREAKER))


def gate(store: SharedStore | None, policy: RateLimit, *, timeout: float = 5.0, clock: Clock = time) -> DistributedGate:
    made = DistributedGate("run", NAME, policy, clock, Random(7))  # noqa: S311  # not a secret
    made.connection = None if store is None else Connection(store, guarded(timeout))
    return made


async def passes(limited: DistributedGate, caller: Caller = NOBODY, cost: int = 1) -> bool:
    try:
        await limited.admit(caller, cost, FOREVER)
    except RateLimitedError as error:
        assert error.retry_after is None or error.retry_after > 0
        return False
    return True
