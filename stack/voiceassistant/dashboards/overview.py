"""The overview: each target of the platform as a gauge, error budgets, and current faults."""

from __future__ import annotations

from components.observability.dashboards import Dashboard, Row, metrics
from stack.voiceassistant.dashboards.objectives import INDICATORS
from stack.voiceassistant.dashboards.service import served
from stack.voiceassistant.targets import TARGETS

_NOW = Row(
    title="Now",
    panels=(
        metrics(
            "Alerts",
            "Alerts that fire.",
            {"{{alertname}} {{job}}": 'sum by (alertname, job) (ALERTS{alertstate="firing"})'},
        ),
        metrics(
            "Open circuit breakers",
            "Pods with an open circuit breaker in the runtime, by call. Breakers of the mesh are not counted.",
            {"{{job}}: {{name}}": 'sum by (job, name) (voice_circuitbreaker_state{state="open"}) > 0'},
        ),
        metrics(
            "Degradation",
            "Pods that leave out features, by level.",
            {"{{job}}: {{level}}": 'sum by (job, level) (voice_degradation_level{level!="normal"}) > 0'},
        ),
        metrics(
            "Failing scrapes and probes",
            "Instances that Prometheus cannot scrape, and addresses that fail their probe.",
            {
                "{{job}}": "count by (job) (up == 0)",
                "{{job}}: probe": "count by (job) (probe_success == 0)",
            },
        ),
    ),
)


def overview() -> Dashboard:
    """The dashboard that a person opens first."""
    return Dashboard(
        uid="overview",
        title="Overview",
        rows=(
            Row(title="Targets", panels=tuple(panel for target in TARGETS for panel in target.panels)),
            Row(
                title="Error budgets",
                panels=tuple(
                    metrics(
                        f"{each.subject.capitalize()}: {each.name.replace('_', ' ')}",
                        "The smallest remaining share of any 30-day budget. Below 0, an objective is missed.",
                        {"least": f"min({each.remaining})"},
                        "percentunit",
                        shows="number",
                        red_below=0.0,
                        width=6,
                    )
                    for each in INDICATORS
                ),
            ),
            _NOW,
            Row(title="Services", panels=tuple(served("service", "job", ""))),
        ),
    )
