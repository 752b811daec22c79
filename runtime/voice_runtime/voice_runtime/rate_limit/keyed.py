"""Limits per key in bounded memory.

A key is unused when its bucket is full again, its window is empty, or enough time has passed for its adaptive rate to
recover. When a new key arrives, the two keys that were checked longest ago are checked. Each of these two is dropped if
it is unused. So unused keys disappear faster than new keys arrive, without a scan or a timer.

While the maximum number of keys is stored, further keys share one count. When there is room, a key gets its own count.
This count starts as a copy of the shared count. So a caller gains nothing by sending many keys, and a limited key never
gets a fresh burst.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Generic, Protocol, Self, TypeVar

from voice_policies import TokenBucket as Policy

from voice_runtime.clock import NEVER
from voice_runtime.rate_limit.token_bucket import SLACK

EXAMINED = 2
"""Number of stored keys that each new key checks. Above 1, so that unused keys leave faster than new keys arrive."""


class Limit(Protocol):
    """The limit of one key."""

    def take(self, now: float, cost: int = 1) -> float:
        """Take `cost`. Returns 0 if that succeeded, else the seconds until `cost` is available (or infinity)."""
        ...

    def wait(self, now: float, cost: int = 1) -> float:
        """Seconds until `cost` is available."""
        ...

    def is_full(self, now: float) -> bool:
        """True if this limit can be dropped, because a new limit would behave in the same way."""
        ...

    def inherit(self, other: Self) -> None:
        """Begin with the counts of `other`."""
        ...


L = TypeVar("L", bound=Limit)


class KeyedTokenBucket:
    """A token bucket for each key. A bucket is stored as one float: the time at which the bucket is full again."""

    __slots__ = (
        "_burst",
        "_full_at",
        "_interval",
        "_latest",
        "_lock",
        "_max_keys",
        "_overflow",
        "_queue",
        "_tolerance",
        "overflowed",
    )

    def __init__(self, rate: float, burst: int, max_keys: int) -> None:
        self._lock = Lock()
        self._full_at: dict[str, float] = {}
        """By key: the time at which its bucket is full again."""
        self._queue: deque[str] = deque()
        """The stored keys. The key that was checked longest ago is first."""
        self._overflow = self._latest = 0.0
        self.overflowed = 0
        self._set(rate, burst, max_keys)

    @classmethod
    def of(cls, policy: Policy, max_keys: int) -> KeyedTokenBucket:
        """The buckets of a policy."""
        return cls(policy.rate.per_second, policy.burst, max_keys)

    def _set(self, rate: float, burst: int, max_keys: int) -> None:
        self._interval = 1 / rate
        self._burst = burst
        self._tolerance = self._interval * (burst + SLACK)
        self._max_keys = max_keys

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: str, now: float, cost: int = 1) -> float:
        """Like `TokenBucket.take`, for `key`.

        A stored key needs no lock, because the interpreter switches threads only at calls and at the ends of loops. No
        such point lies between the read and the write of the key's time. A lock would take a quarter of this method's
        time.
        """
        if now < self._latest:
            now = self._latest
        else:
            self._latest = now
        try:
            full_at = self._full_at[key]
            start = full_at if full_at > now else now  # noqa: FURB136  # calling `max` is slower
            new = start + cost * self._interval
            if new <= now + self._tolerance:
                self._full_at[key] = new
                return 0.0
        except KeyError:
            return self._take_new(key, now, cost)
        return new - now - self._tolerance if cost <= self._burst else NEVER

    def wait(self, key: str, now: float, cost: int = 1) -> float:
        """Like `TokenBucket.wait`, for `key`."""
        full_at = self._full_at.get(key, self._overflow if len(self) >= self._max_keys else now)
        return max(max(full_at, now) + cost * self._interval - now - self._tolerance, 0.0)

    def reconfigure(self, rate: float, burst: int, max_keys: int, now: float) -> None:
        """Continue with another rate, burst and maximum number of keys. Tokens that were taken stay taken."""
        with self._lock:
            interval = self._interval
            self._set(rate, burst, max_keys)
            factor = self._interval / interval
            for key in list(self._full_at):
                full_at = self._full_at[key]  # no thread switch from here to the write, as in `take`
                self._full_at[key] = now + (full_at - now) * factor if full_at > now else now
            self._overflow = now + max(self._overflow - now, 0.0) * factor

    def _take_new(self, key: str, now: float, cost: int) -> float:
        if cost > self._burst:
            return NEVER
        with self._lock:
            self._forget_full(now)
            new = max(self._overflow, now) + cost * self._interval  # so far the key may have used the shared count
            wait = new - now - self._tolerance
            if key not in self._full_at:
                if wait > 0:
                    return wait
                if len(self._full_at) < self._max_keys:
                    self._full_at[key] = new
                    self._queue.append(key)
                else:
                    self._overflow = new
                    self.overflowed += 1
                return 0.0
        return self.take(key, now, cost)  # another thread has stored the key meanwhile

    def _forget_full(self, now: float) -> None:
        for _ in range(min(EXAMINED, len(self._queue))):
            key = self._queue.popleft()
            if self._full_at[key] > now:  # no thread switch from here to the deletion, as in `take`
                self._queue.append(key)
            else:
                del self._full_at[key]


class Keyed(Generic[L]):
    """One limit object for each key, for sliding windows and adaptive limits."""

    __slots__ = ("_limits", "_lock", "_make", "_max_keys", "_overflow", "_queue", "overflowed")

    def __init__(self, make: Callable[[], L], max_keys: int) -> None:
        self._lock = Lock()
        self._limits: dict[str, L] = {}
        self._queue: deque[str] = deque()
        self._make = make
        self._max_keys = max_keys
        self._overflow = make()
        self.overflowed = 0

    def __len__(self) -> int:
        return len(self._limits)

    def of(self, key: str, now: float) -> L:
        """The limit of `key`."""
        limit = self._limits.get(key)
        return limit if limit is not None else self._new(key, now)

    def take(self, key: str, now: float, cost: int = 1) -> float:
        """Like `Limit.take`, for `key`."""
        return self.of(key, now).take(now, cost)

    def wait(self, key: str, now: float, cost: int = 1) -> float:
        """Like `Limit.wait`, for `key`."""
        return self.of(key, now).wait(now, cost)

    def every(self) -> list[L]:
        """Every stored limit, and the limit that further keys share."""
        with self._lock:
            return [*self._limits.values(), self._overflow]

    def reconfigure(self, max_keys: int) -> None:
        """Continue with another maximum number of keys. The caller must reconfigure the stored limits."""
        self._max_keys = max_keys

    def _new(self, key: str, now: float) -> L:
        with self._lock:
            self._forget_full(now)
            if key in self._limits:
                return self._limits[key]
            if len(self._limits) >= self._max_keys:
                self.overflowed += 1
                return self._overflow
            self._queue.append(key)
            self._limits[key] = limit = self._make()
            limit.inherit(self._overflow)  # so far the key may have used the shared count
            return limit

    def _forget_full(self, now: float) -> None:
        for _ in range(min(EXAMINED, len(self._queue))):
            key = self._queue.popleft()
            if self._limits[key].is_full(now):
                del self._limits[key]
            else:
                self._queue.append(key)
