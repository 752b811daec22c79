"""Executes a definition's actions and compensations under their policies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from voice_runtime import Classify, Outbound, RetriesExhaustedError, Retry, Timeout, classify
from voice_runtime.attempt_loop import AttemptLoop

from voice_saga.cancellation import end_if_cancelled
from voice_saga.context import Reply, StepContext, checked_size, copied, size_of, storable, to_json
from voice_saga.definition import Definition
from voice_saga.errors import WorkCancelledError
from voice_saga.observation import Observation


class Execution:
    """Runs the actions and compensations of a definition in one process.

    The definition's sagas share the retry budgets of the actions.
    """

    def __init__(
        self,
        definition: Definition,
        observation: Observation,
        *,
        classify: Classify = classify,
        random: Random | None = None,
    ) -> None:
        self.definition = definition
        self._observation = observation
        self._actions = {
            step.name: Outbound(
                f"{definition.plan.name}.{step.name}",
                attempt_timeout=step.attempt_timeout.seconds,
                overall_timeout=step.timeout.seconds,
                retry=Retry(step.name, step.retry, classify=classify, random=random),
                classify=classify,
            )
            for step in definition.policy.steps
        }
        self._compensations = {
            step.name: (
                Retry(step.name, step.compensation_retry, random=random),
                Timeout(f"{definition.plan.name}.{step.compensation}", step.attempt_timeout.seconds),
            )
            for step in definition.policy.steps
        }

    async def act(self, context: StepContext, remaining: float, room: int) -> Any:
        """Run the action with retries, and return its result.

        The action may run until the timeout of its step, but at most `remaining` seconds. Result and messages together
        may have `room` bytes. Raises the error of the action, or of the policy that ended it. Raises `TimeoutError` if
        no time remains.
        """
        outbound = self._actions[context.step]
        action = checked(self.definition.actions[context.step], room)
        if remaining <= 0:
            raise TimeoutError(f"the saga's timeout of {self.definition.policy.timeout} has passed")
        with self._observation.execution(context):
            return await Timeout(outbound.name, remaining).call(outbound.call, action, context)

    async def undo(self, context: StepContext, room: int) -> None:
        """Run the compensation. Retry after any error, as often as the policy allows. Raises the last error."""
        retry, timeout = self._compensations[context.step]
        compensation = checked(self.definition.compensation(context.step), room)

        def delay_after(error: BaseException, number: int) -> float | None:
            return retry.backoff(number) if isinstance(error, Exception) and number <= retry.max_retries else None

        attempts = AttemptLoop(delay_after)
        with self._observation.execution(context):
            async for _ in attempts:
                with attempts:
                    await timeout.call(compensation, context)


def checked(action: Callable[[StepContext], Any], room: int) -> Callable[[StepContext], Any]:
    """Wrap an action for one attempt: it gets a copy of the context, and its result must be storable.

    The wrapped action returns a copy of the result, as the journal stores it. Result and messages must be JSON of at
    most `room` bytes. While the task is being cancelled, `CancelledError` replaces every error of the action. So a
    stopping worker records no failed step. If only work inside the action was cancelled, such as a task or a call, the
    action has failed: `WorkCancelledError`.
    """

    async def run(context: StepContext) -> Any:
        attempt = replace(context, input=copied(context.input), messages=[])
        try:
            result = await action(attempt)
        except (Exception, asyncio.CancelledError) as error:
            end_if_cancelled()
            if isinstance(error, asyncio.CancelledError):
                raise WorkCancelledError(f"{context.step} waited for work that was cancelled") from error
            raise
        text = "" if result is Reply.LATER else to_json(result, f"the result of {context.step}")
        size = len(text) + sum(size_of(message.payload, f"message {message.type}") for message in attempt.messages)
        checked_size(size, room, f"the result of {context.step} with its messages")
        context.messages[:] = attempt.messages
        return json.loads(text) if text else result

    return run


def reason_of(error: BaseException) -> str:
    """The reason of a failure for the journal: one line of at most 500 characters."""
    attempts = ""
    if isinstance(error, RetriesExhaustedError) and error.__cause__ is not None:
        attempts, error = f" (attempt {error.attempts}, {error.reason})", error.__cause__
    return " ".join(storable(f"{type(error).__name__}: {error}{attempts}").split())[:500]
