"""One service: rate, errors, duration, resilience, calls to others, traces and logs."""

from __future__ import annotations

from collections.abc import Iterator

from components.observability.dashboards import COLUMNS, Dashboard, Panel, Row, Variable, metrics, rate, ratio
from components.observability.runtime_metrics import FINISHED
from stack.model.call_graph import CallGraph

OWN = 'job="$service"'


def service(graph: CallGraph) -> Dashboard:
    """The dashboard of a chosen service."""
    names = tuple(each.name for each in graph.services)
    return Dashboard(
        uid="service",
        title="Service",
        variables=(Variable(name="service", label="Service", values=names),),
        rows=(
            Row(title="Requests", panels=tuple(served("operation", "operation", OWN))),
            Row(title="Resilience", panels=tuple(_resilience())),
            Row(title="Calls to others", panels=tuple(_calls())),
            Row(title="Capacity", panels=tuple(_capacity())),
            Row(
                title="Traces and logs",
                panels=(
                    Panel(
                        title="Traces",
                        description="Latest traces that contain spans of the service. Each trace links to its logs.",
                        shows="traces",
                        width=COLUMNS,
                    ),
                    Panel(
                        title="Logs",
                        description="Lines that the service's pods print. Each trace id links to its trace.",
                        shows="logs",
                        width=COLUMNS,
                    ),
                ),
            ),
        ),
    )


def served(noun: str, by: str, own: str) -> Iterator[Panel]:
    """Panels for load, failures and latency of requests, by service or by operation."""
    legend, failed = f"{{{{{by}}}}}", ", ".join(filter(None, (own, 'kind="failed"')))
    requests = rate("voice_operation_requests_total", by, own)
    failures = ratio(rate("voice_operation_requests_total", by, failed), requests)
    finished = rate("voice_operation_requests_total", by, ", ".join(filter(None, (own, FINISHED))))
    seconds = ratio(rate("voice_operation_seconds_total", by, own), finished)
    slow = ratio(rate("voice_operation_slow_requests_total", by, own), finished)
    beyond = f"Share of successful and failed requests above their P95 objective, by {noun}. The target is at most 5 %."
    yield metrics("Requests", f"Requests served, by {noun}.", {legend: requests}, "reqps")
    yield metrics("Failures", f"Share of requests that failed, by {noun}.", {legend: failures}, "percentunit")
    yield metrics("Time", f"Mean time of a successful or failed request, by {noun}.", {legend: seconds}, "s")
    yield metrics("Beyond the objective", beyond, {legend: slow}, "percentunit", red_from=0.05)


def _resilience() -> Iterator[Panel]:
    refused = rate("voice_rate_limit_requests_total", "operation, key", f'{OWN}, kind="rejected"')
    yield metrics(
        "Open circuit breakers",
        "Pods with a breaker that is not closed, by call and state.",
        {"{{name}}: {{state}}": f'sum by (name, state) (voice_circuitbreaker_state{{{OWN}, state!="closed"}}) > 0'},
    )
    yield metrics(
        "Degradation",
        "Pods at each level of degradation.",
        {"{{level}}": f"sum by (level) (voice_degradation_level{{{OWN}}})"},
    )
    yield metrics("Rate limits", "Requests that a limit refused.", {"{{operation}} by {{key}}": refused}, "reqps")
    yield metrics(
        "Bulkheads",
        "Largest share of a pod's slots that are taken, by bulkhead.",
        {
            "{{name}} {{direction}}": f"max by (name, direction) (voice_bulkhead_in_flight_calls{{{OWN}}}"
            f" / voice_bulkhead_max_concurrent_calls{{{OWN}}})"
        },
        "percentunit",
        red_from=0.9,
    )


def _calls() -> Iterator[Panel]:
    spans = 'service="$service", span_kind="SPAN_KIND_SERVER"'
    latency = rate("traces_spanmetrics_latency_bucket", "le, span_name", spans)
    attempts = rate("voice_call_attempts_total", "name", OWN)
    failed = rate("voice_call_attempts_total", "name", f'{OWN}, kind="failed"')
    finished = rate("voice_call_attempts_total", "name", f"{OWN}, {FINISHED}")
    yield metrics("Calls to others", "Attempts that ended, by call.", {"{{name}}": attempts}, "reqps")
    yield metrics(
        "Failed calls", "Share of attempts that failed, by call.", {"{{name}}": ratio(failed, attempts)}, "percentunit"
    )
    yield metrics(
        "Time of an attempt",
        "Mean time of a successful or failed attempt, by call.",
        {"{{name}}": ratio(rate("voice_call_seconds_total", "name", OWN), finished)},
        "s",
    )
    yield metrics(
        "Retries, fallbacks and refusals",
        "Retries, fallbacks, refusals by a breaker or a bulkhead, and failures after which no retry was allowed.",
        {
            "{{name}}: retried": rate("voice_call_retries_total", "name", OWN),
            "{{name}}: fell back": rate("voice_call_fallbacks_total", "name", OWN),
            "{{name}}: breaker": rate("voice_circuitbreaker_not_permitted_calls_total", "name", OWN),
            "{{name}}: {{direction}} bulkhead": rate("voice_bulkhead_rejected_calls_total", "name, direction", OWN),
            "{{name}}: {{reason}}": rate("voice_call_exhausted_total", "name, reason", OWN),
        },
        "reqps",
    )
    yield metrics(
        "Slow requests",
        "P95 of the requests that this service served, by span, from sampled traces.",
        {"{{span_name}}": f"histogram_quantile(0.95, {latency})"},
        "s",
    )
    yield metrics(
        "Timeouts",
        "Attempts that reached their timeout, and calls that reached their deadline.",
        {"{{name}}: {{kind}}": rate("voice_call_timeouts_total", "name, kind", OWN)},
        "reqps",
    )


def _capacity() -> Iterator[Panel]:
    yield metrics(
        "Load of a replica",
        "Requests a second of a replica, and the most that a replica serves within its objectives.",
        {
            "load": f"job:requests_per_replica:rate5m{{{OWN}}}",
            "capacity": f"job:requests_per_replica:capacity{{{OWN}}}",
        },
        "reqps",
    )
    yield metrics(
        "Replicas",
        "Replicas that run now, and the minimum and maximum of the autoscaler.",
        {
            "now": 'kube_horizontalpodautoscaler_status_current_replicas{horizontalpodautoscaler="$service"}',
            "max": 'kube_horizontalpodautoscaler_spec_max_replicas{horizontalpodautoscaler="$service"}',
            "min": 'kube_horizontalpodautoscaler_spec_min_replicas{horizontalpodautoscaler="$service"}',
        },
    )
