"""Cooldown: how long a candidate rests after its provider asked for it."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from voice_policies.measure import Duration, PositiveDuration
from voice_policies.policy import Policy


class Cooldown(Policy):
    """How long a deployment rests under one credential. Of two overlapping cooldowns the longer one holds."""

    default: PositiveDuration = Duration("5s")
    """Rest after a rate limit whose answer names no time."""
    max: PositiveDuration = Duration("60s")
    """Longest rest that an answer may ask for."""
    quota: PositiveDuration = Duration("15m")
    """Rest of a credential whose quota is spent or whose key is refused, and of a deployment whose model is unknown."""

    @override
    def conflicts(self) -> Iterator[str]:
        if self.max < self.default:
            yield f"max {self.max} is below default {self.default}"
