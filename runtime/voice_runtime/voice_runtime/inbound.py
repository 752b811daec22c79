"""An inbound operation with its policies, outermost first.

    rate limits → bulkhead → degradation → deadline → handler

A request is a context manager, for `async with` and for `with`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import isnan
from operator import index
from types import TracebackType
from typing import Self

from voice_policies import Adaptive as AdaptivePolicy
from voice_policies import DegradationLevel

from voice_runtime.bulkhead import Bulkhead
from voice_runtime.caller import NOBODY, Caller
from voice_runtime.clock import NEVER, SYSTEM_CLOCK, Clock
from voice_runtime.context_variables import restore
from voice_runtime.degradation import Degradation
from voice_runtime.errors import CallRejectedError, DeadlineExceededError, UnknownNameError, seconds_of
from voice_runtime.events import Event, Events
from voice_runtime.outcome import Classify, classify, decisive
from voice_runtime.rate_limit.adaptive import Adaptive
from voice_runtime.rate_limit.distributed import DistributedGate
from voice_runtime.rate_limit.gate import Gate
from voice_runtime.statistics import OperationStatistics
from voice_runtime.timeout import CURRENT, TimedScope, Timer, current_scope

LARGEST_COST = 2**53
"""A larger cost counts as this cost, because floats above 2^53 are not exact. No limit admits such a cost."""


class Inbound:
    """One operation of the service."""

    __slots__ = (
        "adapts",
        "bulkhead",
        "classify",
        "degradation",
        "events",
        "gates",
        "name",
        "now",
        "objective",
        "statistics",
        "timer",
    )

    def __init__(  # noqa: PLR0913  # the strategies of one operation by name
        self,
        name: str,
        *,
        deadline: float = NEVER,
        objective: float = NEVER,
        gates: tuple[Gate | DistributedGate, ...] = (),
        bulkhead: Bulkhead | None = None,
        degradation: Degradation | None = None,
        classify: Classify = classify,
        clock: Clock = SYSTEM_CLOCK,
        events: Events | None = None,
        statistics: OperationStatistics | None = None,
    ) -> None:
        self.name = name
        self.timer = Timer(deadline, clock)
        self.objective = objective
        """Seconds beyond which a request counts as slow."""
        self.gates = gates
        self.adapts = any(isinstance(gate.policy.limit, AdaptivePolicy) for gate in gates)
        """True if a rate limit of the operation is adaptive. Such a limit needs the results of requests."""
        self.bulkhead = bulkhead
        self.degradation = degradation
        self.classify = classify
        self.now = clock.monotonic
        self.events = events or Events()
        self.statistics = statistics or OperationStatistics()

    def __repr__(self) -> str:
        limits = ", ".join(gate.policy.limit.algorithm for gate in self.gates) or "no rate limit"
        return f"<Inbound {self.name}: deadline {seconds_of(self.timer.duration)}, {limits}, {self.bulkhead}>"

    def request(self, caller: Caller = NOBODY, *, cost: int = 1, remaining: float = NEVER) -> Request:
        """Create a request: `async with operation.request(caller) as request`.

        Each rate limit counts the request as `cost` requests. `remaining` is the caller's remaining time in seconds.
        Raises `TypeError` if `cost` is not a whole number, and `ValueError` if `cost` is below 1 or `remaining` is NaN.
        """
        return Request(self, caller, cost, remaining)


class WorkCancelledError(Exception):
    """A handler awaited a cancelled task or call. The request itself was not cancelled, so it has failed."""


def is_being_cancelled() -> bool:
    """True if somebody cancels the current task. False if only a task or call that it awaits was cancelled."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def current_request() -> Request | None:
    """The current request. A handler gets it here, because transports do not pass it as an argument."""
    scope = CURRENT.get()
    while scope is not None and not isinstance(scope, Request):
        scope = scope.parent
    return scope


class Request(TimedScope):
    """One request of an operation, from admission to end.

    Entering may raise `RateLimitedError`, `BulkheadFullError` or `DeadlineExceededError`; a synchronous `with` under a
    distributed limit may also raise `NoThreadError`. A synchronous `with` cannot interrupt its thread. So
    the deadline limits only the calls inside the block, and the end of the block checks the deadline.
    """

    __slots__ = ("_adaptive", "_began", "_cost", "_remaining", "caller", "level", "operation")

    level: DegradationLevel
    """The degradation level at the start of the request. The request keeps this level."""
    caller: Caller
    """The caller. Limits and budgets count by its tenant, user or API key."""

    def __init__(self, operation: Inbound, caller: Caller, cost: int, remaining: float) -> None:
        if type(cost) is not int or not 0 < cost < LARGEST_COST:
            cost = _checked(operation.name, cost)
        if isnan(remaining):
            raise ValueError(f"{operation.name}: the remaining time must be a number of seconds, not {remaining}")
        self.owner = self.operation = operation
        self.caller = caller
        self._cost = cost
        self._remaining = remaining
        self.attempt = 0
        self.expired = self.retries_spent = self.is_over = False
        self._adaptive: list[tuple[Adaptive, int]] = []

    def feature(self, name: str) -> bool:
        """True if a feature is on for this request.

        Raises `UnknownNameError` if the policy does not name the feature.
        """
        degradation = self.operation.degradation
        if degradation is None:
            raise UnknownNameError("feature", name, ())
        return degradation.is_on(name, self.level)

    async def __aenter__(self) -> Self:
        operation, now = self.operation, self._arrive()
        waited = False
        try:
            for gate in operation.gates:
                if not gate.try_admit(self.caller, self._cost, now):
                    waited = True
                    await gate.admit(self.caller, self._cost, self._latest())
            if operation.bulkhead is not None and not operation.bulkhead.try_enter():
                waited = True
                await operation.bulkhead.enter(self._latest() - operation.now())
        except CallRejectedError as error:
            self._rejected(error)
            raise
        return self._admitted(self.enter, waited=waited)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.leave(error)
        except DeadlineExceededError as deadline:
            error = deadline
            raise
        finally:
            self._leave()
            self._finished(error)

    def __enter__(self) -> Self:
        operation, now = self.operation, self._arrive()
        waited = False
        try:
            for gate in operation.gates:
                if not gate.try_admit(self.caller, self._cost, now):
                    waited = True
                    gate.admit_sync(self.caller, self._cost, self._latest())
            if operation.bulkhead is not None and not operation.bulkhead.try_enter():
                waited = True
                operation.bulkhead.enter_sync(self._latest() - operation.now())
        except CallRejectedError as error:
            self._rejected(error)
            raise
        self._admitted(self.begin, waited=waited)
        self.is_over = False
        self._token = CURRENT.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.is_over = True
        restore(self._token)
        try:
            if error is None and self.operation.now() > self.expires:
                self.expired = True
                error = self.timeout_error()
                raise error
        finally:
            self._leave()
            self._finished(error)

    def _arrive(self) -> float:
        """Record and return the time of arrival. Raises `DeadlineExceededError` if the caller's deadline has passed."""
        operation = self.operation
        self.started = self._began = now = operation.now()
        self.parent = parent = current_scope()
        limit = now + self._remaining
        self.limit = limit = limit if parent is None or limit < parent.expires else parent.expires
        if limit <= now:
            operation.statistics.rejected["deadline"] += 1
            self._late(error := DeadlineExceededError(operation.name))
            raise error
        return now

    def _latest(self) -> float:
        """The latest end of the request, by the monotonic clock."""
        return min(self.limit, self._began + self.operation.timer.duration)

    def _admitted(self, begin: Callable[[], object], *, waited: bool) -> Self:
        """Begin the admitted request. The time in the queue counts towards its deadline."""
        operation = self.operation
        operation.statistics.in_flight += 1
        try:
            if waited:
                self.limit = self._latest()
                self.started = operation.now()
            degradation = operation.degradation
            self.level = "normal" if degradation is None else degradation.level_at(self.started)
            if operation.adapts:
                adaptive = (gate.adaptive(self.caller) for gate in operation.gates)
                self._adaptive = [(limit, limit.epoch) for limit in adaptive if limit is not None]
            begin()
        except BaseException as error:
            self._leave()
            if isinstance(error, DeadlineExceededError):
                self._late(error)
            raise
        return self

    def _late(self, error: DeadlineExceededError) -> None:
        """Count and publish an exceeded deadline."""
        self.operation.statistics.deadlines_exceeded += 1
        self.operation.events.publish(Event("timeout", "deadline", self.operation.name, error=error))

    def _leave(self) -> None:
        self.operation.statistics.in_flight -= 1
        if self.operation.bulkhead is not None:
            self.operation.bulkhead.leave()

    def _finished(self, error: BaseException | None) -> None:
        operation, statistics = self.operation, self.operation.statistics
        if error is not None and not isinstance(error, Exception) and not self._expired_by_us(error):
            statistics.cancelled += 1
            return
        failed = error is not None and self._is_failure(error)
        now = operation.now()
        latency = now - self._began
        statistics.seconds += latency
        statistics.slow += latency > operation.objective
        statistics.failed += failed
        statistics.successful += not failed
        if isinstance(error, DeadlineExceededError) and self.expired:
            self._late(error)
        for limit, epoch in self._adaptive:
            limit.record(epoch, now, latency, failed=failed)
        if operation.degradation is not None:
            operation.degradation.record(now, latency, failed=failed)

    def _is_failure(self, error: BaseException) -> bool:
        """True if a handler's error counts as a failure of this service.

        A `CallRejectedError` always counts. The classifier decides about any other `Exception`.
        """
        if not isinstance(error, Exception):
            return True
        return isinstance(decisive(error), CallRejectedError) or self.operation.classify(error) is not None

    def _expired_by_us(self, error: BaseException) -> bool:
        return isinstance(error, asyncio.CancelledError) and self.ended_by_deadline()

    def _rejected(self, error: CallRejectedError) -> None:
        self.operation.statistics.rejected[error.policy] += 1
        self.operation.events.publish(
            Event("rejected", error.policy, self.operation.name, delay=error.retry_after, error=error)
        )


def _checked(operation: str, cost: object) -> int:
    """The cost as an `int`, at most `LARGEST_COST`. Raises `TypeError` or `ValueError`."""
    checked = min(index(cost), LARGEST_COST)  # type: ignore[arg-type]  # `index` raises the TypeError
    if checked < 1:
        raise ValueError(f"{operation}: the cost of a request must be 1 or more, not {checked}")
    return checked
