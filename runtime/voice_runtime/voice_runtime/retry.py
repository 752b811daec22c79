"""Retry: another attempt after a transient failure. Retries of nested calls do not multiply.

Some errors are never retried, whatever the policy says:

- a cancellation;
- a rejection, because the next attempt would be rejected, too;
- a failure whose next attempt would begin after the deadline;
- a failure of an attempt, if another call inside the attempt exhausted its retries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from threading import Lock
from typing import Literal, ParamSpec, TypeVar

from voice_policies import Retry as Policy
from voice_policies import RetryBudget as BudgetPolicy

from voice_runtime.arguments import can_call_again, can_repeat
from voice_runtime.clock import NEVER, SYSTEM_CLOCK, Clock
from voice_runtime.errors import RetriesExhaustedError
from voice_runtime.outcome import Classify, Failure, classify
from voice_runtime.window import Window

P = ParamSpec("P")
T = TypeVar("T")
GaveUp = Literal["max_retries", "budget", "deadline", "pushback", "nested"]


class RetryBudget:
    """Bounds the retries for one target in a window.

    The bound is `ratio` × the calls to the target in the window, plus `reserve` for callers with few calls. A retry
    counts from the start of its backoff.
    """

    __slots__ = ("_lock", "_now", "calls", "policy", "retries")

    def __init__(self, policy: BudgetPolicy, clock: Clock = SYSTEM_CLOCK) -> None:
        self._lock = Lock()
        self._now = clock.monotonic
        self.policy = policy
        now = self._now()
        self.calls = Window(policy.window.seconds, now)
        self.retries = Window(policy.window.seconds, now)

    def reconfigure(self, policy: BudgetPolicy) -> None:
        """Continue under a new policy. If the length of the window changed, the counts start at zero."""
        with self._lock:
            if policy.window != self.policy.window:
                now = self._now()
                self.calls, self.retries = (Window(policy.window.seconds, now) for _ in range(2))
            self.policy = policy

    def left(self) -> float:
        """The number of retries that may be spent now. It can be a fraction."""
        now = self._now()
        return self.policy.ratio * self.calls.total(now) + self.policy.reserve - self.retries.total(now)

    def spend(self) -> bool:
        """Take one retry. Returns false if the budget has no retry left."""
        with self._lock:
            if self.left() < 1:
                return False
            self.retries.add(self._now())
            return True


class Retry:
    """Decides if and when another attempt is made. One object serves any number of simultaneous calls."""

    __slots__ = (
        "_classify",
        "_random",
        "base_delay",
        "budget",
        "conditions",
        "max_delay",
        "max_retries",
        "multiplier",
        "now",
        "target",
    )

    def __init__(  # noqa: PLR0913  # clock, randomness and classifier are shared by the process
        self,
        target: str,
        policy: Policy,
        *,
        budget: RetryBudget | None = None,
        clock: Clock = SYSTEM_CLOCK,
        random: Random | None = None,
        classify: Classify = classify,
    ) -> None:
        self.target = target
        self.now = clock.monotonic
        self._classify = classify
        self.budget = budget or RetryBudget(policy.budget, clock)
        self._random = random or Random()  # noqa: S311  # jitter, not a secret
        self.max_retries = policy.max_retries
        self.multiplier = policy.multiplier
        self.base_delay = policy.base_delay.seconds
        self.max_delay = policy.max_delay.seconds
        self.conditions = frozenset(policy.conditions)

    def __repr__(self) -> str:
        return f"<Retry {self.target}: at most {self.max_retries}, {self.budget.left():.3g} left in the budget>"

    def backoff(self, attempt: int) -> float:
        """Seconds to wait after the `attempt`-th attempt: uniform up to an exponentially growing cap (full jitter)."""
        try:
            cap = min(self.base_delay * self.multiplier ** (attempt - 1), self.max_delay)
        except OverflowError:
            cap = self.max_delay
        return self._random.uniform(0, cap)

    def is_transient(self, failure: Failure | None) -> bool:
        """True if the policy names the failure's condition.

        `resource_exhausted` also needs a `retry_after` from the callee.
        """
        if failure is None or (failure.condition == "resource_exhausted" and failure.retry_after is None):
            return False
        return failure.condition in self.conditions

    def next_delay(self, failure: Failure, attempt: int, remaining: float) -> float | GaveUp:
        """Seconds to wait before the next attempt, or the reason why no attempt is allowed.

        Takes one retry from the budget if the attempt is allowed.
        """
        if attempt > self.max_retries:
            return "max_retries"
        delay = self.backoff(attempt) if failure.retry_after is None else failure.retry_after
        if not delay >= 0:  # also true for NaN
            return "pushback"
        if delay >= remaining:
            return "deadline"
        return delay if self.budget.spend() else "budget"

    async def call(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Await `fn(...)` with retries, under no other policy and without a deadline. Raises `RetriesExhaustedError`.

        A call with an argument that can be read only once is not retried.
        """
        repeatable = not (args or kwargs) or can_repeat(args, kwargs)
        calls = self.budget.calls
        if (now := self.now()) >= calls.end:
            calls.rotate(now)
        calls.count += 1
        number = 1
        while True:  # not an `AttemptLoop`: it would slow down each call, and most calls make one attempt
            try:
                return await (fn(*args, **kwargs) if kwargs else fn(*args))  # type: ignore[call-arg]  # no kwargs
            except Exception as error:
                delay = self._delay_after(error, number) if repeatable and can_call_again(fn) else None
                if delay is None:
                    raise
            await asyncio.sleep(delay)
            number += 1

    def _delay_after(self, error: Exception, number: int) -> float | None:
        """Seconds until the next attempt; `None` for an error that is not transient. Raises `RetriesExhaustedError`."""
        failure = self._classify(error)
        if failure is None or not self.is_transient(failure):
            return None
        delay = self.next_delay(failure, number, NEVER)
        if isinstance(delay, str):
            raise RetriesExhaustedError(self.target, failure.retry_after, number, delay) from error
        return delay
