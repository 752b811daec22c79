"""The gate of a distributed limit: all replicas share one count in a store.

lease of this process ─▶ circuit breaker ─▶ timeout ─▶ script in the store
                                └── open, failed or too late: admit, refuse, or count this replica's share,
                                    as `when_store_unavailable` says
"""

from __future__ import annotations

from random import Random

from voice_policies import Adaptive as AdaptivePolicy
from voice_policies import RateLimit as Policy

from voice_runtime.caller import KEYS, Caller
from voice_runtime.clock import Clock
from voice_runtime.errors import RateLimitedError
from voice_runtime.rate_limit.adaptive import Adaptive
from voice_runtime.rate_limit.gate import SHORTEST_RETRY, Gate
from voice_runtime.rate_limit.shared_count import Connection, SharedCount, StoreUnavailableError
from voice_runtime.shared_store import LoopThread, PerLoop

RETRY_CLOSED = 1.0
"""`retry_after` in seconds of a request that is refused because the store is down."""
_SYNCHRONOUS = LoopThread()


class DistributedGate:
    """One distributed limit of one operation. Without a connection it behaves as if its store were down."""

    __slots__ = (
        "_capacity",
        "_clock",
        "_counts",
        "_local_capacity",
        "_name",
        "_prefix",
        "admitted",
        "connection",
        "local",
        "policy",
        "rejected",
        "target",
        "without_store",
    )

    def __init__(self, target: str, name: str, policy: Policy, clock: Clock, random: Random) -> None:
        """Create the gate. `name` is the prefix of the limit's keys in the store."""
        self.target = target
        self.connection: Connection | None = None
        """The connection to the store. Each reload of the bundle replaces it. `None` without a store."""
        self.admitted = self.rejected = self.without_store = 0
        self._name = name
        self._clock = clock
        one_replica = policy.of_one_replica()
        self.local = Gate(target, one_replica, clock, random)
        self._set(policy, one_replica)
        self._counts = PerLoop(lambda: SharedCount(self._prefix, self.policy, clock.monotonic))

    def _set(self, policy: Policy, one_replica: Policy) -> None:
        self.policy = policy
        self._capacity, self._local_capacity = _capacity(policy), _capacity(one_replica)
        self._prefix = f"{self._name}:{policy.limit.algorithm}:{policy.key}:"

    def keys(self) -> int:
        """Number of keys that this process stores."""
        return self.local.keys() + sum(len(count) for count in self._counts.values())

    def reconfigure(self, policy: Policy) -> None:
        """Continue under a new policy. Counts stay, unless the limit's key or algorithm changed."""
        prefix, one_replica = self._prefix, policy.of_one_replica()
        self._set(policy, one_replica)
        self.local.reconfigure(one_replica)
        if self._prefix != prefix:
            self._counts.clear()
        for count in self._counts.values():
            count.reconfigure(policy)

    def try_admit(self, caller: Caller, cost: int, now: float) -> bool:  # noqa: ARG002  # as `Gate.try_admit`
        """Return false: `admit` decides, because it may have to ask the store."""
        return False

    async def admit(self, caller: Caller, cost: int, deadline: float) -> None:
        """Admit a request by `deadline` and within `max_wait`. Raises only `RateLimitedError`, even without a store."""
        latest = min(self._clock.monotonic() + self.policy.max_wait.seconds, deadline)
        try:
            try:
                await self._pass(caller, cost, latest)
            except StoreUnavailableError:
                self.without_store += 1
                await self._pass_without_store(caller, cost, latest)
        except RateLimitedError:
            self.rejected += 1
            raise
        self.admitted += 1

    def admit_sync(self, caller: Caller, cost: int, deadline: float) -> None:
        """Like `admit`, for threads. Also raises `NoThreadError` if the event loop's thread cannot start."""
        _SYNCHRONOUS.run(self.admit(caller, cost, deadline))

    def adaptive(self, caller: Caller) -> Adaptive | None:  # noqa: ARG002  # as `Gate.adaptive`
        """Return `None`, because an adaptive limit is never distributed."""
        return None

    async def _pass(self, caller: Caller, cost: int, latest: float) -> None:
        if cost > self._capacity:
            raise RateLimitedError(self.target)
        connection = self.connection
        if connection is None:
            raise StoreUnavailableError
        wait = await self._counts.get().take_by(latest, KEYS[self.policy.key](caller), cost, connection)
        if wait:
            raise RateLimitedError(self.target, max(wait, SHORTEST_RETRY))

    async def _pass_without_store(self, caller: Caller, cost: int, latest: float) -> None:
        mode = self.policy.when_store_unavailable
        if mode == "closed" or (mode == "local_share" and cost > self._local_capacity):
            raise RateLimitedError(self.target, RETRY_CLOSED)
        if mode == "local_share":
            await self.local.admit(caller, cost, latest)


def _capacity(policy: Policy) -> int:
    if isinstance(policy.limit, AdaptivePolicy):
        raise TypeError("an adaptive limit is local: set scope to local")
    return policy.limit.capacity
