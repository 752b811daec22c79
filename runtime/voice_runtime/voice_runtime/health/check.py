"""One check. A readiness probe starts it. After its timeout it is cancelled. It never runs twice at the same time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from voice_policies import HealthCheck

from voice_runtime.clock import SYSTEM_CLOCK, Clock

Status = Literal["healthy", "degraded", "unhealthy"]
"""The state of a check's target. `degraded`: it works, but answers more slowly than `max_latency`."""
Checker = Callable[[], Awaitable[object]]
"""Tests the target: it returns if the target works, and raises if not. `Check` limits its time."""
logger = logging.getLogger("voice_runtime.health")


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one run of a check."""

    status: Status
    latency: float
    """Duration of the check in seconds."""
    error: str = ""
    """The type of the failure. The message is only in the log, because it may contain users and addresses."""


class Check:
    """Runs a checker under its policy. A result is valid for `cache_duration`. Simultaneous callers share one run."""

    def __init__(
        self, policy: HealthCheck, checker: Checker, cache_duration: float, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.policy = policy
        self.last: Result | None = None
        """The newest result, of any age. `None` before the first result."""
        self._checker = checker
        self._cache_duration = cache_duration
        self._now = clock.monotonic
        self._fresh_until = 0.0
        self._flight: asyncio.Task[Result] | None = None
        self._looking: asyncio.Task[object] | None = None

    def look(self) -> asyncio.Task[Result] | None:
        """`None` while the last result is fresh. Otherwise the current run, or a new run if there is none."""
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
        """Run the checker, and return its failure.

        If an earlier run has ignored its cancellation and still runs, wait for that run instead of starting another.
        """
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
    """Read the late error of an abandoned check, because asyncio logs a warning about an error that nobody reads."""
    if not looking.cancelled():
        looking.exception()
