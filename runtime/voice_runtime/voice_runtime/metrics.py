"""The exported metrics: one table that every exporter reads at scrape time.

Label values are names in the bundle, digests of bundles, or constants of this package, so their number is bounded.
Breakers have the labels and label values of resilience4j (`name`, `state`, `kind`). A tenant, user or API key is never
a label value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, get_args

from voice_runtime.breaker_state import StateName
from voice_runtime.bulkhead import Bulkhead
from voice_runtime.circuit_breaker import CircuitBreaker
from voice_runtime.clock import NEVER
from voice_runtime.degradation import LEVELS
from voice_runtime.rate_limit.distributed import DistributedGate
from voice_runtime.rate_limit.gate import Gate
from voice_runtime.runtime import Runtime

__all__ = ["METRICS", "Metric", "Samples"]

Source = TypeVar("Source")
"""The object from which an exporter reads the metrics."""
Samples = Iterator[tuple[tuple[str, ...], float]]
"""Samples of a metric: the values of its labels, in the order of the labels, and a number."""


@dataclass(frozen=True, slots=True)
class Metric(Generic[Source]):
    """One metric. `read` returns its samples."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...]
    read: Callable[[Source], Samples]


def _bundle(runtime: Runtime) -> Samples:
    metadata = runtime.bundle.metadata
    yield (metadata.service, metadata.environment, runtime.digest), 1


def _mounted(runtime: Runtime) -> Samples:
    yield (runtime.mounted_digest,), 1


def _reloads(runtime: Runtime) -> Samples:
    for result, count in runtime.reloads.items():
        yield (result,), count


def _listener_errors(runtime: Runtime) -> Samples:
    yield (), runtime.events.listener_errors


def _events_dropped(runtime: Runtime) -> Samples:
    yield (), runtime.events.dropped


def _spans(runtime: Runtime) -> Samples:
    for kind in ("exported", "failed", "dropped"):
        yield (kind,), getattr(runtime.spans, kind)


def _refused_requests(runtime: Runtime) -> Samples:
    for reason, count in runtime.refused_requests.items():
        yield (reason,), count


def _call_results(runtime: Runtime) -> Samples:
    for name, call in runtime.assembled.outbound.items():
        for kind in ("successful", "failed", "ignored", "cancelled"):
            yield (name, kind), getattr(call.statistics, kind)


def _call_timeouts(runtime: Runtime) -> Samples:
    for name, call in runtime.assembled.outbound.items():
        yield (name, "attempt"), call.statistics.timeouts
        yield (name, "deadline"), call.statistics.deadlines_exceeded


def _call_exhausted(runtime: Runtime) -> Samples:
    for name, call in runtime.assembled.outbound.items():
        for reason, count in call.statistics.exhausted.items():
            yield (name, reason), count


def _call_rejections(runtime: Runtime) -> Samples:
    for name, call in runtime.assembled.outbound.items():
        for policy, count in call.statistics.rejected.items():
            yield (name, policy), count


def _missing_fallbacks(runtime: Runtime) -> Samples:
    for name, call in runtime.assembled.outbound.items():
        if call.soft:
            yield (name,), call.fallback is None


def _of_calls(field: str) -> Callable[[Runtime], Samples]:
    def read(runtime: Runtime) -> Samples:
        for name, call in runtime.assembled.outbound.items():
            yield (name,), getattr(call.statistics, field)

    return read


def _first_messages(field: str) -> Callable[[Runtime], Samples]:
    def read(runtime: Runtime) -> Samples:
        for name, call in runtime.assembled.outbound.items():
            if call.first_message < NEVER:
                yield (name,), getattr(call.statistics, field)

    return read


def _breakers(runtime: Runtime) -> Iterator[tuple[str, CircuitBreaker]]:
    for name, call in runtime.assembled.outbound.items():
        if call.breaker is not None:
            yield name, call.breaker


def _breaker_states(runtime: Runtime) -> Samples:
    for name, breaker in _breakers(runtime):
        current = breaker.current()
        for state in get_args(StateName):
            yield (name, state), state == current


def _breaker_calls(runtime: Runtime) -> Samples:
    for name, breaker in _breakers(runtime):
        for kind in ("successful", "failed", "ignored"):
            yield (name, kind), getattr(breaker, kind)


def _of_breakers(field: str) -> Callable[[Runtime], Samples]:
    def read(runtime: Runtime) -> Samples:
        for name, breaker in _breakers(runtime):
            yield (name,), getattr(breaker, field)

    return read


def _targets(runtime: Runtime) -> Samples:
    counts = Counter((name, breaker.current()) for name, breaker in runtime.targets.breakers())
    yield from counts.items()


def _bulkheads(runtime: Runtime) -> Iterator[tuple[tuple[str, str], Bulkhead]]:
    for name, call in runtime.assembled.outbound.items():
        if call.bulkhead is not None:
            yield (name, "outbound"), call.bulkhead
    for name, operation in runtime.assembled.inbound.items():
        if operation.bulkhead is not None:
            yield (name, "inbound"), operation.bulkhead


def _of_bulkheads(field: str) -> Callable[[Runtime], Samples]:
    def read(runtime: Runtime) -> Samples:
        for labels, bulkhead in _bulkheads(runtime):
            yield labels, getattr(bulkhead, field)

    return read


def _gates(runtime: Runtime) -> Iterator[tuple[tuple[str, str, str], Gate | DistributedGate]]:
    for name, operation in runtime.assembled.inbound.items():
        for number, gate in enumerate(operation.gates):
            yield (name, str(number), gate.policy.key), gate


def _rate_limit_requests(runtime: Runtime) -> Samples:
    for labels, gate in _gates(runtime):
        yield (*labels, "admitted"), gate.admitted
        yield (*labels, "rejected"), gate.rejected


def _rate_limit_keys(runtime: Runtime) -> Samples:
    for labels, gate in _gates(runtime):
        yield labels, gate.keys()


def _rate_limit_without_store(runtime: Runtime) -> Samples:
    for labels, gate in _gates(runtime):
        if isinstance(gate, DistributedGate):
            yield labels, gate.without_store


def _operation_results(runtime: Runtime) -> Samples:
    for name, operation in runtime.assembled.inbound.items():
        for kind in ("successful", "failed", "cancelled"):
            yield (name, kind), getattr(operation.statistics, kind)


def _operation_rejections(runtime: Runtime) -> Samples:
    for name, operation in runtime.assembled.inbound.items():
        for policy, count in operation.statistics.rejected.items():
            yield (name, policy), count


def _of_operations(field: str) -> Callable[[Runtime], Samples]:
    def read(runtime: Runtime) -> Samples:
        for name, operation in runtime.assembled.inbound.items():
            yield (name,), getattr(operation.statistics, field)

    return read


def _level(runtime: Runtime) -> Samples:
    if runtime.degradation is not None:
        current = runtime.degradation.level
        for level in LEVELS:
            yield (level,), level == current


def _level_transitions(runtime: Runtime) -> Samples:
    if runtime.degradation is not None:
        yield (), runtime.degradation.transitions


_NAME = ("name",)
_BULKHEAD = ("name", "direction")
_LIMIT = ("operation", "limit", "key")
_OPERATION = ("operation",)

METRICS: tuple[Metric[Runtime], ...] = (
    Metric("voice_policy_info", "gauge", "The bundle in force.", ("service", "environment", "digest"), _bundle),
    Metric("voice_policy_mounted_info", "gauge", "The bundle in the mounted file.", ("digest",), _mounted),
    Metric("voice_policy_reloads_total", "counter", "Changed bundles: applied or refused.", ("result",), _reloads),
    Metric("voice_listener_errors_total", "counter", "Exceptions raised by event listeners.", (), _listener_errors),
    Metric("voice_events_dropped_total", "counter", "Events dropped because listeners were slow.", (), _events_dropped),
    Metric("voice_trace_spans_total", "counter", "Sampled spans: exported, failed or dropped.", ("kind",), _spans),
    Metric("voice_call_attempts_total", "counter", "Attempts that ended.", ("name", "kind"), _call_results),
    Metric(
        "voice_call_seconds_total",
        "counter",
        "Summed duration of successful and failed attempts.",
        _NAME,
        _of_calls("seconds"),
    ),
    Metric("voice_call_retries_total", "counter", "Attempts after the first.", _NAME, _of_calls("retries")),
    Metric(
        "voice_call_exhausted_total",
        "counter",
        "Transient failures after which no further attempt was allowed.",
        ("name", "reason"),
        _call_exhausted,
    ),
    Metric(
        "voice_call_rejected_total",
        "counter",
        "Attempts that were refused before anything was sent.",
        ("name", "policy"),
        _call_rejections,
    ),
    Metric("voice_call_timeouts_total", "counter", "Attempts that ran out of time.", ("name", "kind"), _call_timeouts),
    Metric(
        "voice_call_first_messages_total",
        "counter",
        "First messages of streams, for calls with an objective for the first message.",
        _NAME,
        _first_messages("first_messages"),
    ),
    Metric(
        "voice_call_late_first_messages_total",
        "counter",
        "First messages of streams that arrived after the objective of the call.",
        _NAME,
        _first_messages("late_first_messages"),
    ),
    Metric(
        "voice_call_fallbacks_total",
        "counter",
        "Failed soft calls that the fallback answered.",
        _NAME,
        _of_calls("fallbacks"),
    ),
    Metric(
        "voice_call_fallback_missing",
        "gauge",
        "1 for a soft call without a fallback, 0 for a soft call with a fallback.",
        _NAME,
        _missing_fallbacks,
    ),
    Metric(
        "voice_circuitbreaker_state",
        "gauge",
        "1 for the current state of the breaker, 0 for the other states.",
        ("name", "state"),
        _breaker_states,
    ),
    Metric(
        "voice_circuitbreaker_calls_total", "counter", "Admitted calls that ended.", ("name", "kind"), _breaker_calls
    ),
    Metric(
        "voice_circuitbreaker_slow_calls_total",
        "counter",
        "Calls that took slow_call_duration or longer while the breaker was closed.",
        _NAME,
        _of_breakers("slow"),
    ),
    Metric(
        "voice_circuitbreaker_not_permitted_calls_total",
        "counter",
        "Calls that a breaker refused.",
        _NAME,
        _of_breakers("not_permitted"),
    ),
    Metric(
        "voice_circuitbreaker_targets",
        "gauge",
        "Breakers for single addresses, shards or providers of a call, by state.",
        ("name", "state"),
        _targets,
    ),
    Metric(
        "voice_bulkhead_max_concurrent_calls",
        "gauge",
        "Number of calls that the bulkhead allows in flight.",
        _BULKHEAD,
        _of_bulkheads("max_concurrent"),
    ),
    Metric("voice_bulkhead_in_flight_calls", "gauge", "Calls in flight.", _BULKHEAD, _of_bulkheads("in_flight")),
    Metric("voice_bulkhead_waiting_calls", "gauge", "Calls in the queue.", _BULKHEAD, _of_bulkheads("waiting")),
    Metric(
        "voice_bulkhead_rejected_calls_total",
        "counter",
        "Calls that a bulkhead refused.",
        _BULKHEAD,
        _of_bulkheads("rejected"),
    ),
    Metric(
        "voice_rate_limit_requests_total",
        "counter",
        "Requests that a rate limit admitted or rejected.",
        (*_LIMIT, "kind"),
        _rate_limit_requests,
    ),
    Metric(
        "voice_rate_limit_without_store_total",
        "counter",
        "Requests that a distributed rate limit decided without its store.",
        _LIMIT,
        _rate_limit_without_store,
    ),
    Metric("voice_rate_limit_keys", "gauge", "Keys that a rate limit holds in memory.", _LIMIT, _rate_limit_keys),
    Metric("voice_operation_requests_total", "counter", "Ended requests.", ("operation", "kind"), _operation_results),
    Metric(
        "voice_operation_rejected_requests_total",
        "counter",
        "Requests that a policy refused before they began.",
        ("operation", "policy"),
        _operation_rejections,
    ),
    Metric(
        "voice_requests_refused_total",
        "counter",
        "Requests that a transport refused before any policy of an operation applied.",
        ("reason",),
        _refused_requests,
    ),
    Metric(
        "voice_operation_slow_requests_total",
        "counter",
        "Requests that took longer than the operation's objective for its P95.",
        _OPERATION,
        _of_operations("slow"),
    ),
    Metric(
        "voice_operation_seconds_total",
        "counter",
        "Summed duration of successful and failed requests.",
        _OPERATION,
        _of_operations("seconds"),
    ),
    Metric(
        "voice_operation_in_flight_requests", "gauge", "Requests in flight.", _OPERATION, _of_operations("in_flight")
    ),
    Metric(
        "voice_operation_deadlines_exceeded_total",
        "counter",
        "Requests that ran out of time.",
        _OPERATION,
        _of_operations("deadlines_exceeded"),
    ),
    Metric("voice_degradation_level", "gauge", "1 for the current level, 0 for the other levels.", ("level",), _level),
    Metric(
        "voice_degradation_transitions_total",
        "counter",
        "Automatic changes of the degradation level.",
        (),
        _level_transitions,
    ),
)
"""Every metric of a runtime."""
