"""One attempt of an outbound call: decisions and counts, for synchronous and asynchronous code."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard

from voice_runtime.breaker_state import Closed, State
from voice_runtime.call_policies import CallPolicies
from voice_runtime.errors import (
    AttemptTimeoutError,
    CallRejectedError,
    CallTimeoutError,
    DeadlineExceededError,
    RetriesExhaustedError,
    VoiceRuntimeError,
)
from voice_runtime.events import Event, EventKind
from voice_runtime.outcome import OWN_FAULT, PERMANENT, FailedResultError, Failure, classify
from voice_runtime.timeout import TimedScope, current_scope


class Attempt(TimedScope):
    """One attempt of a call. `admit` asks the circuit breaker. The timer runs inside `with attempt:`.

    Code that runs an attempt reports the result once, by `succeeded` or `failed`.
    """

    __slots__ = ("answered", "began", "call", "is_unsent", "state")

    began: float
    """Time at which the call began, before its first attempt. Only attempts of streams read this time."""

    def __init__(
        self, call: CallPolicies, parent: TimedScope | None, limit: float, started: float, number: int
    ) -> None:
        # Sets the attributes of the base class here. A call of its constructor would take as long as this whole method.
        self.owner = self.call = call
        self.parent = parent
        self.limit = limit
        self.started = started
        self.attempt = number
        self.expired = self.retries_spent = self.is_over = self.is_unsent = False
        self.state: State | None = None
        self.answered: float | None = None
        """Time of a stream's first message. A stream with a first message is not retried.

        The breaker takes the time up to this message as the duration of the stream.
        """

    def admit(self) -> None:
        """Pass the circuit breaker. Raises `CircuitOpenError`."""
        breaker = self.call.breaker
        if breaker is not None:
            state = breaker.state
            self.state = state if type(state) is Closed else breaker.acquire()

    def has_first_message(self) -> None:
        """Record the arrival of a stream's first message."""
        self.answered = now = self.call.now()
        statistics = self.call.statistics
        statistics.first_messages += 1
        statistics.late_first_messages += now - self.began > self.call.first_message
        if self.call.breaker is not None and self.state is not None:
            self.call.breaker.answered(self.state, now - self.started)

    def succeeded(self) -> None:
        """Report that the call returned a successful result."""
        call = self.call
        clock = call.now
        now = clock()
        elapsed = now - self.started
        statistics = call.statistics
        statistics.successful += 1
        statistics.seconds += elapsed
        breaker = call.breaker
        if breaker is not None and self.state is not None:
            breaker.success(self.state, now, elapsed if self.answered is None else self.answered - self.started)

    def failed(self, error: BaseException, *, repeatable: bool = True) -> float | None:
        """Report the error of the attempt. Returns seconds until the next attempt; `None` means no further attempt.

        Raises `RetriesExhaustedError` after a transient failure if the retry policy allows no further attempt. A
        `FailedResultError` gives `None` instead, because the caller gets the result itself.
        """
        failure = self._settle(error)
        if self.retries_spent and self.parent is not None:
            self.parent.retries_spent = True
        retry = self.call.retry
        if failure is None or retry is None or not isinstance(error, Exception) or not retry.is_transient(failure):
            return None
        if not repeatable or self.answered is not None:
            return None  # the arguments cannot be sent again, or the caller already has a message of the stream
        remaining = self.limit - self.call.now()
        delay = "nested" if self.retries_spent else retry.next_delay(failure, self.attempt, remaining)
        if not isinstance(delay, str):
            self.call.statistics.retries += 1
            self._publish("retry", "retry", error, delay=delay)
            return delay
        self.call.statistics.exhausted[delay] += 1
        if self.parent is not None:
            self.parent.retries_spent = True
        self._publish("exhausted", "retry", error, reason=delay)
        if isinstance(error, FailedResultError):
            return None
        raise RetriesExhaustedError(self.call.name, failure.retry_after, self.attempt, delay) from error

    def _settle(self, error: BaseException) -> Failure | None:
        """Classify `error`, and report the failure to breaker and statistics."""
        failure: Failure | None = None
        try:
            failure = self._failure(error)
        except Exception:
            failure = PERMANENT  # the classifier itself failed: the call fails with the classifier's error
            raise
        finally:
            self._record(failure)
        self._count(error, failure)
        return failure

    def _failure(self, error: BaseException) -> Failure | None:
        if self._sent_nothing(error):
            return OWN_FAULT
        if isinstance(error, FailedResultError):
            return error.failure
        if isinstance(error, VoiceRuntimeError):
            return classify(error)
        if isinstance(error, Exception):
            return self.call.classify(error)
        # If an enclosing timeout cancelled the attempt, the callee hung. This is a failure. A cancellation by the
        # caller is neutral.
        cancelled_by_deadline = isinstance(error, asyncio.CancelledError) and self.ended_by_deadline()
        return PERMANENT if cancelled_by_deadline else None

    def _sent_nothing(self, error: BaseException) -> bool:
        """True for a fault of this process: an error in `before_sending`, or no time left for the attempt."""
        if self.is_unsent:
            return isinstance(error, Exception) or self.ended_by_deadline()
        return self._is_own_timeout(error) and error.attempts < self.attempt

    def _is_own_timeout(self, error: BaseException) -> TypeGuard[CallTimeoutError]:
        return isinstance(error, CallTimeoutError) and error.target == self.call.name

    def _record(self, failure: Failure | None) -> None:
        state, breaker = self.state, self.call.breaker
        if state is None or breaker is None:
            return
        if failure is None:
            breaker.release(state)
        else:
            breaker.failure(state, failure, self.call.now() - self.started)

    def _count(self, error: BaseException, failure: Failure | None) -> None:
        statistics = self.call.statistics
        if failure is OWN_FAULT:
            self._name_own_fault(error)
        match error:
            case CallRejectedError(target=self.call.name):
                error.attempts = self.attempt - 1
                statistics.rejected[error.policy] += 1
                self._publish("rejected", error.policy, error, delay=error.retry_after)
                return
            case AttemptTimeoutError(target=self.call.name):
                statistics.timeouts += 1
                self._publish("timeout", error.policy, error)
            case DeadlineExceededError(target=self.call.name):
                statistics.deadlines_exceeded += 1
                self._publish("timeout", error.policy, error)
        if failure is not None and failure.blames_callee:
            statistics.failed += 1
            statistics.seconds += self.call.now() - self.started
        elif failure is not None or isinstance(error, Exception):
            statistics.ignored += 1
        else:
            statistics.cancelled += 1

    def _name_own_fault(self, error: BaseException) -> None:
        if self._is_own_timeout(error):
            error.attempts = self.attempt - 1
        error.add_note(f"{self.call.name}: a fault of this process, not of the callee")

    def _publish(
        self, kind: EventKind, policy: str, error: BaseException, delay: float | None = None, reason: str = ""
    ) -> None:
        events = self.call.events
        if events.listeners:
            events.publish(Event(kind, policy, self.call.name, self.attempt, delay, reason=reason, error=error))


@contextmanager
def before_sending() -> Iterator[None]:
    """Marks a block in which the attempt has sent nothing yet.

    Errors and timeouts in the block are faults of this process and not of the callee.

    Transports use it to serialise a request, or to wait for a connection of their pool. After an error in the block the
    attempt must end. If it went on, its later failures would count as faults of this process. Outside an attempt the
    block changes nothing.
    """
    attempt = current_attempt()
    if attempt is None:
        yield
        return
    attempt.is_unsent = True
    yield
    attempt.is_unsent = False


def current_attempt() -> Attempt | None:
    """The attempt in which the current code runs."""
    scope = current_scope()
    while scope is not None and not isinstance(scope, Attempt):
        scope = scope.parent
    return scope
