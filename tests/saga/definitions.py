from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from voice_policies import Duration, Ratio, Retry, RetryBudget, Saga, SagaStep
from voice_saga import Action, Definition, StepContext

QUICK: dict[str, Any] = {
    "base_delay": Duration("10ms"),
    "max_delay": Duration("50ms"),
    "budget": RetryBudget(ratio=Ratio("100%")),
}


def step(name: str, *, undo: bool = True, retries: int = 1, **fields: Any) -> SagaStep:
    ends: dict[str, Any] = {"compensation": f"undo-{name}"} if undo else {"no_compensation_because": "it only reads"}
    defaults: dict[str, Any] = {
        "timeout": Duration("10m"),
        "attempt_timeout": Duration("30s"),
        "retry": Retry(max_retries=retries, **QUICK),
        "compensation_retry": Retry(max_retries=1, **QUICK),
    }
    return SagaStep(name=name, **(ends | defaults | fields))


def saga(*steps: SagaStep, name: str = "order", version: int = 1, timeout: str = "1h") -> Saga:
    return Saga(name=name, version=version, steps=steps, timeout=Duration(timeout))


class Log:
    def __init__(self) -> None:
        self.done: list[str] = []
        self.contexts: list[StepContext] = []
        self._instead: dict[str, Action] = {}

    def does(self, name: str, action: Action) -> None:
        self._instead[name] = action

    def fails(self, name: str, error: Callable[[], Exception], times: int = 1_000_000) -> None:
        left = [times]

        async def fail(_: StepContext) -> Any:
            left[0] -= 1
            if left[0] >= 0:
                raise error()
            return None

        self.does(name, fail)

    def hangs(self, name: str) -> None:
        async def hang(_: StepContext) -> Any:
            await asyncio.sleep(60)

        self.does(name, hang)

    def definition(self, policy: Saga) -> Definition:
        names = [name for step in policy.steps for name in (step.name, step.compensation) if name]
        return Definition(policy, {name: self._action(name) for name in names})

    def _action(self, name: str) -> Action:
        async def act(context: StepContext) -> Any:
            self.done.append(name)
            self.contexts.append(context)
            return await self._instead.get(name, _result)(context)

        return act


async def _result(context: StepContext) -> Any:
    return {"of": context.step}


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 120.0) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110  # the condition depends on another process
            await asyncio.sleep(0.02)
