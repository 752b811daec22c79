"""The tokens of one budget in one process, counted over a sliding window.

Spent tokens are counted in slots. A window has 64 slots. All tokens of a slot become free together, when the end of
the slot leaves the window. Example: a window of 64 s has slots of 1 s. Tokens that were spent at 10.2 s become free at
75 s, not at 74.2 s. Held tokens are grouped by the second in which their reservation expires.

`token_budget.lua` counts in the same way in a store.
"""

from __future__ import annotations

import math

RESOLUTION = 64
RETRY_HELD = 1.0
"""Seconds that a refused attempt waits while calls in flight hold the tokens. The time is a guess, because nobody knows
when these calls end."""


class TokenWindow:
    """Held and spent tokens. A reservation never raises `used` above the limit, but a settlement may."""

    __slots__ = ("_held", "_spent")

    def __init__(self) -> None:
        self._held: dict[int, int] = {}
        self._spent: dict[int, int] = {}

    def reserve(self, cost: int, limit: int, window: float, now: float, expires: float) -> float:
        """Hold `cost` tokens until `expires`.

        Returns 0 if they fit. Otherwise returns the seconds until they may fit, or infinity if they never will.
        """
        if cost > limit:
            return math.inf
        excess = self.used(window, now) + cost - limit
        if excess > 0:
            return self._wait(excess, window, now)
        second = math.ceil(expires)
        self._held[second] = self._held.get(second, 0) + cost
        return 0.0

    def settle(self, cost: int, expires: float, used: int, window: float, now: float) -> None:
        """Replace a reservation by the tokens that were used. The reservation may have expired."""
        self._drop(window, now)
        second = math.ceil(expires)
        if second in self._held:
            self._held[second] -= cost
            if self._held[second] <= 0:
                del self._held[second]
        slot = int(now // (window / RESOLUTION))
        self._spent[slot] = self._spent.get(slot, 0) + used

    def used(self, window: float, now: float) -> int:
        """The number of tokens that are held or spent now."""
        self._drop(window, now)
        return sum(self._held.values()) + sum(self._spent.values())

    def _drop(self, window: float, now: float) -> None:
        oldest = int(now // (window / RESOLUTION)) - RESOLUTION
        for slot in [slot for slot in self._spent if slot < oldest]:
            del self._spent[slot]
        for second in [second for second in self._held if second <= now]:
            del self._held[second]

    def _wait(self, excess: int, window: float, now: float) -> float:
        grain = window / RESOLUTION
        for slot in sorted(self._spent):
            excess -= self._spent[slot]
            if excess <= 0:
                return (slot + RESOLUTION + 1) * grain - now
        return RETRY_HELD
