"""Adaptive limit: a token bucket whose rate follows the health of the served requests (AIMD).

At the end of an interval the limit judges the interval's samples. If the samples are unhealthy, the limit multiplies
the rate by `decrease`; otherwise it adds `increase` to the rate. An interval with fewer samples than
`minimum_throughput` continues until it has enough. So the rate also recovers for a key with few requests.

A decrease or a new policy begins a new epoch. Samples of requests that were admitted earlier are dropped, because they
measure the old rate.
"""

from __future__ import annotations

from random import Random
from threading import Lock

from voice_policies import INTERVAL_JITTER
from voice_policies import Adaptive as Policy

from voice_runtime.rate_limit.token_bucket import TokenBucket

SLOW_SHARE = 0.05
"""If more than this share of the samples exceeds a threshold, the P95 exceeds the threshold."""


class Adaptive:
    """The adaptive limit of one key."""

    __slots__ = ("_failures", "_lock", "_random", "_slow", "bucket", "ends", "epoch", "policy", "rate", "samples")

    def __init__(self, policy: Policy, now: float, random: Random) -> None:
        self._lock = Lock()
        self._random = random
        self.policy = policy
        self.rate = policy.max_rate.per_second
        self.bucket = TokenBucket(self.rate, policy.burst, now)
        self.epoch = 0
        self._begin_interval(now)

    def take(self, now: float, cost: int = 1) -> float:
        """Like `TokenBucket.take`, at the current rate."""
        return self.bucket.take(now, cost)

    def wait(self, now: float, cost: int = 1) -> float:
        """Like `TokenBucket.wait`, at the current rate."""
        return self.bucket.wait(now, cost)

    def is_full(self, now: float) -> bool:
        """True if the limit can be dropped.

        Either the rate is at its maximum and the bucket is full, or the bucket has been full for `longest_recovery`.
        """
        at_top = self.rate >= self.policy.max_rate.per_second
        return self.bucket.is_full(now if at_top else now - self.policy.longest_recovery)

    def inherit(self, other: Adaptive) -> None:
        """Begin with the rate and the admissions of `other`."""
        self.rate = other.rate
        self.bucket.reconfigure(self.rate, self.policy.burst, self.bucket.full_at)
        self.bucket.full_at = other.bucket.full_at

    def record(self, epoch: int, now: float, latency: float, *, failed: bool) -> None:
        """Add the sample of a served request that was admitted in `epoch`.

        Rejections and cancellations do not count.
        """
        with self._lock:
            if epoch != self.epoch:
                return
            self.samples += 1
            self._failures += failed
            self._slow += self.policy.latency is not None and latency > self.policy.latency.seconds
            if now >= self.ends and self.samples >= self.policy.minimum_throughput:
                self._judge(now)

    def reconfigure(self, policy: Policy, now: float) -> None:
        """Continue under a new policy, with a new interval.

        A rate at the old maximum moves to the new maximum. Any other rate stays, within the new bounds.
        """
        with self._lock:
            at_top = self.rate >= self.policy.max_rate.per_second
            self.policy = policy
            self._set_rate(policy.max_rate.per_second if at_top else self.rate, now)
            self._begin_epoch(now)

    def _judge(self, now: float) -> None:
        policy = self.policy
        unhealthy = self._failures > policy.error_ratio * self.samples or self._slow > SLOW_SHARE * self.samples
        if unhealthy:
            self._set_rate(self.rate * policy.decrease, now)
            self._begin_epoch(now)
        else:
            self._set_rate(self.rate + policy.increase.per_second, now)
            self._begin_interval(now)

    def _set_rate(self, rate: float, now: float) -> None:
        self.rate = min(max(rate, self.policy.min_rate.per_second), self.policy.max_rate.per_second)
        self.bucket.reconfigure(self.rate, self.policy.burst, now)

    def _begin_epoch(self, now: float) -> None:
        self.epoch += 1
        self._begin_interval(now)

    def _begin_interval(self, now: float) -> None:
        self.ends = now + self.policy.interval.seconds * (1 + INTERVAL_JITTER * self._random.random())
        self.samples = self._failures = self._slow = 0
