"""Reads from a response's headers how long to wait before the next request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

NUMBER = re.compile(r"\d{1,15}(?:\.\d+)?")
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
"""Units of Go's `time.Duration`, in seconds."""
DURATION = re.compile(r"(?:\d{1,15}(?:\.\d+)?(?:h|ms|m|s|us|µs|ns)){1,9}")
PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
RESET, REMAINING = "x-ratelimit-reset-", "x-ratelimit-remaining-"


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds after which the provider accepts a request, at least 0. `None` if no header names a readable time.

    The names of `headers` must be lower case. The first readable header counts, in this order: `retry-after-ms`,
    `retry-after`, `x-ratelimit-reset-*`. The value of `retry-after` may be a number of seconds, a duration such as
    `6m0s`, or an HTTP date. The wait until an HTTP date begins at the header `date`, the provider's clock. If `date` is
    missing or unreadable, the wait begins at `now`.
    """
    milliseconds = headers.get("retry-after-ms", "").strip()
    if NUMBER.fullmatch(milliseconds):
        return float(milliseconds) / 1000
    word = headers.get("retry-after", "").strip()
    seconds = _seconds(word)
    if seconds is None:
        seconds = _until(word, _date(headers.get("date", "")) or now)
    return _reset(headers) if seconds is None else seconds


def _seconds(text: str) -> float | None:
    if NUMBER.fullmatch(text):
        return float(text)
    if DURATION.fullmatch(text):
        return sum(float(number) * UNITS[unit] for number, unit in PART.findall(text))
    return None


def _until(text: str, now: datetime) -> float | None:
    date = _date(text)
    return None if date is None else max((date - now).total_seconds(), 0.0)


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _reset(headers: Mapping[str, str]) -> float | None:
    """The longest reset time of the exhausted limits, or of all limits if none is exhausted."""
    times = dict(_resets(headers))
    exhausted = [times[limit] for limit in times if headers.get(REMAINING + limit, "").strip() == "0"]
    return max(exhausted or times.values(), default=None)


def _resets(headers: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    for name, value in headers.items():
        if name.startswith(RESET) and (seconds := _seconds(value.strip())) is not None:
            yield name.removeprefix(RESET), seconds
