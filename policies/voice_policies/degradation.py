"""Degradation: switch off features so that the core keeps working."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import override

from voice_policies.measure import Duration, PositiveDuration, Ratio
from voice_policies.names import TextPattern
from voice_policies.policy import Policy

DegradationLevel = Literal["normal", "partial", "full"]
"""A service leaves out no feature (`normal`), the features with `off_at: partial` (`partial`), or every feature of the
policy (`full`)."""


class DegradationTrigger(Policy):
    """The thresholds at which a level begins and ends. Between the two the level stays (hysteresis)."""

    enter_error_ratio: Ratio
    """Share of failed requests at which the level is entered."""
    exit_error_ratio: Ratio
    """Share of failed requests below which the service may leave the level."""
    enter_latency: PositiveDuration | None = None
    """P95 latency at which the level is entered. If it is `None`, only the error ratio counts."""
    exit_latency: PositiveDuration | None = None
    """P95 latency below which the service may leave the level."""

    @override
    def conflicts(self) -> Iterator[str]:
        if not 0 < self.exit_error_ratio < self.enter_error_ratio:
            yield (
                f"exit_error_ratio {self.exit_error_ratio} must be above 0% and below "
                f"enter_error_ratio {self.enter_error_ratio}"
            )
        if (self.enter_latency is None) != (self.exit_latency is None):
            yield "enter_latency and exit_latency go together: set both or neither"
        elif self.enter_latency and self.exit_latency and self.exit_latency >= self.enter_latency:
            yield f"exit_latency {self.exit_latency} must be below enter_latency {self.enter_latency}"


class DegradedFeature(Policy):
    """A feature that can be switched off, and the level at which it is off."""

    name: Annotated[str, TextPattern(r"^[a-z][a-z0-9-]{0,62}$", "citations")]
    """The name with which the service's code asks whether the feature is on."""
    off_at: Literal["partial", "full"]
    """The lowest level at which the feature is off."""
    fallback: Annotated[str, Field(min_length=1, max_length=200)]
    """The behaviour without the feature, in words. The service's own code implements this behaviour."""


class Degradation(Policy):
    """Three levels: error ratio and latency over a window decide the level, unless a person sets it."""

    partial: DegradationTrigger = DegradationTrigger(enter_error_ratio=Ratio("10%"), exit_error_ratio=Ratio("5%"))
    full: DegradationTrigger = DegradationTrigger(enter_error_ratio=Ratio("30%"), exit_error_ratio=Ratio("15%"))
    sampling_duration: PositiveDuration = Duration("30s")
    """Window of the error ratio and the latency."""
    minimum_throughput: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Minimum number of requests in the window. With fewer requests the level may fall, and does not rise."""
    dwell_duration: Duration = Duration("30s")
    """Shortest stay at a level before it may be lowered."""
    features: Annotated[tuple[DegradedFeature, ...], Field(strict=False)] = ()
    override: DegradationLevel | None = None
    """A level set by hand. It wins over the triggers; `None` leaves the level to the triggers."""

    def conflicts(self) -> Iterator[str]:
        """Values that contradict each other, one sentence each."""
        if self.full.enter_error_ratio <= self.partial.enter_error_ratio:
            yield "full.enter_error_ratio must be above partial.enter_error_ratio"
        names = [feature.name for feature in self.features]
        yield from (f"feature {name} is declared twice" for name in sorted({n for n in names if names.count(n) > 1}))
