"""One limit whose counts are in a store that replicas share.

A check takes at most one round trip to the store. While one check of a key runs, further requests of the key wait. The
next round trip asks for the admissions of all waiting requests together. If the store refuses, it answers with a wait.
During this wait the event loop does not ask the store again for the same key and the same or a higher cost.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from voice_policies import RateLimit, SlidingWindow, TokenBucket

from voice_runtime.clock import NEVER
from voice_runtime.outbound import Outbound
from voice_runtime.rate_limit.gate import SHORTEST_RETRY
from voice_runtime.rate_limit.keyed import EXAMINED
from voice_runtime.shared_store import Script, SharedStore

MICROSECONDS = 1_000_000
TOKEN_BUCKET = Script(Path(__file__).with_name("token_bucket.lua"))
SLIDING_WINDOW = Script(Path(__file__).with_name("sliding_window.lua"))


class Connection(NamedTuple):
    """The connection to the store. `call` is the declared call whose policies apply to the scripts."""

    store: SharedStore
    call: Outbound


class StoreUnavailableError(Exception):
    """The store did not answer, or the breaker refused the call."""


class _Share:
    """One key on one event loop: the admissions left in its lease, and the time until which the store refuses."""

    __slots__ = ("failures", "left", "lock", "name", "refused_cost", "refused_until", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        """The name of the key in the store."""
        self.lock = asyncio.Lock()
        self.left = self.waiting = self.failures = 0
        self.refused_cost = 0
        self.refused_until = -NEVER

    def refused_for(self, cost: int, now: float) -> float:
        """Seconds until the store may grant `cost`, according to the store's last answer."""
        return self.refused_until - now if cost >= self.refused_cost and now < self.refused_until else 0.0

    def is_idle(self, now: float) -> bool:
        """True if nothing is lost when this object is dropped."""
        return not self.left and not self.waiting and now >= self.refused_until


class _Turn:
    """The queue of one key. An `asyncio.Lock` serves waiters in order, and drops cancelled waiters."""

    __slots__ = ("cost", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.cost = 0


class SharedCount:
    """The keys of one limit on one event loop."""

    __slots__ = ("_arguments", "_now", "_policy", "_prefix", "_script", "_shares", "_turns")

    def __init__(self, prefix: str, policy: RateLimit, now: Callable[[], float]) -> None:
        self._prefix = prefix
        self._now = now
        self._shares: dict[str, _Share] = {}
        self._turns: dict[str, _Turn] = {}
        self.reconfigure(policy)

    def __len__(self) -> int:
        return len(self._shares)

    def reconfigure(self, policy: RateLimit) -> None:
        """Apply a new policy. Leases stay. Earlier refusals are forgotten, so the next request asks the store again."""
        self._policy = policy
        self._script, self._arguments = _script(policy)
        for share in list(self._shares.values()):  # a copy, because an event loop may add keys meanwhile
            share.refused_until = -NEVER

    async def take_by(self, latest: float, key: str, cost: int, connection: Connection) -> float:
        """Take `cost` as soon as it is available, and return 0.

        If `cost` would be available only after the time `latest`, take nothing and return the wait in seconds. Waiting
        requests of a key are served in order. A request whose earliest possible turn is after `latest` does not wait.
        Raises `StoreUnavailableError`.
        """
        turn = self._turns.get(key)
        if turn is None:
            wait = await self._take(key, cost, connection)
            if not wait or self._now() + wait > latest:
                return wait
            turn = self._turns.setdefault(key, _Turn())
        wait = self._earliest(key, turn.cost + cost)
        if self._now() + wait > latest:
            return wait
        turn.cost += cost
        try:
            async with asyncio.timeout(latest - self._now()):
                await turn.lock.acquire()
            try:
                while wait := await self._take(key, cost, connection):
                    if self._now() + wait > latest:
                        return wait
                    await asyncio.sleep(wait)
            finally:
                turn.lock.release()
        except TimeoutError:
            return max(self._earliest(key, turn.cost), SHORTEST_RETRY)  # other replicas took the admissions
        finally:
            turn.cost -= cost
            if not turn.cost:
                self._turns.pop(key, None)
        return 0.0

    def _earliest(self, key: str, cost: int) -> float:
        """The shortest wait in seconds for a queue of requests whose costs add up to `cost`.

        The sum of the wait that the store gave for the first request, and the time that the limit's rate needs for the
        other requests.
        """
        share = self._shares.get(key)
        if share is None:
            return 0.0
        pace = 0.0
        match self._policy.limit:
            case TokenBucket(rate=rate):
                pace = (cost - share.refused_cost) / rate.per_second
            case SlidingWindow(limit=limit, window=window):
                pace = (cost - 1) // limit * window.seconds
        return max(share.refused_until - self._now() + pace, 0.0)

    async def _take(self, key: str, cost: int, connection: Connection) -> float:
        share = self._shares.get(key)
        if share is None:
            share = self._new(key)
        elif share.left >= cost:
            share.left -= cost
            return 0.0
        elif (wait := share.refused_for(cost, self._now())) > 0:
            return wait
        failures = share.failures
        share.waiting += cost
        try:
            async with share.lock:
                if share.failures != failures:  # the request that asked for all waiting requests has failed
                    raise StoreUnavailableError
                return await self._settle(share, cost, connection)
        finally:
            share.waiting -= cost

    async def _settle(self, share: _Share, cost: int, connection: Connection) -> float:
        if share.left < cost:
            if (wait := share.refused_for(cost, self._now())) > 0:
                return wait
            needed, wanted = cost - share.left, share.waiting - share.left
            try:
                given = int(await self._ask(share.name, needed, max(self._policy.lease, wanted), connection))
            except Exception as error:
                share.failures += 1
                raise StoreUnavailableError from error
            if given < 0:
                wait = -given / MICROSECONDS
                share.refused_cost, share.refused_until = cost, self._now() + wait
                return wait
            share.left += given
        share.left -= cost
        return 0.0

    def _ask(self, name: str, needed: int, lease: int, connection: Connection) -> Awaitable[int]:
        store, call = connection
        return call.call(store.run, self._script, (name,), *self._arguments, needed, lease)

    def _new(self, key: str) -> _Share:
        """Add a key, and drop old idle keys.

        If there are too many keys, also drop old keys that are not idle, unless requests of the key wait. Admissions
        that are left in a dropped lease are lost.
        """
        now, shares = self._now(), self._shares
        for _ in range(min(EXAMINED, len(shares))):
            oldest = next(iter(shares))
            share = shares.pop(oldest)
            if share.waiting or (len(shares) + 1 < self._policy.max_keys and not share.is_idle(now)):
                shares[oldest] = share
        share = shares[key] = _Share(self._prefix + _digest(key))
        return share


def _digest(key: str) -> str:
    """The hash of a caller's key. It has a fixed length, and it keeps API keys out of the store."""
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).hexdigest() if key else ""


def _script(policy: RateLimit) -> tuple[Script, tuple[float, ...]]:
    """The script of a limit, and the first arguments of the script. The last two arguments are cost and lease."""
    match policy.limit:
        case TokenBucket(rate=rate, burst=burst):
            return TOKEN_BUCKET, (MICROSECONDS / rate.per_second, burst)
        case SlidingWindow(limit=limit, window=window):
            return SLIDING_WINDOW, (limit, window.seconds * MICROSECONDS)
    raise TypeError(f"{policy.limit.algorithm} limits are local: set scope to local")
