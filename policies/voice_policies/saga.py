"""Saga: a business transaction over several services, undone step by step when it cannot finish."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from voice_policies.measure import Duration
from voice_policies.policy import Policy
from voice_policies.retry import Retry

StepName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]


class SagaStep(Policy):
    """One step: what it does, what undoes it, and how long it may take."""

    name: StepName
    compensation: StepName | None = None
    """The action that undoes this step; `None` only with `no_compensation_because`."""
    no_compensation_because: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Why there is nothing to undo."""
    timeout: Duration = Duration("10s")
    """Longest time for all attempts of the step."""
    attempt_timeout: Duration = Duration("3s")
    """Longest time for one attempt."""
    retry: Retry = Retry(max_retries=2)

    def conflicts(self) -> Iterator[str]:
        """Settings that cannot hold together, a sentence each."""
        if (self.compensation is None) == (self.no_compensation_because is None):
            yield "name a compensation, or say in no_compensation_because why none is needed"
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
    steps: Annotated[tuple[SagaStep, ...], Field(strict=False, min_length=1)]
    timeout: Duration
    """Longest time from the first step to the last; then the saga is compensated."""

    def conflicts(self) -> Iterator[str]:
        """Settings that cannot hold together, a sentence each."""
        names = [step.name for step in self.steps]
        yield from (f"step {name} is named twice" for name in sorted({n for n in names if names.count(n) > 1}))
        needed = sum((step.timeout for step in self.steps), Duration("0s"))
        if self.timeout < needed:
            yield f"timeout {self.timeout} is shorter than its steps together: at least {needed}"
