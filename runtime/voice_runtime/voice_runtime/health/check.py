"""One check: looked at when somebody asks, for no longer than its timeout, and never twice at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from voice_policies import HealthCheck

from voice_runtime.clock import SYSTEM_CLOCK, Clock

Status = Literal["healthy", "degraded", "unhealthy"]
"""`degraded`: it works, and slower than its limit allows."""
Checker = Callable[[], Awaitable[object]]
"""Returns if what it looks at works, and raises if not. It need not limit its own time."""
logger = logging.getLogger("voice_runtime.health")


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one check."""

    status: Status
    latency: float
    """Seconds that the look took."""
    error: str = ""
    """The kind of failure. Its message goes to the log alone: it may name users and addresses."""


class Check:
    """A checker with its policy. A result is reused for `cache_duration`; all who ask meanwhile share one look."""

    def __init__(
        self, policy: HealthCheck, checker: Checker, cache_duration: float, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.policy = policy
        self.last: Result | None = None
        """The newest result, however old; `None` before the first."""
        self._checker = checker
        self._cache_duration = cache_duration
        self._now = clock.monotonic
        self._fresh_until = 0.0
        self._flight: asyncio.Task[Result] | None = None
        self._looking: asyncio.Task[object] | None = None

    def look(self) -> asyncio.Task[Result] | None:
        """The look under way, begun if none is; `None` while the last result is fresh."""
        if self.last is not None and self._now() < self._fresh_until:
            return None
        if self._flight is None or self._flight.done():
            self._flight = asyncio.create_task(self._look(), name=f"health check {self.policy.name}")
        return self._flight

    async def _look(self) -> Result:
        began = self._now()
        error = await self._attempt()
        latency = self._now() - began
        self.last = Result(self._status(error, latency), latency, type(error).__name__ if error else "")
        self._fresh_until = self._now() + self._cache_duration
        if error is not None:
            logger.warning("health check %s failed: %s: %s", self.policy.name, type(error).__name__, error)
        return self.last

    async def _attempt(self) -> BaseException | None:
        """How the checker failed. One that ignores its cancellation is not started again while it runs."""
        looking = self._looking
        if looking is None or looking.done():
            looking = self._looking = asyncio.create_task(_called(self._checker))
            looking.add_done_callback(_seen)
        done, _ = await asyncio.wait({looking}, timeout=self.policy.timeout.seconds)
        if not done:
            looking.cancel()
            return TimeoutError(f"no answer within {self.policy.timeout}")
        return asyncio.CancelledError() if looking.cancelled() else looking.exception()

    def _status(self, error: BaseException | None, latency: float) -> Status:
        if error is not None:
            return "unhealthy"
        limit = self.policy.max_latency
        return "degraded" if limit is not None and latency > limit.seconds else "healthy"


async def _called(checker: Checker) -> Any:
    return await checker()


def _seen(looking: asyncio.Task[Any]) -> None:
    """Consume the late error of an abandoned check, so that asyncio logs no warning."""
    if not looking.cancelled():
        looking.exception()
