"""Fault injection: deliberate faults that show how the other policies react."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from voice_policies.measure import Duration, Ratio
from voice_policies.policy import Policy


class FaultInjection(Policy):
    """Faults added to the attempts of outbound calls.

    The runtime ignores this policy unless the service calls `Runtime.load(…, allow_fault_injection=True)`.
    """

    enabled: Literal[True]
    """Always written out, so that no default can switch fault injection on."""
    latency: Duration = Duration("0s")
    """Delay added to the chosen attempts."""
    latency_ratio: Ratio = Ratio("0%")
    """Share of attempts that are delayed."""
    error_ratio: Ratio = Ratio("0%")
    """Share of attempts that fail as unavailable without being sent."""
    abort_ratio: Ratio = Ratio("0%")
    """Share of attempts that are cut off after the callee has answered. So the caller does not know the outcome."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Seed of the random choice. `None`: each process chooses differently."""
