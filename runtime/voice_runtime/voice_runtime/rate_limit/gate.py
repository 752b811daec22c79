"""The gate of one rate limit: it admits a request, makes it wait, or refuses it."""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random
from typing import Protocol

from voice_policies import Adaptive as AdaptivePolicy
from voice_policies import RateLimit as Policy
from voice_policies import SlidingWindow as SlidingWindowPolicy
from voice_policies import TokenBucket as TokenBucketPolicy

from voice_runtime.caller import KEYS, Caller
from voice_runtime.clock import NEVER, Clock
from voice_runtime.errors import RateLimitedError
from voice_runtime.rate_limit.adaptive import Adaptive
from voice_runtime.rate_limit.keyed import Keyed, KeyedTokenBucket
from voice_runtime.rate_limit.sliding_window import SlidingWindow, WindowShape

SHORTEST_RETRY = 0.001
"""The smallest `retry_after` of a refusal, in seconds."""


class Limits(Protocol):
    """The counts of all keys of one limit in this process."""

    def take(self, key: str, now: float, cost: int = 1) -> float:
        """Take `cost` for `key`.

        Returns 0 if that succeeded, else the seconds until `cost` is available (or infinity).
        """
        ...

    def wait(self, key: str, now: float, cost: int = 1) -> float:
        """Seconds until `cost` is available for `key`."""
        ...

    def __len__(self) -> int:
        """Number of stored keys."""
        ...


class _Turn:
    """The queue of one key on one event loop.

    An `asyncio.Lock` serves waiters in order, and drops cancelled waiters.
    """

    __slots__ = ("cost", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.cost = 0


class Gate:
    """One local limit of one operation. The limit counts only the requests of this process."""

    __slots__ = (
        "_adaptive",
        "_capacity",
        "_clock",
        "_key",
        "_random",
        "_turns",
        "admitted",
        "limits",
        "max_wait",
        "now",
        "policy",
        "rejected",
        "target",
    )

    def __init__(self, target: str, policy: Policy, clock: Clock, random: Random) -> None:
        self.target = target
        self._follow(policy)
        self.now = clock.monotonic
        self._clock = clock
        self._random = random
        self._turns: dict[tuple[str, asyncio.AbstractEventLoop], _Turn] = {}
        self.admitted = self.rejected = 0
        self.limits: Limits = self._make()

    def __repr__(self) -> str:
        counts = f"{self.admitted} admitted, {self.rejected} rejected"
        return f"<Gate {self.target}: {self.policy.limit.algorithm}, {counts}>"

    def _follow(self, policy: Policy) -> None:
        self.policy = policy
        self.max_wait = policy.max_wait.seconds
        self._key = KEYS[policy.key]
        if isinstance(policy.limit, AdaptivePolicy):
            # A reload to another algorithm keeps `_adaptive`, because a request in flight may still add a key to the
            # old limits.
            self._adaptive = policy.limit
            self._capacity = policy.limit.burst
        else:
            self._capacity = policy.limit.capacity

    def keys(self) -> int:
        """Number of stored keys."""
        return len(self.limits)

    def reconfigure(self, policy: Policy) -> None:
        """Continue under a new policy. Counts stay, unless the limit's key or algorithm changed."""
        before = self.policy
        self._follow(policy)
        if (before.limit.algorithm, before.key) != (policy.limit.algorithm, policy.key):
            self.limits = self._make()
            return
        now, limits = self.now(), self.limits
        match policy.limit:
            case TokenBucketPolicy(rate=rate, burst=burst) if isinstance(limits, KeyedTokenBucket):
                limits.reconfigure(rate.per_second, burst, policy.max_keys, now)
            case SlidingWindowPolicy(limit=limit, window=window) if isinstance(limits, Keyed):
                limits.reconfigure(policy.max_keys)
                limits.every()[0].shape.reconfigure(limit, window.seconds)  # all keys share one `WindowShape`
            case AdaptivePolicy() as adaptive if isinstance(limits, Keyed):
                limits.reconfigure(policy.max_keys)
                for adapting in limits.every():
                    adapting.reconfigure(adaptive, now)

    def try_admit(self, caller: Caller, cost: int, now: float) -> bool:
        """Admit a request if no other request waits and the limit allows it.

        Returns false otherwise. The caller must then call `admit`.
        """
        if self._turns or self.limits.take(self._key(caller), now, cost):
            return False
        self.admitted += 1
        return True

    async def admit(self, caller: Caller, cost: int, deadline: float) -> None:
        """Admit a request within `max_wait` and before `deadline`. Raises `RateLimitedError` if that is impossible.

        Requests of one key on one event loop are admitted in their order of arrival.
        """
        key, now = self._key(caller), self.now()
        if not self._turns and not self.limits.take(key, now, cost):  # copied from `try_admit`, to save a call
            self.admitted += 1
            return
        turn = self._turns.get((key, asyncio.get_running_loop())) if self._turns else None
        if turn is None or cost > self._capacity:  # a cost above the capacity is never admitted
            wait = self.limits.take(key, now, cost)
        else:
            wait = self.limits.wait(key, now, turn.cost + cost)
        if wait or turn is not None:
            latest = min(now + self.max_wait, deadline)
            self._refuse_after(latest, now, wait)
            await self._take_turn(key, cost, latest)
        self.admitted += 1

    def admit_sync(self, caller: Caller, cost: int, deadline: float) -> None:
        """Like `admit`, for threads. Waiting threads are admitted in no fixed order."""
        now = self.now()
        key, latest = self._key(caller), min(now + self.max_wait, deadline)
        while wait := self.limits.take(key, now, cost):
            self._refuse_after(latest, now, wait)
            self._clock.sleep(wait)
            now = self.now()
        self.admitted += 1

    def adaptive(self, caller: Caller) -> Adaptive | None:
        """The adaptive limit that needs the results of this caller's requests. `None` if the limit is not adaptive."""
        limits = self.limits
        if not isinstance(limits, Keyed):
            return None
        limit = limits.of(self._key(caller), self.now())
        return limit if isinstance(limit, Adaptive) else None

    async def _take_turn(self, key: str, cost: int, latest: float) -> None:
        place = key, asyncio.get_running_loop()
        turn = self._turns.setdefault(place, _Turn())
        turn.cost += cost
        try:
            async with turn.lock:
                while wait := self.limits.take(key, self.now(), cost):
                    self._refuse_after(latest, self.now(), wait)
                    await asyncio.sleep(wait)
        finally:
            turn.cost -= cost
            if not turn.cost:
                del self._turns[place]

    def _refuse_after(self, latest: float, now: float, wait: float) -> None:
        if now + wait > latest:
            self.rejected += 1
            raise RateLimitedError(self.target, None if wait == NEVER else max(wait, SHORTEST_RETRY))

    def _make(self) -> Limits:
        match self.policy.limit:
            case TokenBucketPolicy() as policy:
                return KeyedTokenBucket.of(policy, self.policy.max_keys)
            case SlidingWindowPolicy(limit=limit, window=window):
                return Keyed(partial(SlidingWindow, WindowShape(limit, window.seconds)), self.policy.max_keys)
        return Keyed(self._adapting, self.policy.max_keys)

    def _adapting(self) -> Adaptive:
        return Adaptive(self._adaptive, self.now(), self._random)
