"""The exported metrics of model calls. The metrics of all other calls are in `voice_runtime.metrics`.

Label values are names in the bundle or constants of this package, so the bundle limits the number of series. A tenant
is never a label. The histograms have the names of OpenTelemetry's conventions for generative AI.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from voice_runtime.metrics import Metric, Samples

from voice_models.runtime import ModelRuntime
from voice_models.statistics import Distribution, ModelStatistics

__all__ = ["HISTOGRAMS", "METRICS", "Histogram"]

OPERATION = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type")


class Histogram(NamedTuple):
    """One histogram of seconds."""

    name: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[ModelRuntime], Mapping[tuple[str, str, str, str], Distribution]]


def _counter(read: Callable[[ModelStatistics], Mapping[Any, float]]) -> Callable[[ModelRuntime], Samples]:
    def samples(runtime: ModelRuntime) -> Samples:
        for labels, count in tuple(read(runtime.statistics).items()):
            yield (labels,) if isinstance(labels, str) else tuple(labels), count

    return samples


def _cooldowns(runtime: ModelRuntime) -> Samples:
    models = runtime.runtime.bundle.models
    routes = [runtime.candidates(models, route) for route in models.routes] if models else []
    for name, candidate in {each.name: each for route in routes for each in route}.items():
        for reason in runtime.cooldowns.reasons(candidate):
            yield (name, reason), 1


def _budget_requests(runtime: ModelRuntime) -> Samples:
    for budget, counts in tuple(runtime.budgets.statistics.items()):
        yield (budget, "admitted"), counts.admitted
        yield (budget, "rejected"), counts.rejected


def _budgets_without_store(runtime: ModelRuntime) -> Samples:
    for budget, counts in tuple(runtime.budgets.statistics.items()):
        yield (budget,), counts.without_store


def _retirements(runtime: ModelRuntime) -> Samples:
    models = runtime.runtime.bundle.models
    for name, deployment in models.deployments.items() if models else ():
        retires = models.models[deployment.model].retires if models else None
        if retires is not None:
            yield (name,), datetime(retires.year, retires.month, retires.day, tzinfo=UTC).timestamp()


def _dropped(runtime: ModelRuntime) -> Samples:
    yield (), runtime.statistics.usage_events_dropped


_ROUTE = ("route",)
_CANDIDATE = ("route", "candidate")

METRICS: tuple[Metric[ModelRuntime], ...] = (
    Metric(
        "voice_model_calls_total",
        "counter",
        "Ended model calls. A call of the kind 'cut' failed after the first content.",
        ("route", "kind"),
        _counter(lambda counts: counts.calls),
    ),
    Metric(
        "voice_model_good_calls_total",
        "counter",
        "Successful model calls within the objective of their route.",
        _ROUTE,
        _counter(lambda counts: counts.good_calls),
    ),
    Metric(
        "voice_model_attempts_total",
        "counter",
        "Ended attempts, by success, cancellation or error class.",
        (*_CANDIDATE, "kind"),
        _counter(lambda counts: counts.attempts),
    ),
    Metric(
        "voice_model_fallbacks_total",
        "counter",
        "Model calls that attempted another candidate after a failed attempt.",
        _ROUTE,
        _counter(lambda counts: counts.fallbacks),
    ),
    Metric(
        "voice_model_hedges_total",
        "counter",
        "Model calls that sent a second request beside a slow first one.",
        _ROUTE,
        _counter(lambda counts: counts.hedges),
    ),
    Metric(
        "voice_model_tokens_total",
        "counter",
        "Tokens of attempts, without input that the provider bills by characters or by seconds of audio.",
        (*_CANDIDATE, "direction", "source"),
        _counter(lambda counts: counts.tokens),
    ),
    Metric(
        "voice_model_cost_micro_usd_total",
        "counter",
        "Cost of attempts at the declared prices, in millionths of a US dollar.",
        _CANDIDATE,
        _counter(lambda counts: counts.micro_usd),
    ),
    Metric(
        "voice_model_cache_hits_total",
        "counter",
        "Model calls that the cache answered.",
        _ROUTE,
        _counter(lambda counts: counts.cache_hits),
    ),
    Metric(
        "voice_model_cooldown",
        "gauge",
        "1 while a deployment is in cooldown, by the error class that started the cooldown.",
        ("candidate", "reason"),
        _cooldowns,
    ),
    Metric(
        "voice_model_budget_requests_total",
        "counter",
        "Attempts that a token budget admitted or rejected.",
        ("budget", "kind"),
        _budget_requests,
    ),
    Metric(
        "voice_model_budget_without_store_total",
        "counter",
        "Reservations and settlements for which a token budget could not reach its store.",
        ("budget",),
        _budgets_without_store,
    ),
    Metric(
        "voice_model_retirement_timestamp_seconds",
        "gauge",
        "Unix time of the day on which the provider shuts the deployment's model down.",
        ("candidate",),
        _retirements,
    ),
    Metric(
        "voice_model_usage_events_dropped_total",
        "counter",
        "Usage events dropped because their store did not accept them.",
        (),
        _dropped,
    ),
)
"""Every counter and gauge of model calls."""
HISTOGRAMS = (
    Histogram(
        "gen_ai_client_operation_duration_seconds",
        "Time from the request of an attempt to its end.",
        OPERATION,
        lambda runtime: runtime.statistics.durations,
    ),
    Histogram(
        "gen_ai_client_operation_time_to_first_chunk_seconds",
        "Time from the request of an attempt to its first content.",
        OPERATION,
        lambda runtime: runtime.statistics.first_content,
    ),
    Histogram(
        "gen_ai_client_operation_time_per_output_chunk_seconds",
        "Mean time of an output token after the first. Each attempt with several output tokens adds one value.",
        OPERATION,
        lambda runtime: runtime.statistics.per_output,
    ),
)
"""Every histogram of model calls."""
