"""The counts of model calls. Exporters read the counts at each scrape."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from typing import Literal

from voice_policies import Models

from voice_models.usage import ModelAttempted

CallKind = Literal["successful", "truncated_by_length", "failed", "cancelled", "refused", "cut"]
"""The end of a call. `cut`: the call failed after its first content."""
BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Upper bounds in seconds. OpenTelemetry's GenAI conventions advise them for the duration of an operation."""


def boundaries(models: Models | None) -> tuple[float, ...]:
    """The bounds of the histograms: `BUCKETS` and the objectives of all routes, so that P95 alerts are exact."""
    objectives = (route.objective for route in models.routes.values()) if models else ()
    parts = (part.seconds for each in objectives if each for part in (each.first_token, each.per_token) if part)
    return tuple(sorted({*BUCKETS, *parts}))


class Distribution:
    """A histogram of seconds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class ModelStatistics:
    """The counts of one process."""

    def __init__(self, bounds: tuple[float, ...] = BUCKETS) -> None:
        def distributions() -> defaultdict[tuple[str, str, str, str], Distribution]:
            return defaultdict(lambda: Distribution(bounds))

        self.calls: Counter[tuple[str, CallKind]] = Counter()
        self.good_calls: Counter[str] = Counter()
        self.attempts: Counter[tuple[str, str, str]] = Counter()
        self.fallbacks: Counter[str] = Counter()
        self.hedges: Counter[str] = Counter()
        self.tokens: Counter[tuple[str, str, str, str]] = Counter()
        self.micro_usd: Counter[tuple[str, str]] = Counter()
        self.cache_hits: Counter[str] = Counter()
        self.usage_events_dropped = 0
        self.durations = distributions()
        """By operation, provider, model and error class. The two attributes below have the same keys."""
        self.first_content = distributions()
        self.per_output = distributions()

    def record(self, event: ModelAttempted, operation: str) -> None:
        """Count one attempt."""
        of, error = (event.route, event.deployment), event.error_class or ""
        self.attempts[(*of, error or ("successful" if event.ending == "finished" else "cancelled"))] += 1
        source = "estimated" if event.estimated else "reported"
        if event.input_unit == "token":
            self.tokens[(*of, "input", source)] += event.input_units
        self.tokens[(*of, "output", source)] += event.output_tokens
        self.micro_usd[of] += event.micro_usd
        labels = (operation, event.provider, event.model, error)
        self.durations[labels].add(event.duration)
        if event.first_token is not None:
            self.first_content[labels].add(event.first_token)
            if event.output_tokens > 1:
                self.per_output[labels].add(per_token(event))


def per_token(event: ModelAttempted) -> float:
    """Mean seconds for each output token after the first."""
    return (event.duration - (event.first_token or 0.0)) / max(event.output_tokens - 1, 1)
