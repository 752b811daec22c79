"""Maps HTTP statuses and transport errors to failures, and the decision of a policy to a status."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import ceil

import h11
import httpx
from opentelemetry.trace import Span, StatusCode

from voice_runtime.errors import CallRejectedError, CallTimeoutError, RateLimitedError, SoftCallError, VoiceRuntimeError
from voice_runtime.outcome import (
    CIRCUIT_BREAKER,
    ERROR_CLASS,
    OWN_FAULT,
    PERMANENT,
    REJECTED_BY,
    Failure,
    classify,
    decisive,
    dependency_failure,
    is_refusal,
    received_failure,
)

RETRY_AFTER = "retry-after"
SHOULD_RETRY = "x-should-retry"
"""The header `x-should-retry: false` asks the caller not to retry. Model providers send it, too."""
NO_RETRY = -1.0
LONGEST_WAIT = 2**31 - 1
"""Longest `Retry-After` in seconds that every client can read."""
_SECONDS = re.compile(r"[0-9]{1,10}(\.[0-9]+)?")  # some servers send decimals, which RFC 9110 does not allow
_FAILURES = {
    429: Failure("resource_exhausted"),
    502: Failure("unavailable"),
    503: Failure("unavailable"),
    504: Failure("attempt_timeout"),
}


_NO_HEADERS: Mapping[str, str] = {}


class StatusError(Exception):
    """An application answered with `status`.

    The middleware raises this error, so that the request's policies count it.
    """

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


def failure_of(status: int, headers: Mapping[str, str] = _NO_HEADERS) -> Failure | None:
    """The failure for a status, with the callee's `Retry-After`. `None` if the status is no failure, such as 404."""
    failure = _FAILURES.get(status) or (PERMANENT if status >= 500 else None)
    if failure is None:
        return None
    wait = _seconds(headers[RETRY_AFTER], headers.get("date", "")) if RETRY_AFTER in headers else None
    if headers.get(SHOULD_RETRY) == "false":
        wait = NO_RETRY
    refused = status == 503 and headers.get(REJECTED_BY) == CIRCUIT_BREAKER
    return Failure(failure.condition, wait, blames_callee=not (refused or received_failure(headers, wait)))


def show_status(status: int, span: Span) -> None:
    """Record an answer's status on its span. The span is an error if the status is a failure."""
    span.set_attribute("http.response.status_code", status)
    if failure_of(status) is not None:
        span.set_status(StatusCode.ERROR)


def _seconds(retry_after: str, sent: str) -> float:
    """The wait in seconds that `Retry-After` asks for, as a number or a date (RFC 9110, 10.2.3).

    A date is compared with the header `date`, because this host's clock may differ from the callee's. If that header is
    missing or unreadable, this host's clock takes its place. A `Retry-After` that is neither a number nor a date
    forbids another attempt.
    """
    if _SECONDS.fullmatch(retry_after):
        return float(retry_after)
    until, now = _timestamp(retry_after), _timestamp(sent)
    if until is None:
        return NO_RETRY
    return max(until - (time.time() if now is None else now), 0.0)


def _timestamp(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # An asctime date is UTC (RFC 9110, 5.6.7).
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


@classify.register(httpx.TransportError)
def _(error: httpx.TransportError) -> Failure | None:
    match error:
        case httpx.PoolTimeout() | httpx.LocalProtocolError() | httpx.UnsupportedProtocol():
            return OWN_FAULT
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return Failure("connection_failed")  # the request was never sent
        case httpx.TimeoutException():
            return Failure("attempt_timeout")
        case httpx.NetworkError() | httpx.RemoteProtocolError():
            return Failure("unavailable")
    return PERMANENT


@classify.register(h11.LocalProtocolError)
def _(_: Exception) -> Failure | None:
    """The body of the request differs from its declared length. The error comes from httpx's parser."""
    return OWN_FAULT


@classify.register
def _(error: StatusError) -> Failure | None:
    return failure_of(error.status)


def answer_to(error: Exception) -> tuple[int, str, dict[str, str]]:
    """The status, text and headers of a server's answer if its handler raised `error`.

    The text names the policy that raised `error`, or the class of a dependency's failure. After any other error
    the text is `internal error`. It never contains the error's own text, because that text may contain secrets.
    """
    error = decisive(error)
    if failure := dependency_failure(error):
        again = {SHOULD_RETRY: "false"} if failure.retry_after is None else _retry_after(failure.retry_after)
        return 503, f"a dependency failed: {failure.error_class}", {ERROR_CLASS: failure.error_class, **again}
    if not isinstance(error, VoiceRuntimeError):
        return 500, "internal error", {}
    headers = _retry_after(error.retry_after)
    if is_refusal(error):
        headers[REJECTED_BY] = CIRCUIT_BREAKER
    text = f"{error.policy}: {error.summary}"
    match error:
        case RateLimitedError():
            return 429, text, headers
        case CallTimeoutError():
            return 504, text, headers
        case CallRejectedError() | SoftCallError():
            return 503, text, headers
    return 500, text, {}


def _retry_after(wait: float | None) -> dict[str, str]:
    return {RETRY_AFTER: str(ceil(min(wait, LONGEST_WAIT)))} if wait is not None and wait >= 0 else {}
