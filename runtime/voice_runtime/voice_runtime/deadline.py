"""The remaining time, passed in a context variable from an operation to every call inside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from voice_runtime.clock import NEVER
from voice_runtime.context_variables import restore
from voice_runtime.timeout import CURRENT, current_scope

MARGIN = 0.005
"""Seconds that the answer needs to reach the caller. `next_hop` subtracts them from the remaining time."""


def remaining() -> float | None:
    """Seconds left for the calling code, at least 0. `None` without a deadline.

    Transports send `next_hop(remaining())` to the callee.
    """
    scope = current_scope()
    if scope is None or scope.expires == NEVER:
        return None
    return max(scope.expires - scope.owner.timer.now(), 0.0)


def next_hop(left: float) -> float:
    """The seconds that a transport sends to the next hop when `left` seconds remain here.

    Subtracts `MARGIN`, but at most a tenth: 1 s becomes 0.995 s, and 10 ms become 9 ms.
    """
    return left - min(MARGIN, left / 10)


def attempt_number() -> int:
    """The number of the current attempt, from 1; 0 outside a call. Transports send it."""
    scope = current_scope()
    return 0 if scope is None else scope.attempt


@contextmanager
def detached() -> Iterator[None]:
    """A block for work that outlives its request. Start the work inside: `task = asyncio.create_task(send_receipt())`.

    Tasks and threads that start in the block have no deadline, and `current_request()` is `None` in them. The tasks
    keep trace and baggage. If one of their calls exhausts its retries, the runtime may still retry the request's
    own attempt. Keep a reference to the task, and await it before the process stops.
    """
    token = CURRENT.set(None)
    try:
        yield
    finally:
        restore(token)
