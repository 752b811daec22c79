"""Model fallback: the attempts of one model call over its candidates."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from voice_policies.measure import Duration
from voice_policies.policy import Policy


class ModelFallback(Policy):
    """Limits on the first attempt, the fallbacks and the hedges of one model call.

    Once an attempt has delivered content, no other attempt follows. SDK, gateway and mesh do not retry a model call.
    """

    max_attempts: Annotated[int, Field(ge=1, le=10)] = 2
    """Maximum number of attempts: the first attempt, every fallback and every hedge."""
    distinct: bool = True
    """True if no candidate is attempted twice in one call."""
    backoff: Duration = Duration("50ms")
    """Longest backoff after a failed attempt. Full jitter spreads the calls that leave a failing provider."""
