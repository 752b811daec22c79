"""Tracing: the spans that a process sends to the Collector."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from voice_policies.measure import Duration, Ratio
from voice_policies.names import TextPattern
from voice_policies.policy import Policy


class Tracing(Policy):
    """OpenTelemetry over OTLP. A Collector that is down delays no request."""

    endpoint: Annotated[str, TextPattern(r"^https?://[a-z0-9.-]+:\d{1,5}$", "http://collector:4317")]
    """The Collector's OTLP/gRPC address."""
    sample_ratio: Ratio = Ratio("10%")
    """Sampling ratio of the traces that begin in this process. For other traces the caller's decision holds."""
    baggage: Annotated[tuple[str, ...], Field(strict=False)] = ("tenant.id", "user.id")
    """Baggage keys copied to span attributes inside the platform; never sent to an external host, never a metric
    label."""
    max_queue: Annotated[int, Field(ge=1, le=100_000)] = 2048
    """Largest number of spans in the queue. The default is that of OpenTelemetry. If the queue is full, the oldest span
    is dropped and counted."""
    shutdown_timeout: Duration = Duration("2s")
    """Longest time that flushing may delay the end of the process."""
