"""Circuit breaker: stop calling what is known to be down (layer L3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from voice_policies.measure import Duration, PositiveDuration, PositiveRatio, Ratio
from voice_policies.policy import Policy


class CircuitBreaker(Policy):
    """When calls to one target are refused at once, and how it is tried again.

    Trips on whichever condition is met first: consecutive failures, or a ratio over a sliding window. A slow call is
    one whose attempt takes `slow_call_duration` or longer, whether or not it succeeds. Defaults are the platform's:
    opens after 5 failures, stays open 60 s, 3 probes half-open, 2 successes close it.
    """

    consecutive_failures: Annotated[int, Field(ge=1, le=10_000)] | None = 5
    """Failures in a row that open the breaker; `None` leaves it to the windows."""
    failure_ratio: PositiveRatio | None = None
    """Share of failed calls in the window that opens the breaker; `None` is off."""
    slow_call_ratio: PositiveRatio | None = None
    """Share of slow calls in the window that opens the breaker; `None` is off."""
    slow_call_duration: PositiveDuration | None = None
    """An attempt at least this long is slow; required with `slow_call_ratio`."""
    sampling_duration: PositiveDuration = Duration("30s")
    """Length of the sliding window that both ratios are taken over."""
    minimum_throughput: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Calls in the window below which no ratio opens the breaker (resilience4j's 100 is beyond a quiet edge)."""
    break_duration: PositiveDuration = Duration("60s")
    """How long the breaker stays open the first time."""
    break_duration_multiplier: Annotated[float, Field(ge=1, le=10)] = 1.5
    """Growth of the open time with each failed round of probes; back to the start when it closes."""
    max_break_duration: Duration = Duration("5m")
    """Cap on the grown open time."""
    break_duration_jitter: Ratio = Ratio("10%")
    """Random share added to each open time, so that replicas do not probe together."""
    half_open_max_requests: Annotated[int, Field(ge=1, le=1000)] = 3
    """Probes admitted while half-open; the rest are refused."""
    success_threshold: Annotated[int, Field(ge=1, le=1000)] = 2
    """Successful probes that close the breaker."""
    half_open_max_duration: PositiveDuration = Duration("30s")
    """A half-open round that has not decided by then counts as failed."""
    count_resource_exhausted: bool = False
    """Whether the callee's RESOURCE_EXHAUSTED (HTTP 429) counts as a failure: an overloaded callee is not a dead
    one."""

    def conflicts(self) -> Iterator[str]:
        """Settings that cannot hold together, a sentence each."""
        if self.consecutive_failures is None and self.failure_ratio is None and self.slow_call_ratio is None:
            yield "it can never open: set consecutive_failures, failure_ratio or slow_call_ratio"
        if self.success_threshold > self.half_open_max_requests:
            yield (
                f"success_threshold {self.success_threshold} can never be reached with half_open_max_requests "
                f"{self.half_open_max_requests}: lower the first or raise the second"
            )
        if (self.slow_call_ratio is None) != (self.slow_call_duration is None):
            yield "slow_call_ratio and slow_call_duration go together: set both or neither"
        if self.max_break_duration < self.break_duration:
            yield f"max_break_duration {self.max_break_duration} is below break_duration {self.break_duration}"
