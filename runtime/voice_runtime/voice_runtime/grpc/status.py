"""Maps the status of a callee to a failure, and an error to the status with which a server answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import grpc
from grpc import StatusCode

from voice_runtime.errors import (
    BulkheadFullError,
    CalleeError,
    CallRejectedError,
    CallTimeoutError,
    RateLimitedError,
    RetriesExhaustedError,
    SoftCallError,
    VoiceRuntimeError,
)
from voice_runtime.outcome import (
    CIRCUIT_BREAKER,
    ERROR_CLASS,
    OWN_FAULT,
    PERMANENT,
    REJECTED_BY,
    DependencyFailure,
    Failure,
    classify,
    decisive,
    dependency_failure,
    is_refusal,
    received_failure,
)

PUSHBACK = "grpc-retry-pushback-ms"
"""Key of trailing metadata (gRPC A6): milliseconds until the callee accepts a retry. A negative or unreadable
value forbids a retry."""
NO_RETRY = -1.0
LONGEST_WAIT = 2**31 - 1
"""Longest pushback in milliseconds. gRPC reads the value as a signed number of 32 bits."""
_MILLISECONDS = re.compile(r"-?[0-9]{1,10}")
_FAILURES: dict[StatusCode, Failure] = {
    StatusCode.UNAVAILABLE: Failure("unavailable"),
    StatusCode.DEADLINE_EXCEEDED: Failure("attempt_timeout"),
    StatusCode.RESOURCE_EXHAUSTED: Failure("resource_exhausted"),
    StatusCode.ABORTED: Failure("aborted"),
    StatusCode.INTERNAL: PERMANENT,
    StatusCode.UNKNOWN: PERMANENT,
    StatusCode.DATA_LOSS: PERMANENT,
}
"""The codes that count as failures of the callee. Other codes, such as NOT_FOUND, are answers of a working callee."""
_STATUS = {failure.condition: code for code, failure in _FAILURES.items() if failure.condition} | {
    "connection_failed": StatusCode.UNAVAILABLE
}
# Texts with which gRPC's C core ends a call that it has not sent on any connection.
_NEVER_SENT = ("connections to all backends failing", "failed to connect to all addresses", "errors resolving")
_TOO_LARGE = re.compile(r"(sent|received) message larger than max|message exceeds maximum size", re.IGNORECASE)
"""Texts of gRPC's C core, Go and Java for a message that is too large. gRPC reports such a message with
RESOURCE_EXHAUSTED, although the callee is not overloaded."""
_INVALID_METADATA = "Invalid metadata"
_CANCELLED_HERE = ("Locally cancelled by application!", "Cancelled upon garbage collection!", "Channel closed!")


class NeverSentError(grpc.aio.AioRpcError):
    """UNAVAILABLE, and the request was certainly never sent. So a retry is safe for every call."""


class StatusError(Exception):
    """A handler ended with the status `code`.

    The interceptor raises this error, so that the request's policies count it.
    """

    def __init__(self, code: StatusCode) -> None:
        super().__init__(code.name)
        self.code = code


def failure_of(code: StatusCode, trailing: Any = ()) -> Failure | None:
    """The failure for a status, with the callee's pushback. `None` for a status that is no failure of the callee."""
    failure = _FAILURES.get(code)
    if failure is None or not trailing:
        return failure
    said = dict(trailing)
    refused = code is StatusCode.UNAVAILABLE and said.get(REJECTED_BY) == CIRCUIT_BREAKER
    wait = _pushback(said)
    return Failure(failure.condition, wait, blames_callee=not (refused or received_failure(said, wait)))


def _pushback(said: Mapping[str, str]) -> float | None:
    """Seconds until the callee accepts a retry. Negative if the callee forbids a retry, `None` without a pushback."""
    pushback = said.get(PUSHBACK)
    if pushback is None:
        return None
    return int(pushback) / 1000 if _MILLISECONDS.fullmatch(pushback) else NO_RETRY


def was_never_sent(error: grpc.RpcError, state: grpc.ChannelConnectivity) -> bool:
    """True if the request was certainly never sent.

    The text alone is no proof, because a callee may relay the same text from its own callee. The state of the channel
    is the proof: a channel that can reach the callee is not in TRANSIENT_FAILURE.
    """
    return (
        error.code() is StatusCode.UNAVAILABLE
        and (error.details() or "").startswith(_NEVER_SENT)
        and state is grpc.ChannelConnectivity.TRANSIENT_FAILURE
    )


def never_sent(error: grpc.RpcError) -> NeverSentError:
    """The same error as a `NeverSentError`, which allows a retry."""
    return NeverSentError(StatusCode.UNAVAILABLE, details=error.details(), debug_error_string=error.details())


@classify.register(grpc.RpcError)
def _(error: grpc.RpcError) -> Failure | None:
    if isinstance(error, NeverSentError):
        return Failure("connection_failed")
    code, details = error.code(), error.details() or ""
    if _TOO_LARGE.search(details) or (details == _INVALID_METADATA and not getattr(error, "debug_error_string", str)()):
        return OWN_FAULT
    if code is StatusCode.CANCELLED and details not in _CANCELLED_HERE:
        code = StatusCode.UNAVAILABLE  # a server that stops cancels requests before they reach a handler
    return failure_of(code, error.trailing_metadata())


@dependency_failure.register(grpc.RpcError)
def _(error: grpc.RpcError) -> DependencyFailure | None:
    said: dict[str, Any] = dict(error.trailing_metadata() or ())  # type: ignore[arg-type]  # pairs, as in `failure_of`
    return received_failure(said, _pushback(said))


@classify.register(grpc.aio.BaseError)
def _(_: Exception) -> Failure | None:
    """Classify an error of gRPC itself, such as metadata that gRPC cannot send, or a closed channel."""
    return OWN_FAULT


@classify.register
def _(error: StatusError) -> Failure | None:
    return failure_of(error.code)


def status_of(error: BaseException) -> StatusCode:
    """The status that matches an error."""
    code = StatusCode.INTERNAL if isinstance(error, Exception) else StatusCode.CANCELLED
    match error:
        case RetriesExhaustedError(__cause__=Exception() as cause):
            code = status_of(cause)
        case grpc.RpcError():
            code = error.code()
        case RateLimitedError() | BulkheadFullError():
            code = StatusCode.RESOURCE_EXHAUSTED
        case CallRejectedError() | SoftCallError():
            code = StatusCode.UNAVAILABLE
        case CallTimeoutError():
            code = StatusCode.DEADLINE_EXCEEDED
        case CalleeError():
            code = _STATUS[error.condition]
        case Exception() if dependency_failure(error):
            code = StatusCode.ABORTED  # the mesh would count UNAVAILABLE as an outage of this service's pod
    return code


def details_of(error: BaseException | None) -> str:
    """The text of the status that matches an error. Empty without an error."""
    if isinstance(error, RetriesExhaustedError):
        error = error.__cause__
    return (error.details() or "") if isinstance(error, grpc.RpcError) else str(error or "")


def answer_to(error: Exception) -> tuple[StatusCode, tuple[tuple[str, str], ...]]:
    """The status and the trailing metadata with which a server ends a request.

    A callee's status such as NOT_FOUND becomes INTERNAL, because NOT_FOUND describes the call to the callee, not the
    request to this server. If this service's retries are exhausted, or waiting does not help, the answer asks the
    caller not to retry. So attempts do not multiply from hop to hop.
    """
    error = decisive(error)
    code = status_of(error)
    if code is StatusCode.CANCELLED:
        code = StatusCode.UNAVAILABLE
    if code not in _FAILURES:
        code = StatusCode.INTERNAL
    if failure := dependency_failure(error):
        return code, ((ERROR_CLASS, failure.error_class), (PUSHBACK, _milliseconds(failure.retry_after)))
    refused = ((REJECTED_BY, CIRCUIT_BREAKER),) if is_refusal(error) else ()
    spent = isinstance(error.__cause__ if isinstance(error, SoftCallError) else error, RetriesExhaustedError)
    if spent or (isinstance(error, RateLimitedError) and error.retry_after is None):
        return code, (*refused, (PUSHBACK, "-1"))
    wait = error.retry_after if isinstance(error, VoiceRuntimeError) else None
    if wait is None:
        return code, refused
    return code, (*refused, (PUSHBACK, _milliseconds(wait)))


def _milliseconds(wait: float | None) -> str:
    """The value of `PUSHBACK` for a wait in seconds. `None`, NaN and a negative number forbid another attempt."""
    return str(round(min(wait * 1000, LONGEST_WAIT))) if wait is not None and wait >= 0 else "-1"
