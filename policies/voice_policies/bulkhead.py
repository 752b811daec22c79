"""Bulkhead: one slow target cannot take every slot of its caller."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field
from typing_extensions import override

from voice_policies.measure import Duration
from voice_policies.policy import Policy


class Bulkhead(Policy):
    """A bound on concurrent calls, with an optional queue for calls without a slot."""

    max_concurrent: Annotated[int, Field(ge=1, le=100_000)]
    """Maximum number of concurrent calls in this process."""
    max_queue: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Maximum number of calls that wait for a slot. With 0 no call waits: a call without a slot is refused."""
    queue_timeout: Duration = Duration("0s")
    """Longest wait for a slot."""

    @override
    def conflicts(self) -> Iterator[str]:
        if (self.max_queue > 0) != bool(self.queue_timeout):
            yield "max_queue and queue_timeout go together: set both above 0, or neither"
