"""The libraries that docs/distributed-limits.md compares with ours. Each library checks its limit on one Valkey."""

from __future__ import annotations

import limits
import throttled.asyncio as throttled
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

from bench.shared_state.ours import LIMIT, Check

EXACT = 100
"""Limit of the moving window of the library `limits`, in admissions per minute. This window stores each admission. A
small limit keeps its checks fast."""


def cases(url: str) -> dict[str, Check]:
    """Name of each row → its check."""
    return _limits(url) | _throttled(url)


def _limits(url: str) -> dict[str, Check]:
    storage = RedisStorage(f"async+{url}", implementation="redispy")
    item = limits.RateLimitItemPerSecond(LIMIT)
    fixed, counter = FixedWindowRateLimiter(storage), SlidingWindowCounterRateLimiter(storage)
    moving, few = MovingWindowRateLimiter(storage), limits.RateLimitItemPerMinute(EXACT)
    return {
        "limits, fixed window": lambda: fixed.hit(item, "acme"),
        "limits, sliding window (approximate)": lambda: counter.hit(item, "acme"),
        "limits, moving window (exact, limit 100)": lambda: moving.hit(few, "acme"),
    }


def _throttled(url: str) -> dict[str, Check]:
    store = throttled.RedisStore(server=url)
    quota = throttled.per_sec(LIMIT, burst=LIMIT)

    def using(algorithm: str) -> Check:
        made = throttled.Throttled(using=algorithm, quota=quota, store=store)
        return lambda: made.limit("acme")

    return {
        f"throttled-py, {name.replace('_', ' ')}": using(name) for name in ("token_bucket", "gcra", "sliding_window")
    }
