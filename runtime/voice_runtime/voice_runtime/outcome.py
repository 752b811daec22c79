"""The classification of an error, shared by breaker, retry, degradation and adaptive limit."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch

from voice_policies import RetryCondition

from voice_runtime.errors import (
    CalleeError,
    CallRejectedError,
    DeadlineExceededError,
    RetriesExhaustedError,
    SoftCallError,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt, in the words of the policies."""

    condition: RetryCondition | None = None
    """The transient outcome it is; `None` for one that another attempt would not mend."""
    retry_after: float | None = None
    """Seconds after which the callee wants to be asked again; below zero or NaN, not at all."""
    blames_callee: bool = True
    """False for a failure of this process: nothing was sent. It is neutral for the breaker, and not repeated."""


Classify = Callable[[Exception], Failure | None]
"""Says what an error means; `None` is neutral: the callee works, and the caller got what it asked for (not found, ...).

Must not raise. Cancellation never gets here.
"""
ClassifyResult = Callable[[object], Failure | None]
"""Says whether a result is a failure in disguise, such as a response with an error status; `None` is success."""

PERMANENT = Failure()
OWN_FAULT = Failure(blames_callee=False)
_UNAVAILABLE = Failure("unavailable")
_CONNECTION_FAILED = Failure("connection_failed")
_ATTEMPT_TIMEOUT = Failure("attempt_timeout")


@singledispatch
def classify(error: Exception) -> Failure | None:
    """Python's own network errors and the runtime's; a transport registers what its own errors mean."""
    failure: Failure | None = PERMANENT
    match error:
        case CallRejectedError():
            failure = None
        case RetriesExhaustedError() | SoftCallError() if isinstance(cause := error.__cause__, Exception) and (
            classify(cause) is None
        ):
            failure = None
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


class FailedResultError(Exception):
    """A result that was classified as a failure.

    It travels as an error until the retries are decided. Then it is returned; of a soft call it reaches the fallback.
    """

    def __init__(self, result: object, failure: Failure) -> None:
        super().__init__(f"the result is a failure: {result!r}")
        self.result = result
        self.failure = failure
