"""D04: the monthly cost of the services' resource requests against the tenant's budget."""

from __future__ import annotations

from collections.abc import Iterator

from stack.audit.finding import Breach, Rule
from stack.model.platform import Platform
from stack.model.site import ComputeCost

HOURS = 730
"""Hours of a mean month: 8,760 ÷ 12."""
EXPECTED = 0.15
"""Share of the range between minimum and maximum at which a service runs on average (the platform's target)."""


def within_budget(platform: Platform) -> Iterator[Breach | None]:
    """Compare the cost at the expected scale with the budget. The finding also reports the cost at maximum."""
    target = platform.site.compute_cost
    if target is None:
        return
    expected, most = (_monthly(platform, target, share) for share in (EXPECTED, 1.0))
    text = (
        f"{expected:,.0f} USD a month at minimum + {EXPECTED:.0%} of the range, {most:,.0f} USD at the maximum;"
        f" the budget is {target.monthly_budget:,} USD, at prices of {target.source}"
    )
    field = "replicas or sizing of the services, or site.compute_cost"
    over = expected > target.monthly_budget
    yield Breach("services → budget", text, field, severity="error" if over else "info")


def _monthly(platform: Platform, target: ComputeCost, share: float) -> float:
    environment, total = platform.environment, 0.0
    for service in platform.graph.services:
        replicas, sizing = environment.replicas(service), environment.sizing(service)
        pods = replicas.min + share * (replicas.max - replicas.min)
        each = sizing.cpu_request.cores * target.cpu_hour + sizing.memory_request.gibibytes * target.memory_hour
        total += pods * each * HOURS
    return total


RULES = (
    Rule(
        id="D04",
        title="the expected scale of the services fits the budget",
        severity="error",
        rationale="a platform that exceeds its budget forces hurried cuts in capacity",
        source="the platform's target",
        violates="requests of 2,001 USD a month at the expected scale, with a budget of 2,000",
        holds="requests of 2,000 USD a month with the same budget",
        check=within_budget,
    ),
)
