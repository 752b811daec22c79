"""Fault injection: deliberate delays and failures. Off unless both the policy and the process allow it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from random import Random
from typing import Any

from voice_policies import FaultInjection as Policy

from voice_runtime.clock import Clock
from voice_runtime.errors import CalleeError


class FaultInjection:
    """Decides at random for each attempt: a delay, a failure before sending, and a failure after the callee's work."""

    def __init__(self, policy: Policy, clock: Clock) -> None:
        self.policy = policy
        self._clock = clock
        self._random = Random(policy.seed)  # noqa: S311  # not a secret: a seed makes it repeatable

    def around(self, name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
        """An asynchronous function that calls `fn` with the injected fault."""

        async def injected(*args: Any, **kwargs: Any) -> Any:
            delay, fails, aborts = self._draw()
            if delay:
                await asyncio.sleep(delay)
            self._fail(name, fails=fails)
            result = fn(*args, **kwargs)
            if isawaitable(result):
                result = await result
            self._fail(name, fails=aborts)
            return result

        return injected

    def around_sync(self, name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
        """A function that calls `fn` with the injected fault."""

        def injected(*args: Any, **kwargs: Any) -> Any:
            delay, fails, aborts = self._draw()
            if delay:
                self._clock.sleep(delay)
            self._fail(name, fails=fails)
            result = fn(*args, **kwargs)
            self._fail(name, fails=aborts)
            return result

        return injected

    def _draw(self) -> tuple[float, bool, bool]:
        policy, draw = self.policy, self._random.random
        delay = policy.latency.seconds if draw() < policy.latency_ratio else 0.0
        return delay, draw() < policy.error_ratio, draw() < policy.abort_ratio

    @staticmethod
    def _fail(name: str, *, fails: bool) -> None:
        if fails:
            raise CalleeError(name, condition="unavailable")
