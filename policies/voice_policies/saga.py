"""Saga: a business transaction over several services, undone step by step when it cannot finish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import Field
from typing_extensions import override

from voice_policies.measure import Duration, PositiveDuration
from voice_policies.names import CallName, EventType, TextPattern
from voice_policies.policy import Policy
from voice_policies.retry import Retry

StepName = Annotated[str, TextPattern(r"^[a-z][a-z0-9-]{0,62}$", "reserve-seat")]


class SagaStep(Policy):
    """One step: its action, its compensation, and their time limits."""

    name: StepName
    """Name under which the service registers the action."""
    compensation: StepName | None = None
    """Name of the compensation, which undoes this step. If it is `None`, set `no_compensation_because`."""
    no_compensation_because: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The reason that nothing has to be undone."""
    with_previous: bool = False
    """True if the step runs in parallel with the step before it."""
    calls: Annotated[tuple[CallName, ...], Field(strict=False)] = ()
    """Outbound calls that the action makes."""
    compensation_calls: Annotated[tuple[CallName, ...], Field(strict=False)] = ()
    """Outbound calls that the compensation makes."""
    timeout: PositiveDuration = Duration("10s")
    """Longest time for all attempts of the action. After a timeout nobody knows whether the action had its effect, so
    the step is compensated."""
    attempt_timeout: PositiveDuration = Duration("3s")
    """Longest time for one attempt, of the action or of its compensation."""
    retry: Retry = Retry(max_retries=1)
    """Retries of the action. Each retry makes the action's calls again, with the calls' own retries."""
    compensation_retry: Retry = Retry(max_retries=7, base_delay=Duration("1s"), max_delay=Duration("1m"))
    """Retries of the compensation, with at most 1 + 2 + 4 + 8 + 16 + 32 + 60 = 123 s of backoff. If the last retry
    fails, the saga is parked. A compensation is retried after any failure, whatever `conditions` contains, because
    nothing else undoes the step."""

    @override
    def conflicts(self) -> Iterator[str]:
        if (self.compensation is None) == (self.no_compensation_because is None):
            yield "set exactly one of compensation and no_compensation_because"
        if self.compensation is None and self.compensation_calls:
            yield f"compensation_calls contains {', '.join(self.compensation_calls)}, but the step has no compensation"
        needed = self.attempt_timeout * self.retry.max_attempts + self.retry.longest_wait()
        if self.timeout < needed:
            yield (
                f"timeout {self.timeout} is shorter than {self.retry.max_attempts} attempts of {self.attempt_timeout} "
                f"and {self.retry.longest_wait()} of backoff: set at least {needed}"
            )


class Saga(Policy):
    """Steps in order. On failure the steps that may have run are compensated in reverse."""

    name: StepName
    version: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Version of the steps. Raise it with every change. A running saga ends under the version that it began with."""
    started_by: EventType | None = None
    """The event that starts the saga; `None` if the service starts it."""
    steps: Annotated[tuple[SagaStep, ...], Field(strict=False, min_length=1)]
    timeout: PositiveDuration
    """Longest time from the start of the saga to the end of its last step. A saga that takes longer is compensated."""

    @property
    def stages(self) -> tuple[tuple[SagaStep, ...], ...]:
        """The steps by stage. Steps of one stage run in parallel, stages in sequence."""
        stages: list[list[SagaStep]] = []
        for step in self.steps:
            if step.with_previous and stages:
                stages[-1].append(step)
            else:
                stages.append([step])
        return tuple(map(tuple, stages))

    @override
    def conflicts(self) -> Iterator[str]:
        names = [step.name for step in self.steps]
        compensations = [step.compensation for step in self.steps if step.compensation]
        yield from (f"step {name} is declared twice" for name in _repeated(names))
        yield from (
            f"compensation {name} undoes two steps: give each step its own compensation"
            for name in _repeated(compensations)
        )
        yield from (
            f"{name} is the name of both a step and a compensation" for name in sorted({*names} & {*compensations})
        )
        if self.steps[0].with_previous:
            yield f"step {names[0]} is the first and has no previous step: remove with_previous"
        needed = sum((max(step.timeout for step in stage) for stage in self.stages), Duration("0s"))
        if self.timeout < needed:
            yield f"timeout {self.timeout} is shorter than the timeouts of all stages together: set at least {needed}"


def _repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)
