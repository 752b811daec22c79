"""Default policies for each kind of edge, with their arithmetic.

With three retries a hop makes 4 attempts, and seven such hops make 4⁷ = 16,384 attempts. So leaf hops (a store, a
provider) make at most 2 attempts, one interior hop (knowledge-service → retrieval-service) makes 2, and every other
interior hop makes 1. Any path makes at most 2 × 2 = 4 attempts.
"""

from __future__ import annotations

from voice_policies import Adaptive, Bulkhead, Duration, Rate, RateLimit, Retry, SlidingWindow, TokenBucket

LEAF_RETRY = Retry(max_retries=1, base_delay=Duration("50ms"), max_delay=Duration("50ms"))
"""A second attempt at a store. A wait of 50 ms is enough: after a failover the caller needs only a new connection."""
INTERIOR_RETRY = Retry(
    max_retries=1,
    base_delay=Duration("100ms"),
    max_delay=Duration("100ms"),
    conditions=("unavailable", "connection_failed"),
)
"""Retry of the only interior hop that retries. It retries after the loss of a pod, but not after a timeout, because
a retry after a timeout would double the wait."""

MODELS_LOADED = Duration("180s")
"""Longest start of a service that loads models from its image. At 100 MB/s a cold disk reads 18 GB in this time."""


def per_tenant(rate: str, burst: int) -> tuple[RateLimit, ...]:
    """A token bucket for each tenant, shared by all replicas."""
    limit = TokenBucket(rate=Rate(rate), burst=burst)
    return (RateLimit(limit=limit, key="tenant", scope="distributed", store="redis.access"),)


def per_user(limit: int, window: str) -> tuple[RateLimit, ...]:
    """A sliding window for each user of a tenant, in each replica. A user's WebSocket stays at one replica."""
    return (RateLimit(limit=SlidingWindow(limit=limit, window=Duration(window)), key="user"),)


def following_health(max_rate: str) -> tuple[RateLimit, ...]:
    """A limit in each replica. It falls while the provider fails.

    The limit recovers within 30 s once the provider works again. It grows by a tenth of `max_rate` each second. A
    change needs ten calls (`minimum_throughput`). At the lowest rate, 5/s, ten calls take 2 s, so the limit grows only
    every 2 s.
    """
    rate = Rate(max_rate)
    increase = Rate(f"{rate.count // 10}/s")
    return (RateLimit(limit=Adaptive(min_rate=Rate("5/s"), max_rate=rate, increase=increase, burst=rate.count)),)


def provider_bulkhead(max_concurrent: int) -> Bulkhead:
    """Bound each replica's calls to a provider, because we do not control the provider's latency."""
    return Bulkhead(max_concurrent=max_concurrent)
