"""Classifies errors for breaker, retry, degradation and adaptive limit."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import singledispatch

from voice_policies import RetryCondition

from voice_runtime.errors import (
    CalleeError,
    CallRejectedError,
    CircuitOpenError,
    DeadlineExceededError,
    RetriesExhaustedError,
    SoftCallError,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt, in the terms of the policies."""

    condition: RetryCondition | None = None
    """The transient condition. `None` for a permanent failure, for which a retry does not help."""
    retry_after: float | None = None
    """Seconds after which the callee accepts a retry. A negative number or NaN forbids a retry."""
    blames_callee: bool = True
    """False if the breaker does not count the failure.

    In this case the fault is this process's own, or a circuit breaker behind the callee has refused the call or counted
    the failure.
    """

    @property
    def is_refusal(self) -> bool:
        """True if a circuit breaker behind the callee refused the call or counted the failure.

        The callee itself works.
        """
        return self.condition is not None and not self.blames_callee


Classify = Callable[[Exception], Failure | None]
"""Classifies an error. `None` is neutral: the callee works and gave a normal answer (not found, ...), or a policy
refused the attempt before it was sent. The function must not raise. It never gets a cancellation."""
ClassifyResult = Callable[[object], Failure | None]
"""Classifies a result that may mean failure, such as a response with an error status. `None` is success."""

REJECTED_BY = "x-rejected-by"
"""Header, and key of trailing metadata, with the name of the policy that refused the request. A caller's breaker does
not count an answer with the value `circuit_breaker`. So an outage opens only the breakers in the direct callers of the
failed service, and not one breaker after another up to the gateway."""
CIRCUIT_BREAKER = CircuitOpenError.policy
ERROR_CLASS = "x-error-class"
"""Header, and key of trailing metadata, with the class of a `DependencyFailure`. A caller's breaker does not count an
answer with this key, because the breaker of the dependency's direct caller has counted the failure."""
_CLASS = re.compile(r"[a-z_]{1,64}")
PERMANENT = Failure()
OWN_FAULT = Failure(blames_callee=False)
_UNAVAILABLE = Failure("unavailable")
_CONNECTION_FAILED = Failure("connection_failed")
_ATTEMPT_TIMEOUT = Failure("attempt_timeout")


@singledispatch
def classify(error: Exception) -> Failure | None:
    """Classify the network errors of Python, and the errors of the runtime. A transport registers its own errors."""
    failure: Failure | None = PERMANENT
    match error:
        case CallRejectedError():
            failure = None
        case RetriesExhaustedError() | SoftCallError() if isinstance(cause := error.__cause__, Exception) and (
            (of_cause := classify(cause)) is None or not of_cause.blames_callee
        ):
            failure = of_cause
        case DeadlineExceededError(attempts=0):
            failure = OWN_FAULT
        case RetriesExhaustedError() | DeadlineExceededError():
            pass
        case CalleeError(condition=condition, retry_after=retry_after):
            failure = Failure(condition, retry_after)
        case ConnectionRefusedError() | socket.gaierror():
            failure = _CONNECTION_FAILED
        case ConnectionError():
            failure = _UNAVAILABLE
        case TimeoutError():
            failure = _ATTEMPT_TIMEOUT
    return failure


@classify.register(ExceptionGroup)
def _(error: Exception) -> Failure | None:
    """A group is never retried, because other tasks of the group may have reached the callee."""
    failure = classify(decisive(error))
    return failure and Failure(blames_callee=failure.blames_callee)


def decisive(error: Exception) -> Exception:
    """The error that decides the class of a group: the first error that blames the callee, else the first failure.

    If no error of the group is a failure, the first error decides. `error` itself if it is no group.
    """
    if not isinstance(error, ExceptionGroup):
        return error
    return max((decisive(each) for each in error.exceptions), key=_severity)


def _severity(error: Exception) -> int:
    failure = classify(error)
    return 0 if failure is None else 1 + failure.blames_callee


def is_refusal(error: BaseException | None) -> bool:
    """True if a breaker in this process refused the call.

    Also true if a breaker behind the callee refused the call or counted the failure. The service that answers
    with such an error is not down itself.
    """
    match error:
        case CircuitOpenError():
            return True
        case RetriesExhaustedError() | SoftCallError():
            return is_refusal(error.__cause__)
        case Exception():
            failure = classify(error)
            return failure is not None and failure.is_refusal
    return False


@dataclass(frozen=True, slots=True)
class DependencyFailure:
    """The failure of a dependency, such as a model provider. Each hop passes it on to its caller, up to the client."""

    error_class: str
    """The class of the failure, such as `truncated` or `idle_timeout`. The list of classes is closed."""
    retry_after: float | None = None
    """Seconds after which another try makes sense. `None`: do not retry."""


@singledispatch
def dependency_failure(error: BaseException | None) -> DependencyFailure | None:
    """The failure that caused `error`, if a dependency of this process or of a callee failed. `None` for other errors.

    A package registers its own errors.
    """
    if isinstance(error, RetriesExhaustedError | SoftCallError):
        return dependency_failure(error.__cause__)
    return None


def received_failure(said: Mapping[str, str], retry_after: float | None) -> DependencyFailure | None:
    """The failure in the headers or trailing metadata of an answer.

    A `retry_after` that is `None`, negative or NaN forbids a retry.
    """
    if not _CLASS.fullmatch(said.get(ERROR_CLASS, "")):
        return None
    return DependencyFailure(said[ERROR_CLASS], retry_after if retry_after is not None and retry_after >= 0 else None)


class FailedResultError(Exception):
    """A result that was classified as a failure.

    The runtime raises it to decide on retries. After the last attempt the caller gets the result itself; for a soft
    call the fallback gets this error.
    """

    def __init__(self, result: object, failure: Failure) -> None:
        super().__init__(result, failure)
        self.result = result
        self.failure = failure

    def __str__(self) -> str:
        return f"the result is a failure: {self.result!r}"
