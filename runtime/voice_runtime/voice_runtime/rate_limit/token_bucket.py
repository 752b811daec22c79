"""Token bucket, as the generic cell rate algorithm (GCRA).

Instead of a count of tokens it stores the theoretical arrival time: the time at which the bucket is full again.
"""

from __future__ import annotations

from threading import Lock

from voice_policies import TokenBucket as Policy

from voice_runtime.clock import NEVER

SLACK = 1e-4
"""The bucket admits a request that lacks up to 0.0001 tokens, because sums of floating-point times are not exact. The
next requests wait until the missing part has arrived too, so the average rate stays exact."""


class TokenBucket:
    """Admits at most `rate` tokens a second on average, and at most `burst` tokens at the same time."""

    __slots__ = ("_latest", "_lock", "_tolerance", "burst", "full_at", "interval")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._lock = Lock()
        self.full_at = self._latest = now
        self._set(rate, burst)

    @classmethod
    def of(cls, policy: Policy, now: float) -> TokenBucket:
        """The bucket of a policy, full."""
        return cls(policy.rate.per_second, policy.burst, now)

    def _set(self, rate: float, burst: int) -> None:
        self.interval = 1 / rate
        self.burst = burst
        self._tolerance = self.interval * (burst + SLACK)

    def take(self, now: float, cost: int = 1) -> float:
        """Take `cost` tokens.

        Returns 0 if they are available. Otherwise it returns the wait in seconds: infinity if `cost` exceeds the burst.
        """
        self._lock.acquire()  # try and finally take half the time of `with`
        try:
            if now < self._latest:
                now = self._latest  # a clock that ran backwards refills nothing
            else:
                self._latest = now
            full_at = self.full_at
            start = full_at if full_at > now else now  # noqa: FURB136  # `max` would take as long as the rest of the function
            new = start + cost * self.interval
            if new <= now + self._tolerance:
                self.full_at = new
                return 0.0
        finally:
            self._lock.release()
        return new - now - self._tolerance if cost <= self.burst else NEVER

    def wait(self, now: float, cost: int = 1) -> float:
        """Seconds until `cost` tokens are available. `cost` may exceed `burst`.

        Example: the rate is 10 tokens per second, and the burst of 5 tokens is full. A cost of 8 tokens waits 0.3 s.
        """
        return max(max(self.full_at, now) + cost * self.interval - now - self._tolerance, 0.0)

    def is_full(self, now: float) -> bool:
        """True if the bucket is full. A full bucket can be dropped, because a new bucket is full too."""
        return self.full_at <= now

    def reconfigure(self, rate: float, burst: int, now: float) -> None:
        """Continue with another rate and burst. Tokens that were taken stay taken."""
        with self._lock:
            taken = max(self.full_at - now, 0.0) / self.interval
            self._set(rate, burst)
            self.full_at = now + taken * self.interval
