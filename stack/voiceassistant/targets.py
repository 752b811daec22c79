"""The platform's targets. Each target has series, an objective, alerts and panels.

If no series can measure a target, its field `instead` says how the target is checked.

`docs/targets.md` lists the targets, and the overview dashboard shows their panels. Tests check that each named series,
alert and panel exists.
"""

from __future__ import annotations

from components.observability.dashboards import Panel, metrics
from stack.model.flow import Flow
from stack.model.target import Target
from stack.voiceassistant import alerts
from stack.voiceassistant.burn_rates import Indicator
from stack.voiceassistant.catalog.flows import FLOWS
from stack.voiceassistant.objectives import FAILURE_BUDGET, RATE_LIMITED_BUDGET, TIMEOUT_BUDGET

__all__ = ["TARGETS"]

LATENCY, FIRST_BYTE, STATUS = "apisix_http_latency", "apisix_http_first_byte_latency", "apisix_http_status"
WHOLE_ANSWERS = {"voice-dialogue", "chat", "tool-call"}
"""Flows whose latency is the time of a whole answer to a question."""


def _share(title: str, code: str, limit: float) -> Panel:
    bad, all_answers = (f"sum(rate({STATUS}{chosen}[$__rate_interval]))" for chosen in (f"{{code=~'{code}'}}", ""))
    description = f"Share of all answers of the gateway. Red from {limit:.1%}."
    return metrics(
        title, description, {"now": f"{bad} / {all_answers}"}, "percentunit", shows="gauge", red_from=limit, width=6
    )


def _p95(flows: list[Flow], histogram: str, title: str, limit: float) -> Panel:
    routes = "|".join(dict.fromkeys(flow.route for flow in flows))
    kind = f"type='upstream',route=~'{routes}'" if histogram == LATENCY else f"route=~'{routes}'"
    p95 = f"histogram_quantile(0.95, sum by (le, route) (rate({histogram}_bucket{{{kind}}}[$__rate_interval])))"
    description = f"P95 at the gateway, in milliseconds. Red from {limit:g}."
    return metrics(title, description, {"{{route}}": p95}, "ms", shows="gauge", red_from=limit)


def _remaining_budget(title: str, indicator: Indicator, matcher: str = "") -> Panel:
    least = f"min by ({indicator.labels}) ({indicator.remaining}{matcher})"
    description = "Share of the error budget of 30 days that is left. Below 0 the target is missed."
    legend = " ".join(f"{{{{{label}}}}}" for label in indicator.labels.split(", "))
    return metrics(title, description, {legend: least}, "percentunit", shows="gauge", red_below=0.0)


def _indicator_target(indicator: Indicator, title: str, target: str, *panels: Panel) -> Target:
    """A target that an indicator measures, with the alerts whose expressions contain the indicator's budget."""
    return Target(
        title=title,
        target=target,
        series=(indicator.ratio("5m"), indicator.remaining),
        objective=indicator.budget,
        alerts=tuple(each.name for each in alerts.OBJECTIVE_ALERTS if f"* {indicator.budget}" in each.expression),
        panels=panels,
    )


def _by_latency() -> list[tuple[float, list[Flow]]]:
    """Latency targets in milliseconds, each with its flows. Flows in `WHOLE_ANSWERS` are left out."""
    ends = [flow for flow in FLOWS if flow.name not in WHOLE_ANSWERS]
    limits = sorted({flow.latency.seconds for flow in ends})
    return [(limit * 1000, [flow for flow in ends if flow.latency.seconds == limit]) for limit in limits]


TARGETS = (
    _indicator_target(
        alerts.ROUTE_SLOW,
        "API latency",
        "P95 at the gateway: identity, conversation.list and knowledge.upload below 200 ms, search below 500 ms",
        *(_p95(flows, LATENCY, f"P95, target {limit:g} ms", limit) for limit, flows in _by_latency()),
    ),
    _indicator_target(
        alerts.ROUTE_LATE,
        "First frame of a stream",
        "P95 at the gateway below 300 ms",
        _p95(
            [flow for flow in FLOWS if flow.name == "chat"],
            FIRST_BYTE,
            "P95 of the first frame, target 300 ms",
            300,
        ),
    ),
    _indicator_target(
        alerts.FIRST_MESSAGES,
        "First audio",
        "P95 of the time from the first text to the first audio below 300 ms",
        _remaining_budget("Budgets of first messages", alerts.FIRST_MESSAGES),
    ),
    _indicator_target(
        alerts.OPERATION_SLOW,
        "Question to whole answer, spoken",
        "P95 of a turn of the voice dialogue below 2.5 s",
        _remaining_budget("Budgets of slow turns", alerts.OPERATION_SLOW, '{operation="dialogue"}'),
    ),
    _indicator_target(
        alerts.ROUTE_SLOW,
        "Question to whole answer",
        "P95 below 2.5 s for answers of up to 150 tokens, including retrieval",
        _p95(
            [flow for flow in FLOWS if flow.name in WHOLE_ANSWERS - {"voice-dialogue"}],
            LATENCY,
            "P95 of the whole answer, target 2,500 ms",
            2500,
        ),
    ),
    _indicator_target(
        alerts.OPERATION_FAILURES,
        "Own availability of services",
        "core 99.99 %, standard 99.95 %, batch 99.9 %, while all dependencies work. "
        "The series also counts failures that dependencies cause, so the measured availability may be lower"
        " than the service's own",
        _remaining_budget("Budgets of operations", alerts.OPERATION_FAILURES),
    ),
    _indicator_target(
        alerts.SERVER_OUTAGES,
        "Own availability of servers",
        "PostgreSQL, Redis, gateway, DNS and public entrance 99.99 %, other infrastructure 99.9 %",
        _remaining_budget("Budgets of servers", alerts.SERVER_OUTAGES),
    ),
    _indicator_target(
        alerts.DEPENDENCY_FAILURES,
        "Availability of external dependencies",
        "each provider 99.5 %, other external dependencies 99.9 %",
        _remaining_budget("Budgets of external dependencies", alerts.DEPENDENCY_FAILURES),
    ),
    _indicator_target(
        alerts.FLOW_FAILURES,
        "Flow availability",
        "chat and voice 99.9 %, login and conversation.list 99.95 %, search 99.5 %",
        _remaining_budget("Budgets of flows", alerts.FLOW_FAILURES),
    ),
    _indicator_target(
        alerts.ROUTE_FAILURES,
        "Errors",
        "answers with 5xx below 1 %",
        _share("Answers with 5xx", "5..", float(FAILURE_BUDGET)),
    ),
    _indicator_target(
        alerts.ROUTE_TIMEOUTS,
        "Timeouts",
        "answers with 504 below 2 %",
        _share("Timeouts", "504", float(TIMEOUT_BUDGET)),
    ),
    _indicator_target(
        alerts.ROUTE_RATE_LIMITED,
        "Rate limits",
        "answers with 429 below 0.5 %",
        _share("Refused by a rate limit", "429", float(RATE_LIMITED_BUDGET)),
    ),
    Target(
        title="Cost of the application tier",
        target="below 2,000 USD a month at the expected scale",
        instead="Rule D04 of the audit compares the cost of the declared replicas with the budget before each"
        " deployment. The dashboard “Cost and capacity” shows the price of the available replicas.",
    ),
    Target(
        title="Loss of a region",
        target="RPO 5 min, RTO 1 h in prod",
        instead="docs/backup.md states how old each backup may be, and alerts fire on late backups.",
    ),
)
"""The order is the order of the platform's specification."""
