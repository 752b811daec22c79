"""How much time is left, carried by a context variable from the operation that began it to every call inside it."""

from __future__ import annotations

from contextvars import ContextVar

from voice_runtime.clock import SYSTEM_CLOCK

NEVER = float("inf")


class Scope:
    """A stretch of work with an end: an inbound operation, or one attempt of an outbound call.

    Scopes nest by the context variable, also into child tasks, which copy their parent's context.
    """

    __slots__ = ("attempt", "expired", "expires", "parent", "retries_spent")

    parent: Scope | None
    expires: float
    """When it must end, by the monotonic clock."""
    attempt: int
    """The number of the attempt, from 1; 0 where nothing is attempted."""
    expired: bool
    """Whether its timer fired: what is cancelled inside is cancelled by the deadline, not by the caller."""
    retries_spent: bool
    """Whether a call inside has spent its retries, so that another attempt out here would multiply them."""

    def ended_by_deadline(self) -> bool:
        """Whether the timer of this scope, or of one around it, fired."""
        scope: Scope | None = self
        while scope is not None:
            if scope.expired:
                return True
            scope = scope.parent
        return False


CURRENT: ContextVar[Scope | None] = ContextVar("voice_runtime_scope", default=None)


def remaining() -> float | None:
    """Seconds left to the code that asks, at least 0; `None` where nothing limits it.

    A transport gives the next hop this much, less a margin for the way back.
    """
    scope = CURRENT.get()
    if scope is None or scope.expires == NEVER:
        return None
    return max(scope.expires - SYSTEM_CLOCK.monotonic(), 0.0)


def attempt_number() -> int:
    """The number of the attempt that the code belongs to, from 1; 0 outside of a call. Transports send it on."""
    scope = CURRENT.get()
    return 0 if scope is None else scope.attempt
