"""Objectives: burn rates and the remaining share of each error budget."""

from __future__ import annotations

from collections.abc import Iterator

from components.observability.dashboards import Dashboard, Panel, Row, metrics
from stack.voiceassistant import alerts
from stack.voiceassistant.burn_rates import BUDGET_DAYS, Indicator

INDICATORS = tuple(each for each in vars(alerts).values() if isinstance(each, Indicator))
"""Every indicator of the alerts. Each has a row."""


def objectives() -> Dashboard:
    """The dashboard of all objectives."""
    rows = tuple(Row(title=_title(each), panels=tuple(_panels(each))) for each in INDICATORS)
    return Dashboard(uid="objectives", title="Objectives", rows=rows)


def _title(indicator: Indicator) -> str:
    return f"{indicator.subject}: {indicator.name.replace('_', ' ')}".capitalize()


def _panels(indicator: Indicator) -> Iterator[Panel]:
    legend = " ".join(f"{{{{{label}}}}}" for label in indicator.labels.split(", "))
    matched = f"on ({indicator.labels}) group_left ({indicator.owner})"
    yield metrics(
        "Remaining budget",
        f"Remaining share of the error budget of {BUDGET_DAYS} days. Below 0 the objective is missed.",
        {legend: indicator.remaining},
        "percentunit",
        red_below=0.0,
    )
    for window, limit in (("1h", 14.4), ("6h", 6.0)):
        yield metrics(
            f"Burn rate over {window}",
            f"Speed at which the budget is spent. 1 spends it in {BUDGET_DAYS} days."
            f" Above {limit:g} an alert may fire.",
            {legend: f"{indicator.ratio(window)} / {matched} {indicator.budget}"},
            red_from=limit,
            width=6,
        )
