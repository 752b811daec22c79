"""Cooldown: the time for which a candidate gets no calls after its provider refused a call."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from voice_policies.measure import Duration, PositiveDuration
from voice_policies.policy import Policy


class Cooldown(Policy):
    """Times for which candidates get no calls.

    A rate limit stops one deployment. An overload stops one deployment if the provider sends a retry delay. A spent
    quota or a refused key stops every deployment under the credential. An unknown model stops one deployment. If the
    credential changes, only this last cooldown continues. If several cooldowns stop a deployment, the longest applies.
    """

    default: PositiveDuration = Duration("5s")
    """Cooldown after a rate-limit answer without a retry delay."""
    max: PositiveDuration = Duration("60s")
    """Upper bound for the retry delay that a provider sends when it limits the rate or is overloaded."""
    quota: PositiveDuration = Duration("15m")
    """Cooldown after a spent quota, a refused key or an unknown model."""

    @override
    def conflicts(self) -> Iterator[str]:
        if self.max < self.default:
            yield f"max {self.max} is below default {self.default}"
