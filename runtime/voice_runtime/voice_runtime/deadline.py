"""How much time is left, carried by a context variable from the operation that began it to every call inside it."""

from __future__ import annotations

from voice_runtime.clock import NEVER
from voice_runtime.timeout import current_scope

MARGIN = 0.005
"""Seconds that the next hop gets less than is left here, for the way back; a tenth of it if that is less."""


def remaining() -> float | None:
    """Seconds left to the code that asks, at least 0; `None` where nothing limits it.

    A transport gives the next hop this much, less a margin: `next_hop`.
    """
    scope = current_scope()
    if scope is None or scope.expires == NEVER:
        return None
    return max(scope.expires - scope.owner.timer.now(), 0.0)


def next_hop(left: float) -> float:
    """The seconds that a transport passes to the next hop, from the seconds left here."""
    return left - min(MARGIN, left / 10)


def attempt_number() -> int:
    """The number of the attempt that the code belongs to, from 1; 0 outside of a call. Transports send it on."""
    scope = current_scope()
    return 0 if scope is None else scope.attempt
