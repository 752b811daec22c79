"""Classifies providers' errors: a closed list of classes, and a dated table of error codes for each provider.

The same words mean different things at different providers. With OpenAI, `insufficient_quota` is an account without
credit; with Scaleway, "INSUFFICIENT QUOTA" is a limit per minute. So the table of the provider is read before the
status.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

ErrorClass = Literal[
    "rate_limited",
    "overloaded",
    "server_error",
    "connection_failed",
    "first_token_timeout",
    "truncated",
    "idle_timeout",
    "quota_exhausted",
    "authentication",
    "model_not_found",
    "context_exceeded",
    "invalid_request",
    "content_filtered",
    "deadline_exceeded",
    "budget_exceeded",
    "no_candidate",
]
"""The reason why an attempt or a call failed. The last three classes of this list are decisions of the runtime."""

BY_STATUS: Mapping[int, ErrorClass] = {
    401: "authentication",
    402: "quota_exhausted",
    403: "authentication",
    404: "model_not_found",
    408: "server_error",
    409: "server_error",
    425: "server_error",
    410: "model_not_found",
    429: "rate_limited",
    503: "overloaded",
    529: "overloaded",
}
"""The class of a status. Any other status from 400 to 499 is `invalid_request`; all others are `server_error`."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The error codes and phrases of one provider, from the provider's documentation and from public reports."""

    read: date
    """The day on which a person read these sources."""
    codes: Mapping[str, ErrorClass]
    """Error classes by the value of the error's `code`, `type` or `status`."""
    phrases: tuple[tuple[re.Pattern[str], ErrorClass], ...] = ()
    """Error classes by a pattern of the error's text. If no code is known, the first pattern that matches decides."""


def _phrases(*pairs: tuple[str, ErrorClass]) -> tuple[tuple[re.Pattern[str], ErrorClass], ...]:
    return tuple((re.compile(pattern, re.IGNORECASE), error_class) for pattern, error_class in pairs)


CONTEXT = r"maximum context length|context window|(?:prompt|input) (?:is|was) too long"
OPENAI = Dialect(
    date(2026, 11, 30),
    {
        "insufficient_quota": "quota_exhausted",
        "credit_balance_exhausted": "quota_exhausted",
        "organization_spend_limit_exceeded": "quota_exhausted",
        "organization_usage_limit_exceeded": "quota_exhausted",
        "project_spend_limit_exceeded": "quota_exhausted",
        "billing_hard_limit_reached": "quota_exhausted",
        "billing_not_active": "quota_exhausted",
        "rate_limit_exceeded": "rate_limited",
        "invalid_api_key": "authentication",
        "model_not_found": "model_not_found",
        "context_length_exceeded": "context_exceeded",
        "content_filter": "content_filtered",
        "content_policy_violation": "content_filtered",
        "server_error": "server_error",
        "server_is_overloaded": "overloaded",
    },
    _phrases((CONTEXT, "context_exceeded"), (r"exceeded your current quota", "quota_exhausted")),
)
"""The dialect of OpenAI, and of servers that copy its API, such as vLLM."""
DIALECTS: Mapping[str, Dialect] = {
    "anthropic.com": Dialect(
        date(2026, 11, 30),
        {
            "rate_limit_error": "rate_limited",
            "overloaded_error": "overloaded",
            "api_error": "server_error",
            "authentication_error": "authentication",
            "permission_error": "authentication",
            "billing_error": "quota_exhausted",
            "not_found_error": "model_not_found",
        },
        _phrases((r"credit balance is too low", "quota_exhausted"), (CONTEXT, "context_exceeded")),
    ),
    "azure.com": Dialect(
        date(2026, 11, 30),
        {
            **OPENAI.codes,
            "DeploymentNotFound": "model_not_found",
            "ResponsibleAIPolicyViolation": "content_filtered",
            "RateLimitReached": "rate_limited",
            "NoCapacity": "overloaded",
        },
        _phrases((CONTEXT, "context_exceeded"), (r"out of call volume quota", "quota_exhausted")),
    ),
    "googleapis.com": Dialect(
        date(2026, 11, 30),
        {},
        # The message says "exceeded your current quota" for every limit, so only the quota's name is decisive.
        _phrases((r"per ?minute", "rate_limited"), (r"per ?day", "quota_exhausted"), (CONTEXT, "context_exceeded")),
    ),
    "moonshot.ai": Dialect(
        date(2026, 11, 30),
        {
            "exceeded_current_quota_error": "quota_exhausted",
            "rate_limit_reached_error": "rate_limited",
            "engine_overloaded_error": "overloaded",
            "content_filter": "content_filtered",
        },
        _phrases((CONTEXT, "context_exceeded")),
    ),
    "scaleway.ai": Dialect(
        date(2026, 11, 30),
        {"INSUFFICIENT QUOTA": "rate_limited"},
        _phrases((CONTEXT, "context_exceeded")),
    ),
}
"""The dialects that differ from OpenAI's, by the suffix of the provider's host."""


def dialect_of(host: str) -> Dialect:
    """The dialect of the provider at `host`; OpenAI's for a host that is not in `DIALECTS`."""
    return next((found for end, found in DIALECTS.items() if host == end or host.endswith(f".{end}")), OPENAI)


def error_class(status: int | None, error: Any, dialect: Dialect) -> ErrorClass:
    """The class of an error.

    `error` is the parsed body of an answer. If `status` is `None`, `error` is an error in a stream.
    """
    try:
        words, text = tuple(_words(error)), json.dumps(error, ensure_ascii=False)
    except RecursionError:  # Python 3.13 parses documents that are too deeply nested for these calls
        words, text = (), ""
    for word in words:
        if word in dialect.codes:
            return dialect.codes[word]
    for pattern, found in dialect.phrases:
        if pattern.search(text):
            return found
    if status is None:
        status = next((int(word) for word in words if re.fullmatch("[45][0-9][0-9]", word)), None)
    if status is None:
        return "invalid_request" if "invalid_request_error" in words else "server_error"
    return BY_STATUS.get(status, "invalid_request" if 400 <= status < 500 else "server_error")


def _words(error: Any) -> Iterator[str]:
    """The codes inside an error. The most specific code is first. Providers nest the codes in different ways."""
    if isinstance(error, str):
        yield error
    elif isinstance(error, list):
        for each in error:
            yield from _words(each)
    elif isinstance(error, dict):
        for inner in ("error", "innererror"):
            yield from _words(error.get(inner))
        for name in ("code", "type", "status"):
            if isinstance(value := error.get(name), str | int):
                yield str(value)
