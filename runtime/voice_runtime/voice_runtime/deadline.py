"""The remaining time, passed in a context variable from an operation to every call inside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from voice_runtime.clock import NEVER
from voice_runtime.context_variables import restore
from voice_runtime.timeout import CURRENT, current_scope

MARGIN = 0.005
"""Seconds that the answer needs to reach the caller. The transport subtracts this margin from the time that it sends
to the next hop. If a tenth of the remaining time is smaller than the margin, it subtracts the tenth."""


def remaining() -> float | None:
    """Seconds left for the calling code, at least 0. `None` without a deadline.

    Transports send `next_hop(remaining())` to the callee.
    """
    scope = current_scope()
    if scope is None or scope.expires == NEVER:
        return None
    return max(scope.expires - scope.owner.timer.now(), 0.0)


def next_hop(left: float) -> float:
    """The seconds that a transport sends to the next hop when `left` seconds remain here."""
    return left - min(MARGIN, left / 10)


def attempt_number() -> int:
    """The number of the current attempt, from 1; 0 outside a call. Transports send it."""
    scope = current_scope()
    return 0 if scope is None else scope.attempt


@contextmanager
def detached() -> Iterator[None]:
    """A block for work that outlives its request, such as `task = asyncio.create_task(send_receipt())`.

    The deadline of the request does not apply to tasks and threads that start in the block, nor to their calls. If
    one of these calls exhausts its retries, the runtime still retries the attempt that contains the block. In these
    tasks and threads `current_request()` is `None`. The tasks keep trace and baggage. Keep a reference to the task, and
    await it before the process stops.
    """
    token = CURRENT.set(None)
    try:
        yield
    finally:
        restore(token)
