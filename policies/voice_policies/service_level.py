"""Service level: the objective that an operation promises its callers."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from voice_policies.measure import PositiveDuration, Ratio
from voice_policies.policy import Policy


class ServiceLevel(Policy):
    """The objective of one operation, measured at the service over 30 days."""

    availability: Ratio
    """Share of requests that succeed while all dependencies work."""
    latency: PositiveDuration
    """P95 of the operation's duration."""

    @override
    def conflicts(self) -> Iterator[str]:
        if not 0 < self.availability < 1:
            yield f"availability {self.availability} must be above 0% and below 100%: nothing is always up"
