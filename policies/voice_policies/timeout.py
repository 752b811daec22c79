"""Timeout and deadline: no call hangs."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from voice_policies.measure import Duration, PositiveDuration
from voice_policies.policy import Policy


class Timeout(Policy):
    """Limits on each attempt of an outbound call, and on the whole call with its backoffs.

    The overall limit is the smaller of `overall` and the time that remains for the operation that makes the call.
    """

    attempt: PositiveDuration
    """Longest time one attempt may take."""
    overall: Duration
    """Longest time the whole call may take."""

    @override
    def conflicts(self) -> Iterator[str]:
        if self.overall < self.attempt:
            yield f"overall {self.overall} is below attempt {self.attempt}: no attempt could finish"
