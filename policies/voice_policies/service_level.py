"""Service level: what callers may expect of an operation."""

from __future__ import annotations

from collections.abc import Iterator

from voice_policies.measure import PositiveDuration, Ratio
from voice_policies.policy import Policy


class ServiceLevel(Policy):
    """The objective of one operation, measured at the service over 30 days."""

    availability: Ratio
    """Share of requests that succeed, the failures of its dependencies apart."""
    latency: PositiveDuration
    """P95 of the operation's duration."""

    def conflicts(self) -> Iterator[str]:
        """Settings that cannot hold together, a sentence each."""
        if not 0 < self.availability < 1:
            yield f"availability {self.availability} must be above 0% and below 100%: nothing is always up"
