"""Circuit breaker: stop calling a callee that is down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field
from typing_extensions import override

from voice_policies.measure import Duration, PositiveDuration, PositiveRatio, Ratio
from voice_policies.policy import Policy


class CircuitBreaker(Policy):
    """The conditions that stop calls to a callee, and the probes that resume them.

    The breaker opens on the condition that is met first: consecutive failures, or a ratio over a sliding window. A call
    is slow if its attempt takes `slow_call_duration` or longer, even if it succeeds. For a successful stream, only the
    time until its first message counts. By default the breaker opens after 5 failures, stays open for 60 s, then admits
    3 probes, and closes after 2 successful probes.
    """

    consecutive_failures: Annotated[int, Field(ge=1, le=10_000)] | None = 5
    """Failures in a row that open the breaker. `None`: only the ratios open it."""
    failure_ratio: PositiveRatio | None = None
    """Share of failed calls in the window that opens the breaker; `None` is off."""
    slow_call_ratio: PositiveRatio | None = None
    """Share of slow calls in the window that opens the breaker; `None` is off."""
    slow_call_duration: PositiveDuration | None = None
    """An attempt at least this long is slow. Set it together with `slow_call_ratio`."""
    sampling_duration: PositiveDuration = Duration("30s")
    """Length of the sliding window of both ratios."""
    minimum_throughput: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Minimum number of calls in the window. With fewer calls no ratio opens the breaker. resilience4j's default of 100
    is too high for rare calls."""
    break_duration: PositiveDuration = Duration("60s")
    """Time for which the breaker stays open before the first round of probes."""
    break_duration_multiplier: Annotated[float, Field(ge=1, le=10)] = 1.5
    """Factor on the open time after each failed or interrupted round of probes. Closing resets the open time."""
    max_break_duration: Duration = Duration("5m")
    """Upper bound of the open time after any number of failed rounds. Jitter comes on top of this bound."""
    break_duration_jitter: Ratio = Ratio("10%")
    """Largest random share added to each open time, so that replicas do not probe together."""
    half_open_max_requests: Annotated[int, Field(ge=1, le=1000)] = 3
    """Limit for running plus successful probes of a half-open breaker. At the limit the breaker refuses calls."""
    success_threshold: Annotated[int, Field(ge=1, le=1000)] = 2
    """Successful probes that close the breaker."""
    half_open_max_duration: PositiveDuration = Duration("30s")
    """Time after which a probe without an answer opens the breaker again. If this probe succeeds later,
    the success still counts towards `success_threshold`."""
    count_resource_exhausted: bool = False
    """RESOURCE_EXHAUSTED (HTTP 429) counts as a failure. Off by default: an overloaded callee is not down."""

    @classmethod
    def for_restart(cls, restart: Duration) -> CircuitBreaker:
        """The default breaker, but with a break of `restart`.

        `restart` is the time from a restart of the callee until its first good answer (rule C04). After failed probes
        the break grows to at most 2 × `restart`, plus jitter. A longer break would refuse calls to a callee that works
        again. A failed probe costs one request.
        """
        return cls(break_duration=restart, max_break_duration=restart * 2)

    @override
    def conflicts(self) -> Iterator[str]:
        if self.consecutive_failures is None and self.failure_ratio is None and self.slow_call_ratio is None:
            yield "the circuit breaker can never open: set consecutive_failures, failure_ratio or slow_call_ratio"
        if self.success_threshold > self.half_open_max_requests:
            yield (
                f"success_threshold {self.success_threshold} can never be reached with half_open_max_requests "
                f"{self.half_open_max_requests}: lower success_threshold or raise half_open_max_requests"
            )
        if (self.slow_call_ratio is None) != (self.slow_call_duration is None):
            yield "slow_call_ratio and slow_call_duration go together: set both or neither"
        if self.max_break_duration < self.break_duration:
            yield f"max_break_duration {self.max_break_duration} is below break_duration {self.break_duration}"
