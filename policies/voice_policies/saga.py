"""Saga: a business transaction over several services, undone step by step when it cannot finish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import Field

from voice_policies.measure import Duration, PositiveDuration
from voice_policies.names import CallName, EventType
from voice_policies.policy import Policy
from voice_policies.retry import Retry

StepName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]


class SagaStep(Policy):
    """One step: what it does, what undoes it, and how long it may take."""

    name: StepName
    """The action, by the name that the service registers it under."""
    compensation: StepName | None = None
    """The action that undoes this step; `None` only with `no_compensation_because`."""
    no_compensation_because: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Why there is nothing to undo."""
    with_previous: bool = False
    """Runs in parallel with the step before it."""
    calls: Annotated[tuple[CallName, ...], Field(strict=False)] = ()
    """Outbound calls that the action makes."""
    compensation_calls: Annotated[tuple[CallName, ...], Field(strict=False)] = ()
    """Outbound calls that the compensation makes."""
    timeout: PositiveDuration = Duration("10s")
    """Longest time for all attempts of the action; then its outcome is unknown, and it is compensated."""
    attempt_timeout: PositiveDuration = Duration("3s")
    """Longest time for one attempt, of the action or of its compensation."""
    retry: Retry = Retry(max_retries=1)
    """Further attempts of the action. Each call inside may have retries of its own, which multiply."""
    compensation_retry: Retry = Retry(max_retries=7, base_delay=Duration("1s"), max_delay=Duration("1m"))
    """Further attempts of the compensation (about two minutes); after the last it is parked until somebody resumes
    it. Conditions do not apply: a compensation is repeated whatever failed, since nothing else undoes the step."""

    def conflicts(self) -> Iterator[str]:
        """Settings that cannot hold together, a sentence each."""
        if (self.compensation is None) == (self.no_compensation_because is None):
            yield "name a compensation, or say in no_compensation_because why none is needed"
        if self.compensation is None and self.compensation_calls:
            yield f"compensation_calls {', '.join(self.compensation_calls)} belong to no compensation"
        needed = self.attempt_timeout * self.retry.max_attempts + self.retry.longest_wait()
        if self.timeout < needed:
            yield (
                f"timeout {self.timeout} is shorter than its {self.retry.max_attempts} attempts of "
                f"{self.attempt_timeout} with {self.retry.longest_wait()} of backoff: at least {needed}"
            )


class Saga(Policy):
    """Steps in order. On failure the steps that may have run are compensated in reverse."""

    name: StepName
    version: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Raised with every change of the steps: a running saga ends under the version it began with."""
    started_by: EventType | None = None
    """The event that starts one; `None` where the service starts it by itself."""
    steps: Annotated[tuple[SagaStep, ...], Field(strict=False, min_length=1)]
    timeout: PositiveDuration
    """Longest time from the first step to the last; then the saga is compensated."""

    @property
    def stages(self) -> tuple[tuple[SagaStep, ...], ...]:
        """The steps as they run: those of one stage in parallel, stages in sequence."""
        stages: list[list[SagaStep]] = []
        for step in self.steps:
            if step.with_previous and stages:
                stages[-1].append(step)
            else:
                stages.append([step])
        return tuple(map(tuple, stages))

    def conflicts(self) -> Iterator[str]:
        """Settings that cannot hold together, a sentence each."""
        names = [step.name for step in self.steps]
        compensations = [step.compensation for step in self.steps if step.compensation]
        yield from (f"step {name} is named twice" for name in _repeated(names))
        yield from (f"compensation {name} undoes two steps: give each its own" for name in _repeated(compensations))
        yield from (f"{name} names a step and a compensation" for name in sorted({*names} & {*compensations}))
        if self.steps[0].with_previous:
            yield f"step {names[0]} is the first: with_previous has nothing to refer to"
        needed = sum((max(step.timeout for step in stage) for stage in self.stages), Duration("0s"))
        if self.timeout < needed:
            yield f"timeout {self.timeout} is shorter than its steps together: at least {needed}"


def _repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)
