"""The classification of an error, shared by breaker, retry, degradation and adaptive limit."""

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
    """The transient condition. `None` for a failure that another attempt does not help."""
    retry_after: float | None = None
    """Seconds after which the callee accepts a retry. Below zero or NaN, never."""
    blames_callee: bool = True
    """False is neutral for the breaker: nothing was sent, or a circuit breaker behind the callee refused or counted."""

    @property
    def is_refusal(self) -> bool:
        """True if a circuit breaker behind the callee refused. The callee itself works."""
        return self.condition is not None and not self.blames_callee


Classify = Callable[[Exception], Failure | None]
"""Classifies an error. `None` is neutral: the callee works, and gave a normal answer (not found, ...). It must not
raise. It never receives a cancellation."""
ClassifyResult = Callable[[object], Failure | None]
"""Classifies a result that may mean failure, such as a response with an error status. `None` is success."""

REJECTED_BY = "x-rejected-by"
"""Header and trailing metadata of an answer: the policy that refused. A caller's breaker does not count such an answer,
so that one outage opens the breakers beside it, and not one after another up to the entrance."""
CIRCUIT_BREAKER = CircuitOpenError.policy
ERROR_CLASS = "x-error-class"
"""Header and trailing metadata of an answer: the class of a `DependencyFailure`. A caller's breaker does not count such
an answer, because the breaker beside the dependency has."""
_CLASS = re.compile(r"[a-z_]{1,64}")
PERMANENT = Failure()
OWN_FAULT = Failure(blames_callee=False)
_UNAVAILABLE = Failure("unavailable")
_CONNECTION_FAILED = Failure("connection_failed")
_ATTEMPT_TIMEOUT = Failure("attempt_timeout")


@singledispatch
def classify(error: Exception) -> Failure | None:
    """Classify Python's network errors and the runtime's. A transport registers its own errors."""
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


def is_refusal(error: BaseException | None) -> bool:
    """True if a circuit breaker refused, here or behind a callee: the service that answers so works itself."""
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
    """The failure of a dependency, such as a model provider, as it travels from hop to hop to the client."""

    error_class: str
    """Its class, one word of a closed list: `truncated`, `idle_timeout`."""
    retry_after: float | None = None
    """Seconds after which another try makes sense. `None`: do not retry."""


@singledispatch
def dependency_failure(error: BaseException | None) -> DependencyFailure | None:
    """The failure of a dependency that ended a call, in this process or behind a callee. `None` for other errors.

    A package registers its own errors.
    """
    if isinstance(error, RetriesExhaustedError | SoftCallError):
        return dependency_failure(error.__cause__)
    return None


def received_failure(said: Mapping[str, str], retry_after: float | None) -> DependencyFailure | None:
    """The failure that an answer's headers or trailing metadata name. A negative or unreadable wait forbids a retry."""
    if not _CLASS.fullmatch(said.get(ERROR_CLASS, "")):
        return None
    return DependencyFailure(said[ERROR_CLASS], retry_after if retry_after is not None and retry_after >= 0 else None)


class FailedResultError(Exception):
    """A result that was classified as a failure.

    It is raised as an error until the retries are decided. Then it is returned, or passed to the fallback of a soft
    call.
    """

    def __init__(self, result: object, failure: Failure) -> None:
        super().__init__(f"the result is a failure: {result!r}")
        self.result = result
        self.failure = failure
