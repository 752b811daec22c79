"""D04: the monthly cost of the services' resource requests against the tenant's budget, at recent prices."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from stack.audit.finding import Breach, Rule
from stack.audit.ledgers.cost import costs
from stack.model.platform import Platform
from stack.model.pod_demand import EXPECTED
from stack.model.prices import MAX_AGE_DAYS
from stack.model.settings import path_of


def cost_within_budget(platform: Platform) -> Iterator[Breach | None]:
    """Compare the cost at the expected scale with the budget.

    The finding also reports the cost at the maximum scale and the cost of the infrastructure.
    """
    budget = platform.site.monthly_budget
    if budget is None or (found := costs(platform)) is None:
        return
    expected, most = found.application.expected, found.application.maximum
    text = (
        f"{expected:,.0f} USD a month at the expected scale (minimum + {EXPECTED:.0%} × (maximum − minimum)),"
        f" {most:,.0f} USD at the maximum, and {found.infrastructure.expected:,.0f} USD for the infrastructure;"
        f" the budget is {budget:,} USD; prices: {found.prices.source}, read on {found.prices.read_on}"
    )
    field = f"replicas or sizing of the services, site.monthly_budget, or {path_of('prices')}"
    yield Breach("services → budget", text, field, severity="error" if expected > budget else "info")


def recent_prices(platform: Platform, on: date) -> Iterator[Breach | None]:
    """Check that the price table is recent."""
    if (prices := platform.prices) is None:
        return
    text = f"the prices were read on {prices.read_on}: {prices.age(on)} days old > {MAX_AGE_DAYS} days"
    found = Breach("prices", text, f"site.prices, or {path_of('prices')}", severity="warning")
    yield found if prices.age(on) > MAX_AGE_DAYS else None


RULES = (
    Rule(
        id="D04",
        title="the expected scale of the services fits the budget, at prices of the last 180 days",
        severity="error",
        rationale="a platform that exceeds its budget forces hurried cuts in capacity",
        source="the platform's target",
        violates="requests of 2,001 USD a month at the expected scale, with a budget of 2,000",
        holds="requests of 2,000 USD a month with the same budget",
        check=cost_within_budget,
        check_on=recent_prices,
    ),
)
