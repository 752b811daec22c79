"""The errors that the runtime raises.

    VoiceRuntimeError                  policy, target, retry_after, attempts
    ├── CallRejectedError              refused before anything was sent
    │   ├── CircuitOpenError           the circuit breaker is open, or half-open with enough probes in flight
    │   ├── BulkheadFullError          no slot is free, and the queue is full or the wait timed out
    │   ├── RateLimitedError           the rate limit is reached
    │   └── NoThreadError              no worker thread could be started; also a built-in RuntimeError
    ├── CallTimeoutError               also a built-in TimeoutError
    │   ├── AttemptTimeoutError        one attempt took too long
    │   └── DeadlineExceededError      no time is left for the whole call
    ├── RetriesExhaustedError          every allowed attempt failed; the error of the last attempt is its cause
    ├── SoftCallError                  a soft call failed, and has no fallback; the failure is its cause
    └── CalleeError                    a transient failure of the callee, with its `RetryCondition`
    FailedResultError                  a soft call's result counts as a failure; the fallback gets this error
    UnknownNameError                   the bundle declares no such name, or more than one; a LookupError
    └── UnknownCallError               the name of an outbound call or an inbound operation

A cancelled call raises `asyncio.CancelledError` and nothing else. A bundle that cannot be used raises
`voice_policies.InvalidInputError`.
"""

from __future__ import annotations

from collections.abc import Iterable
from copyreg import __newobj__  # type: ignore[attr-defined]  # the stubs lack it
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar

from voice_policies import RetryCondition


class VoiceRuntimeError(Exception):
    """The base of all errors of policies. Most rejections are only counted, so the text is built only when read."""

    policy: ClassVar[str]
    """The name of the policy that raised the error; `callee` or `worker_threads` if no policy raised it."""
    summary: ClassVar[str]
    """The text for answers to other processes. It does not name the call or operation."""
    sentence: ClassVar[str]
    """The text for this process: `summary` with the name of the call or operation in place of `{}`."""

    def __init__(self, target: str, retry_after: float | None = None, attempts: int = 0) -> None:
        self.target = target
        """The outbound call or inbound operation."""
        self.retry_after = retry_after
        """Seconds after which another try makes sense. `None` if unknown."""
        self.attempts = attempts
        """Number of attempts made."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Unpickled without `__init__`, because `TimeoutError` does not keep its arguments, and because the classes take
        # different arguments.
        return __newobj__, (type(self), *self.args), vars(self)

    def __str__(self) -> str:
        text = self._with_attempts(self.sentence.format(self.target))
        return text if self.retry_after is None else f"{text}; retry after {seconds_of(self.retry_after)}"

    def _with_attempts(self, text: str) -> str:
        return f"{text} after {self.attempts} attempts" if self.attempts > 1 else text


def seconds_of(seconds: float) -> str:
    """A duration for people: `42 s`, `1.5 s`."""
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.3g} s"


class CallRejectedError(VoiceRuntimeError):
    """An attempt was refused before anything was sent.

    Nothing happened at the callee if `attempts` is 0. Otherwise `__cause__` is the failure of the last attempt.
    """

    if not TYPE_CHECKING:
        # Under overload each call creates such an error. An `__init__` in Python that sets attributes would make a
        # rejection take a third longer, so `Exception` stores the arguments in C.
        __init__ = Exception.__init__
        attempts = 0

        @property
        def target(self) -> str:
            """The outbound call or inbound operation."""
            return self.args[0]

        @property
        def retry_after(self) -> float | None:
            """Seconds after which another try makes sense. `None` if unknown."""
            return self.args[1] if len(self.args) > 1 else None


def keep_failure(error: BaseException, failure: BaseException | None) -> None:
    """Make the previous attempt's `failure` the cause of `error`, the rejection that ends the call."""
    if failure is not None and isinstance(error, CallRejectedError) and error.__cause__ is None:
        error.__cause__ = failure


class CircuitOpenError(CallRejectedError):
    """The circuit breaker admits no call now."""

    policy = "circuit_breaker"
    summary = "the circuit breaker is open"
    sentence = "circuit breaker of {} is open"

    def __str__(self) -> str:
        text = self.sentence.format(self.target)
        if self.retry_after is not None:
            text += f" for another {seconds_of(self.retry_after)}"
        return self._with_attempts(text)


class BulkheadFullError(CallRejectedError):
    """All slots are in use, and the queue is full or the wait in the queue timed out."""

    policy = "bulkhead"
    summary = "the bulkhead has no free slot"
    sentence = "bulkhead of {} has no free slot"


class RateLimitedError(CallRejectedError):
    """The rate limit refuses the request.

    If `retry_after` is `None`, the request costs more than the limit ever admits.
    """

    policy = "rate_limit"
    summary = "the rate limit is reached"
    sentence = "rate limit of {} is reached"


class NoThreadError(CallRejectedError, RuntimeError):
    """The system cannot start a thread for a synchronous call, for example because of the container's PID limit.

    `__cause__` is the system's error.
    """

    policy = "worker_threads"
    summary = "no thread could be started"
    sentence = "no thread could be started for {}"


class CallTimeoutError(VoiceRuntimeError, TimeoutError):
    """A timeout. If `attempts` is 0, nothing was sent; otherwise the callee may have done the work."""

    policy = "timeout"


class AttemptTimeoutError(CallTimeoutError):
    """One attempt took longer than `timeout.attempt`."""

    summary = "the attempt timed out"
    sentence = "attempt of {} timed out"


class DeadlineExceededError(CallTimeoutError):
    """Either `timeout.overall` of the call or the deadline of the operation that makes the call has passed."""

    policy = "deadline"
    summary = "the deadline is exceeded"
    sentence = "deadline of {} is exceeded"


class RetriesExhaustedError(VoiceRuntimeError):
    """The last attempt failed with a transient failure, and no further attempt is allowed. `__cause__` is this failure.

    `reason` names the limit: `max_retries`, `budget`, `deadline`, `pushback` (the callee asked for no retry), or
    `nested` (the attempt made another call, which exhausted its own retries).
    """

    policy = "retry"
    summary = "gave up"
    sentence = "retry of {} gave up"

    def __init__(self, target: str, retry_after: float | None = None, attempts: int = 0, reason: str = "") -> None:
        super().__init__(target, retry_after, attempts)
        self.reason = reason

    def __str__(self) -> str:
        cause = self.__cause__
        return f"{super().__str__()} ({self.reason})" + (f": {type(cause).__name__}: {cause}" if cause else "")


class SoftCallError(VoiceRuntimeError):
    """A soft call failed, and no fallback is registered for it. `__cause__` is the failure.

    The request can continue without the call: catch this error, or register a fallback. If a handler raises
    this error, the server answers UNAVAILABLE (gRPC) or 503 (HTTP).
    """

    policy = "fallback"
    summary = "the soft call failed and has no fallback"
    sentence = "soft call {} failed and has no fallback"


class CalleeError(VoiceRuntimeError):
    """A transient failure of the callee: `condition` is a `RetryCondition` of the policies.

    Transports raise it, or convert their errors into it. `retry_after` is the wait in seconds that the callee asks for.
    A negative number forbids a retry. NaN stands for a wait that cannot be parsed, and forbids a retry too (gRPC A6,
    `grpc-retry-pushback-ms`).
    """

    policy = "callee"

    def __init__(
        self,
        target: str,
        retry_after: float | None = None,
        attempts: int = 0,
        condition: RetryCondition = "unavailable",
    ) -> None:
        super().__init__(target, retry_after, attempts)
        self.condition: RetryCondition = condition

    @property
    def summary(self) -> str:  # type: ignore[override]  # each condition has its own text
        """The condition in words."""
        return f"the callee failed: {self.condition.replace('_', ' ')}"

    @property
    def sentence(self) -> str:  # type: ignore[override]  # as above
        """The condition, with the name of the call."""
        return f"callee of {{}} failed: {self.condition.replace('_', ' ')}"


class UnknownNameError(LookupError):
    """The bundle does not declare the name, or declares it more than once. The text suggests the most similar name."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        self.what = what
        self.name = name
        self.known = tuple(sorted(known))
        super().__init__(what, name, self.known)

    def __str__(self) -> str:
        text = f"{self.name!r} matches no {self.what} of the bundle, or more than one"
        if nearest := get_close_matches(str(self.name), self.known, n=1):
            text += f", did you mean {nearest[0]!r}?"
        return f"{text}; declared: {', '.join(self.known) or 'none'}"


class UnknownCallError(UnknownNameError):
    """No outbound call or inbound operation of the bundle has the name, or several have the name."""
