"""The policies of one outbound call, in one record for `call`, `call_sync`, `stream` and `once`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any, Self

from voice_policies import OutboundCall

from voice_runtime.bulkhead import Bulkhead
from voice_runtime.circuit_breaker import CircuitBreaker
from voice_runtime.clock import NEVER, SYSTEM_CLOCK, Clock
from voice_runtime.errors import BulkheadFullError, keep_failure, seconds_of
from voice_runtime.events import Event, Events
from voice_runtime.fault_injection import FaultInjection
from voice_runtime.outcome import Classify, ClassifyResult, classify
from voice_runtime.policy_states import PolicyStates
from voice_runtime.retry import Retry, RetryBudget
from voice_runtime.statistics import CallStatistics
from voice_runtime.surroundings import Surroundings
from voice_runtime.timeout import TimedScope, Timer, latest_scope
from voice_runtime.worker_threads import WorkerThreads

Fallback = Callable[[Exception], Any]
"""Computes a result from the error of a failed soft call. For asynchronous calls it may be a coroutine function."""


@dataclass(slots=True, eq=False, repr=False)
class CallPolicies:
    """The policies of one outbound call.

    The runtime does not enforce a policy that is `None`. Timeouts are in seconds.
    """

    name: str
    """The name of the call in the bundle."""
    _: KW_ONLY
    attempt_timeout: float = NEVER
    overall_timeout: float = NEVER
    first_message: float = NEVER
    """Seconds after which a stream's first message counts as late."""
    retry: Retry | None = None
    breaker: CircuitBreaker | None = None
    bulkhead: Bulkhead | None = None
    soft: bool = False
    """True if the request can continue without the call. If the call fails, the caller gets the fallback's result. If
    there is no fallback, the caller gets a `SoftCallError`."""
    fallback: Fallback | None = None
    fault_injection: FaultInjection | None = None
    classify: Classify = classify
    classify_result: ClassifyResult | None = None
    clock: Clock = SYSTEM_CLOCK
    events: Events = field(default_factory=Events)
    statistics: CallStatistics = field(default_factory=CallStatistics)
    workers: WorkerThreads = field(default_factory=WorkerThreads)
    now: Callable[[], float] = field(init=False)
    timer: Timer = field(init=False)
    """The timer of `attempt_timeout`."""

    def __post_init__(self) -> None:
        if not self.overall_timeout > 0:
            raise ValueError(f"{self.name}: overall_timeout must be above 0 s, not {self.overall_timeout}")
        self.now = self.clock.monotonic
        self.timer = Timer(self.attempt_timeout, self.clock)

    def __repr__(self) -> str:
        policies = [policy for policy in (self.retry, self.bulkhead, self.breaker) if policy is not None]
        times = f"attempt {seconds_of(self.attempt_timeout)}, overall {seconds_of(self.overall_timeout)}"
        return f"<{type(self).__name__} {self.name}: {', '.join([times, *map(repr, policies)])}>"

    @classmethod
    def of(
        cls,
        call: OutboundCall,
        states: PolicyStates,
        around: Surroundings,
        *,
        fallback: Fallback | None,
        fault_injection: FaultInjection | None,
    ) -> Self:
        """The policies that the runtime enforces for a declared call.

        Retry budget, circuit breaker and bulkhead keep their state from the previous bundle.
        """
        name, by = call.name, call.enforced_by
        timed = by.timeout == "runtime"
        retry = None
        if call.retry and by.retry == "runtime":
            budget = states.kept("budget", name, call.retry.budget, lambda policy: RetryBudget(policy, around.clock))
            retry = Retry(name, call.retry, budget=budget, clock=around.clock, random=around.random)
        breaker = call.circuit_breaker if by.circuit_breaker == "runtime" else None
        bulkhead = call.bulkhead if by.bulkhead == "runtime" else None
        return cls(
            name,
            attempt_timeout=call.timeout.attempt.seconds if timed else NEVER,
            overall_timeout=call.timeout.overall.seconds if timed else NEVER,
            first_message=call.first_message.seconds if call.first_message else NEVER,
            retry=retry,
            breaker=states.kept("circuit_breaker", name, breaker, partial(around.breaker, name)),
            bulkhead=states.kept("bulkhead", name, bulkhead, partial(Bulkhead, name)),
            soft=call.necessity == "soft",
            fallback=fallback if call.necessity == "soft" else None,
            fault_injection=fault_injection,
            classify=around.classify,
            classify_result=around.classify_result,
            clock=around.clock,
            events=around.events,
            statistics=states.counted("outbound", name, CallStatistics),
            workers=around.workers,
        )

    def begin(self, now: float) -> tuple[TimedScope | None, float]:
        """Count a new call. Returns the enclosing scope, and the time of the call's deadline."""
        if self.retry is not None:
            calls = self.retry.budget.calls
            if now >= calls.end:
                calls.rotate(now)
            calls.count += 1
        limit = now + self.overall_timeout
        parent = latest_scope()
        if parent is not None:
            if parent.is_over:
                parent = parent.lasting()
            if parent is not None and parent.expires < limit:
                limit = parent.expires
        return parent, limit

    async def queue(self, bulkhead: Bulkhead, limit: float, before: int, failure: BaseException | None) -> float:
        """Wait for a slot. Returns the time at which it was granted.

        Raises `BulkheadFullError` if the queue is full, or if no slot became free in time. `before` is the number of
        earlier attempts, and `failure` the error of the last attempt.
        """
        try:
            await bulkhead.enter(limit - self.now())
        except BulkheadFullError as error:
            self._rejected(error, before, failure)
            raise
        return self.now()

    def queue_sync(self, bulkhead: Bulkhead, limit: float, before: int, failure: BaseException | None) -> float:
        """Like `queue`, for code without an event loop."""
        try:
            bulkhead.enter_sync(limit - self.now())
        except BulkheadFullError as error:
            self._rejected(error, before, failure)
            raise
        return self.now()

    def _rejected(self, error: BulkheadFullError, before: int, failure: BaseException | None) -> None:
        error.attempts = before
        keep_failure(error, failure)
        self.statistics.rejected[error.policy] += 1
        self.events.publish(Event("rejected", error.policy, self.name, error=error))
