"""One callee: all calls to it, and the policies of these calls."""

from __future__ import annotations

from components.observability.dashboards import Dashboard, Row, Variable, metrics, rate, ratio
from components.observability.runtime_metrics import FINISHED
from stack.model.call_graph import CallGraph

CALLS = 'name=~"$dependency[.].+"'
"""Selects the calls to the callee: their names are `callee.operation`."""


_ATTEMPTS = rate("voice_call_attempts_total", "job, name", CALLS)
_FAILED = rate("voice_call_attempts_total", "job, name", f'{CALLS}, kind="failed"')
_FINISHED = rate("voice_call_attempts_total", "job, name", f"{CALLS}, {FINISHED}")
_LEGEND = "{{job}} → {{name}}"
_CALLS = Row(
    title="Calls",
    panels=(
        metrics("Attempts", "Attempts that ended, by caller.", {_LEGEND: _ATTEMPTS}, "reqps"),
        metrics(
            "Failures",
            "Share of attempts that failed, by caller.",
            {_LEGEND: ratio(_FAILED, _ATTEMPTS)},
            "percentunit",
        ),
        metrics(
            "Time",
            "Mean time of a successful or failed attempt, by caller.",
            {_LEGEND: ratio(rate("voice_call_seconds_total", "job, name", CALLS), _FINISHED)},
            "s",
        ),
        metrics(
            "Answer to probes",
            "1 if the callee answers its probe or its scrape. A callee behind an egress proxy has neither.",
            {
                "probe {{instance}}": 'probe_success{job="$dependency"}',
                "scrape {{instance}}": 'up{job="$dependency"}',
            },
            red_below=1,
        ),
    ),
)
_PROTECTION = Row(
    title="Protection",
    panels=(
        metrics(
            "Circuit breakers",
            "Pods whose breaker is not closed, by state.",
            {
                f"{_LEGEND}: {{{{state}}}}": "sum by (job, name, state)"
                f' (voice_circuitbreaker_state{{{CALLS}, state!="closed"}}) > 0'
            },
        ),
        metrics(
            "Fallbacks",
            "Calls whose fallback answered.",
            {_LEGEND: rate("voice_call_fallbacks_total", "job, name", CALLS)},
            "reqps",
        ),
        metrics(
            "Retries",
            "Retries, and failures after which no retry was allowed, by reason.",
            {
                _LEGEND: rate("voice_call_retries_total", "job, name", CALLS),
                f"{_LEGEND}: {{{{reason}}}}": rate("voice_call_exhausted_total", "job, name, reason", CALLS),
            },
            "reqps",
        ),
        metrics(
            "Refused calls",
            "Attempts that a policy refused before anything was sent.",
            {f"{_LEGEND}: {{{{policy}}}}": rate("voice_call_rejected_total", "job, name, policy", CALLS)},
            "reqps",
        ),
    ),
)


def dependency(graph: CallGraph) -> Dashboard:
    """The dashboard of a chosen callee."""
    names = tuple(node.name for node in graph.nodes.values() if graph.edges_to(node))
    return Dashboard(
        uid="dependency",
        title="Dependency",
        variables=(Variable(name="dependency", label="Dependency", values=names),),
        rows=(_CALLS, _PROTECTION),
    )
