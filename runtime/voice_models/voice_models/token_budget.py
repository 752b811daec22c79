"""Token budgets: the runtime reserves tokens before an attempt, and settles the used tokens once after it.

One script decides, in one round trip, on all of an attempt's budgets that are in the same store. Without a reachable
store each replica enforces its local share or refuses, as `when_store_unavailable` says.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from math import inf
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from voice_policies import Duration
from voice_policies import TokenBudget as Policy
from voice_runtime import Runtime, SharedStore
from voice_runtime.shared_store import Script

from voice_models.token_window import TokenWindow

TOKEN_BUDGET = Script(Path(__file__).with_name("token_budget.lua"))
MICROSECONDS = 1_000_000
RETRY_CLOSED = 1.0
"""`retry_after` in seconds while the store is down and the budget refuses all attempts."""


class Claim(NamedTuple):
    """A budget that must have room for an attempt."""

    budget: str
    """The budget's name in the bundle."""
    policy: Policy
    key: str
    """The tenant or the deployment."""

    @property
    def is_of_deployment(self) -> bool:
        """True if the budget belongs to a deployment. The budget of another candidate may then have room."""
        return self.policy.key == "deployment"


class BudgetExceededError(Exception):
    """A budget has no room. `wait` is the time in seconds until the budget may have room; infinity if it never will."""

    def __init__(self, claim: Claim, wait: float) -> None:
        super().__init__(f"budget {claim.budget} has no room")
        self.claim = claim
        self.wait = wait


class _Hold(NamedTuple):
    """The part of a reservation that one store holds. `store` is empty for the local share."""

    claims: tuple[Claim, ...]
    store: str
    expires: float
    """Time of the expiry in seconds: by the store's clock, or by this process's monotonic clock for the local share."""


@dataclass(slots=True)
class Reservation:
    """The tokens that one attempt holds."""

    tokens: int
    holds: list[_Hold] = field(default_factory=list)
    is_settled: bool = False


@dataclass(slots=True)
class BudgetStatistics:
    """The counts of one budget."""

    admitted: int = 0
    rejected: int = 0
    without_store: int = 0


class TokenBudgets:
    """The budgets of one process. `stores` maps outbound calls to their stores."""

    def __init__(self, runtime: Runtime, stores: Mapping[str, SharedStore]) -> None:
        self._runtime = runtime
        self._stores = stores
        self._windows: dict[str, dict[tuple[str, Duration], TokenWindow]] = {}
        """By the budget's name, because `max_keys` bounds the windows of each budget separately."""
        self._lock = Lock()
        """Guards the windows, because threads and event loops share them."""
        self.statistics: dict[str, BudgetStatistics] = {}

    async def reserve(self, claims: Iterable[Claim], tokens: int, total: float) -> Reservation:
        """Hold `tokens` in every budget. `total` is the longest time of the call in seconds.

        Raises `BudgetExceededError` if a budget has no room. After this error or a cancellation no budget holds the
        tokens. There is one exception: a store that has not answered yet may hold the tokens until they expire.
        """
        reservation = Reservation(tokens)
        try:
            for store, of_store in groupby(sorted(claims, key=_store_of), key=_store_of):
                await self._hold(reservation, tuple(of_store), store, total)
        except BaseException as error:
            if isinstance(error, BudgetExceededError):
                self._statistics_of(error.claim.budget).rejected += 1
            await asyncio.shield(self.settle(reservation, 0))  # settles even if the caller is cancelled again
            raise
        for claim in (claim for hold in reservation.holds for claim in hold.claims):
            self._statistics_of(claim.budget).admitted += 1
        return reservation

    async def settle(self, reservation: Reservation, used: int) -> None:
        """Replace the reservation by the tokens that were used. A second call changes nothing."""
        if reservation.is_settled:
            return
        reservation.is_settled = True
        for hold in reservation.holds:
            if hold.store:
                await self._settle_in_store(hold, reservation.tokens, used)
                continue
            with self._lock:
                for claim in hold.claims:
                    window, seconds = self._window(claim), claim.policy.window.seconds
                    window.settle(reservation.tokens, hold.expires, used, seconds, self._now())

    async def _hold(self, reservation: Reservation, claims: tuple[Claim, ...], store: str, total: float) -> None:
        expiry = total + max(claim.policy.expiry_margin.seconds for claim in claims)
        answer: list[int] | None = None
        if store in self._stores:
            for claim in claims:
                if reservation.tokens > claim.policy.tokens:
                    raise BudgetExceededError(claim, inf)
            try:
                answer = await self._run(claims, store, ("reserve", reservation.tokens, expiry, 0))
            except Exception:  # noqa: BLE001  # an open breaker, a timeout or an error: the store is unreachable
                answer = None
        if answer is None:
            self._hold_locally(reservation, claims, expiry)
        elif answer[0]:
            raise BudgetExceededError(claims[answer[0] - 1], answer[1] / MICROSECONDS)
        else:
            reservation.holds.append(_Hold(claims, store, answer[1]))

    def _hold_locally(self, reservation: Reservation, claims: tuple[Claim, ...], expiry: float) -> None:
        now = self._now()
        for claim in claims:
            policy = claim.policy
            self._statistics_of(claim.budget).without_store += 1
            if policy.when_store_unavailable == "closed":
                raise BudgetExceededError(claim, RETRY_CLOSED)
            share = max(int(policy.tokens * policy.local_share.fraction), 1)
            with self._lock:
                window = self._window(claim)
                wait = window.reserve(reservation.tokens, share, policy.window.seconds, now, now + expiry)
            if wait:
                raise BudgetExceededError(claim, wait)
            reservation.holds.append(_Hold((claim,), "", now + expiry))

    async def _settle_in_store(self, hold: _Hold, tokens: int, used: int) -> None:
        try:
            await self._run(hold.claims, hold.store, ("settle", tokens, hold.expires, used))
        except Exception:  # noqa: BLE001  # the store is unreachable; the reservation in it will expire
            for claim in hold.claims:
                self._statistics_of(claim.budget).without_store += 1

    async def _run(self, claims: tuple[Claim, ...], store: str, operation: tuple[str, int, float, int]) -> list[int]:
        keys = [self._key(claim) for claim in claims]
        limits = [number for claim in claims for number in (claim.policy.tokens, claim.policy.window.seconds)]
        call = self._runtime.outbound(store).unrepeated()
        answer: list[int] = await call.call(self._stores[store].run, TOKEN_BUDGET, keys, *operation, *limits)
        return answer

    def _key(self, claim: Claim) -> str:
        """The key in the store. A hash of fixed length replaces the name of the tenant or deployment.

        The key contains the window, because the window determines the length of a slot. So a changed window begins a
        new count.
        """
        digest = hashlib.blake2b(claim.key.encode(errors="surrogatepass"), digest_size=16).hexdigest()
        return f"{self._runtime.bundle.metadata.service}:token-budget:{claim.budget}:{claim.policy.window}:{digest}"

    def _window(self, claim: Claim) -> TokenWindow:
        windows, key = self._windows.setdefault(claim.budget, {}), (claim.key, claim.policy.window)
        window = windows.pop(key, None)
        if window is None:
            window = TokenWindow()
            if len(windows) >= claim.policy.max_keys:
                del windows[next(iter(windows))]
        windows[key] = window  # the most recently used window is last
        return window

    def _statistics_of(self, budget: str) -> BudgetStatistics:
        return self.statistics.setdefault(budget, BudgetStatistics())

    def _now(self) -> float:
        return self._runtime.clock.monotonic()


def _store_of(claim: Claim) -> str:
    return claim.policy.store


def retry_after_of(error: BudgetExceededError) -> float | None:
    """Seconds until the budget may have room for the refused tokens; `None` if it never will."""
    return None if error.wait == inf else error.wait


def claims_of(names: Iterable[str], budgets: Mapping[str, Policy], key: str) -> Iterator[Claim]:
    """The claims of one tenant or deployment on the named budgets."""
    for name in names:
        yield Claim(name, budgets[name], key)
