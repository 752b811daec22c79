"""Rate limit: refuse early the requests that cannot be served."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import override

from voice_policies.measure import Duration, PositiveDuration, PositiveRatio, Rate, Ratio
from voice_policies.names import CallName
from voice_policies.policy import Policy

INTERVAL_JITTER = 0.1
"""Largest random share added to each interval of an adaptive limit, so that replicas do not change together."""
LONGEST_RECOVERY = 300
"""Seconds that an adaptive limit may take to recover: the same as a circuit breaker's default `max_break_duration`."""


class TokenBucket(Policy):
    """Admits requests at `rate` on average, and up to `burst` requests together (GCRA)."""

    algorithm: Literal["token_bucket"] = "token_bucket"
    rate: Rate
    """Sustained admissions."""
    burst: Annotated[int, Field(ge=1, le=1_000_000)]
    """Admissions together after idling. The limiter always refuses a request that costs more than `burst`."""

    @property
    def capacity(self) -> int:
        """Maximum number of admissions together."""
        return self.burst

    def share(self, share: Ratio) -> TokenBucket:
        """A part of this limit, rounded down. `burst` stays at least 1."""
        return TokenBucket(rate=self.rate * share, burst=_share_of(self.burst, share))


class SlidingWindow(Policy):
    """Admits at most `limit` requests in any span of `window`."""

    algorithm: Literal["sliding_window"] = "sliding_window"
    limit: Annotated[int, Field(ge=1, le=1_000_000)]
    """Admissions per window."""
    window: PositiveDuration
    """Length of the window."""

    @property
    def capacity(self) -> int:
        """Maximum number of admissions together."""
        return self.limit

    def share(self, share: Ratio) -> SlidingWindow:
        """A part of this limit, rounded down. `limit` stays at least 1."""
        return SlidingWindow(limit=_share_of(self.limit, share), window=self.window)


class Adaptive(Policy):
    """A token bucket whose rate follows the target's health: additive increase, multiplicative decrease (AIMD).

    The rate changes after `interval`, but not before `minimum_throughput` samples. It is multiplied by `decrease` if
    the error ratio or the P95 latency is above its threshold. Otherwise it is raised by `increase`. Idle time does not
    raise the rate. But the limiter forgets a key whose bucket has been full for `longest_recovery`, and the key's next
    request begins at `max_rate`.
    """

    algorithm: Literal["adaptive"] = "adaptive"
    min_rate: Rate
    """The rate never falls below this."""
    max_rate: Rate
    """The rate never rises above this; also the rate at the start."""
    burst: Annotated[int, Field(ge=1, le=1_000_000)]
    """Admissions together after idling."""
    error_ratio: Ratio = Ratio("5%")
    """Share of failed requests above which the rate falls."""
    latency: Duration | None = None
    """P95 latency above which the rate falls. If it is `None`, only the error ratio counts."""
    increase: Rate = Rate("1/s")
    """Added to the rate after a healthy interval."""
    decrease: Ratio = Ratio("50%")
    """Factor on the rate after an unhealthy interval."""
    interval: PositiveDuration = Duration("1s")
    """Shortest time between two changes of the rate, jittered across replicas."""
    minimum_throughput: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """Minimum number of samples for a change of the rate."""

    @property
    def longest_recovery(self) -> float:
        """Seconds from the end of an outage until the rate reaches `max_rate` or exceeds the demand.

        The result is an upper bound. A step takes an interval with its jitter, plus the time that its samples take at
        the rate of that step. One step is added, because the first interval may still hold samples of the outage. The
        integral of 1 ÷ rate is an upper bound for the sum of 1 ÷ rate over the steps. The limiter refuses a request
        that comes just before the bucket holds a token. So of requests at equal intervals it may admit only
        rate ÷ (1 + 1 ÷ burst).
        """
        lowest, highest, increase = (rate.per_second for rate in (self.min_rate, self.max_rate, self.increase))
        steps = math.ceil((highest - lowest) / increase) + 1
        seconds_per_sample = (2 / lowest + math.log(highest / lowest) / increase) * (1 + 1 / self.burst)
        return (
            steps * self.interval.seconds * (1 + INTERVAL_JITTER) + (self.minimum_throughput + 1) * seconds_per_sample
        )

    @override
    def conflicts(self) -> Iterator[str]:
        if self.max_rate < self.min_rate:
            yield f"max_rate {self.max_rate} is below min_rate {self.min_rate}"
        elif self.longest_recovery > LONGEST_RECOVERY:
            yield (
                f"it recovers from an outage in {self.longest_recovery:.0f} s, expected at most {LONGEST_RECOVERY} s: "
                "raise increase or min_rate, or lower interval or minimum_throughput"
            )
        if not 0 < self.decrease < 1:
            yield f"decrease {self.decrease} must be above 0% and below 100%"
        if not self.error_ratio < 1 and self.latency is None:
            yield f"error_ratio {self.error_ratio} is never exceeded: lower it, or set latency"


class RateLimit(Policy):
    """One limit: its algorithm, its key, and the place of its counters."""

    limit: Annotated[TokenBucket | SlidingWindow | Adaptive, Field(discriminator="algorithm")]
    key: Literal["none", "tenant", "user", "api_key"] = "none"
    """The key of the counters: each tenant, user or API key has a counter; `none` is one counter for all requests."""
    scope: Literal["local", "distributed"] = "local"
    """`local`: each replica counts for itself. `distributed`: all replicas share one count in Redis."""
    max_wait: Duration = Duration("0s")
    """Longest wait of a request for its admission; 0s refuses without a wait."""
    max_keys: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    """Maximum number of keys in memory. Unused keys are removed. While all keys of a local limit are in use, further
    keys share one count. A distributed limit instead drops an old key and the rest of the key's lease."""
    store: CallName | None = None
    """The outbound call that reaches the count of a distributed limit. The call's timeout bounds the wait for the
    store, and its circuit breaker stops calls to a store that is down."""
    lease: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Admissions that a replica takes from the store in one round trip and then grants locally. Over time the limit is
    exact. Within one window each replica may admit up to `lease` requests above the limit, because a lease from the
    window before may be left."""
    when_store_unavailable: Literal["open", "closed", "local_share"] = "local_share"
    """Behaviour of a distributed limit while its store is down: admit all, refuse all, or let each replica enforce its
    `local_share`."""
    local_share: PositiveRatio = Ratio("100%")
    """Part of the limit that one replica enforces while the store is unavailable."""

    @override
    def conflicts(self) -> Iterator[str]:
        distributed = self.scope == "distributed"
        if distributed != (self.store is not None):
            yield "a distributed limit needs a store, such as redis.access, and a local limit must have none"
        if self.lease > 1 and not distributed:
            yield f"lease {self.lease} needs a store: set scope to distributed"
        if isinstance(self.limit, Adaptive):
            if distributed:
                yield "an adaptive limit is local: it follows the outcomes in one replica; set scope to local"
        elif self.lease > self.limit.capacity:
            yield f"lease {self.lease} is above the capacity of the limit: {self.limit.capacity}"

    def of_one_replica(self) -> RateLimit:
        """The limit of one replica while the store is unavailable: this limit times `local_share`."""
        local = {"scope": "local", "store": None, "lease": 1}
        if isinstance(self.limit, Adaptive):
            return self.model_copy(update=local)
        return self.model_copy(update={**local, "limit": self.limit.share(self.local_share)})


def _share_of(count: int, share: Ratio) -> int:
    return max(1, math.floor(count * share.fraction))
