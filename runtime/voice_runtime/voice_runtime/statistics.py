"""Counters as plain numbers. Exporters read them at scrape time.

No decision of a policy depends on these numbers.
"""

from __future__ import annotations

from collections import Counter
from typing import get_args

from voice_runtime.retry import GaveUp


class CallStatistics:
    """The counters of one outbound call."""

    __slots__ = (
        "cancelled",
        "deadlines_exceeded",
        "exhausted",
        "failed",
        "fallbacks",
        "first_messages",
        "ignored",
        "late_first_messages",
        "rejected",
        "retries",
        "seconds",
        "successful",
        "timeouts",
    )

    def __init__(self) -> None:
        self.successful = self.failed = self.ignored = self.cancelled = 0
        self.timeouts = self.deadlines_exceeded = self.retries = self.fallbacks = 0
        self.first_messages = self.late_first_messages = 0
        """First messages of streams, and the number of them that came after the objective of the call."""
        self.exhausted = dict.fromkeys(get_args(GaveUp), 0)
        self.rejected = Counter(bulkhead=0, circuit_breaker=0, worker_threads=0)
        """Attempts that a policy refused before anything was sent."""
        self.seconds = 0.0
        """Duration of the attempts that succeeded or failed, summed, in seconds."""


class OperationStatistics:
    """The counters of one inbound operation."""

    __slots__ = ("cancelled", "deadlines_exceeded", "failed", "in_flight", "rejected", "seconds", "slow", "successful")

    def __init__(self) -> None:
        self.successful = self.failed = self.cancelled = self.deadlines_exceeded = self.in_flight = 0
        self.seconds = 0.0
        """Duration of the requests that succeeded or failed, summed, in seconds."""
        self.rejected = Counter(bulkhead=0, deadline=0, rate_limit=0, worker_threads=0)
        """Requests that a policy refused before the operation began."""
        self.slow = 0
        """Requests that took longer than the operation's P95 objective."""


class SpanStatistics:
    """The counters of the spans that this process sampled."""

    __slots__ = ("dropped", "ended", "exported", "failed")

    def __init__(self) -> None:
        self.ended = self.dropped = self.exported = self.failed = 0
