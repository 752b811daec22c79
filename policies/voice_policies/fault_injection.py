"""Fault injection: trouble on purpose, to see the other policies work."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from voice_policies.measure import Duration, Ratio
from voice_policies.policy import Policy


class FaultInjection(Policy):
    """Faults added to outbound calls. Works only where the process was started with fault injection allowed as well."""

    enabled: Literal[True]
    """Said out loud, so that it is never there by omission."""
    latency: Duration = Duration("0s")
    """Delay added to the calls that are hit."""
    latency_ratio: Ratio = Ratio("0%")
    """Share of calls delayed."""
    error_ratio: Ratio = Ratio("0%")
    """Share of calls that fail as unavailable without being sent."""
    abort_ratio: Ratio = Ratio("0%")
    """Share of calls cut off after the callee has worked: their outcome is unknown to the caller."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Seed of the draw; `None` draws afresh in each process."""
