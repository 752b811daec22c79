"""Retry: further attempts after a transient failure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import override

from voice_policies.measure import Duration, PositiveDuration, Ratio
from voice_policies.policy import Policy

RetryCondition = Literal["unavailable", "attempt_timeout", "connection_failed", "resource_exhausted", "aborted"]
"""A transient outcome, with one name for gRPC, HTTP and stores.

`unavailable`: gRPC UNAVAILABLE, an RPC that the callee cancelled, HTTP 502 and 503, a lost connection.
`attempt_timeout`: the attempt's own timeout fired, gRPC DEADLINE_EXCEEDED, HTTP 504. `connection_failed`: the request
was certainly not sent. `resource_exhausted`: gRPC RESOURCE_EXHAUSTED or HTTP 429, and only if the callee sends a retry
delay. `aborted`: gRPC ABORTED, a serialization failure. A permanent error has no name here, so no policy can retry it.
"""


class RetryBudget(Policy):
    """A bound on the retries of one call in one process, so that retries do not multiply the load of an outage."""

    ratio: Ratio = Ratio("10%")
    """Retries per call over `window` (10 %: SRE book, ch. 21)."""
    reserve: Annotated[int, Field(ge=0, le=1000)] = 3
    """Retries per `window` in addition to `ratio`, so that a caller with few calls can retry."""
    window: PositiveDuration = Duration("10s")
    """Span over which calls and retries are counted (10 s as Finagle's and Linkerd's budgets)."""


class Retry(Policy):
    """Exponential backoff with full jitter: the n-th wait is uniform between 0 and the n-th cap.

    At most one layer retries the calls of an edge. The audit warns if the attempts of all calls on a path, multiplied,
    exceed 5.
    """

    max_retries: Annotated[int, Field(ge=0, le=10)] = 3
    """Attempts after the first: 3 means 4 attempts, 0 means 1 attempt."""
    base_delay: Duration = Duration("100ms")
    """Cap of the first wait."""
    multiplier: Annotated[float, Field(ge=1, le=10)] = 2.0
    """Growth of the cap from one wait to the next."""
    max_delay: Duration = Duration("10s")
    """Largest cap."""
    conditions: Annotated[tuple[RetryCondition, ...], Field(strict=False, min_length=1)] = (
        "unavailable",
        "attempt_timeout",
        "connection_failed",
    )
    """Outcomes worth another attempt. A call that is not idempotent retries only on `connection_failed`."""
    budget: RetryBudget = RetryBudget()

    @property
    def max_attempts(self) -> int:
        """Maximum number of attempts: the first attempt and every retry."""
        return self.max_retries + 1

    def longest_wait(self) -> Duration:
        """Sum of all backoffs at their caps. An overall timeout must leave room for this sum."""
        waits = [
            min(self.base_delay.units * self.multiplier**number, self.max_delay.units)
            for number in range(self.max_retries)
        ]
        return Duration.of_units(round(sum(waits)))

    @override
    def conflicts(self) -> Iterator[str]:
        if self.max_delay < self.base_delay:
            yield f"max_delay {self.max_delay} is below base_delay {self.base_delay}"
