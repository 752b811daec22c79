from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest

from components.node import Replicas
from stack.audit import RULES
from stack.audit.finding import Finding
from stack.model.platform import Platform
from stack.model.prices import Prices
from tests import toy
from tests.platforms import DAY
from tests.small import service, tenant_of
from tests.stack.audit.rule_findings import READ, verdict

PRICES = Prices(cpu_hour=1.0, memory_hour=1e-6, storage_month=0, source="a test", read_on=DAY)


def priced(budget: int) -> Platform:
    tenant = tenant_of(service("a", READ, replicas=Replicas(min=2, max=4)))
    site = tenant.catalogue.site.model_copy(update={"prices": PRICES, "monthly_budget": budget})
    return Platform(replace(tenant, catalogue=tenant.catalogue.model_copy(update={"site": site})), toy.ENVIRONMENT)


@pytest.mark.parametrize(("budget", "severity"), [(168, "info"), (167, "error")])
def test_d04_compares_the_expected_scale_with_the_budget(budget: int, severity: str) -> None:
    """2 + 0.15 × (4 − 2) = 2.3 replicas (`EXPECTED` in `pod_demand.py` is 0.15).

    2.3 × 0.1 CPU × 1 USD an hour × 730 h = 167.9 USD.
    """
    (found,) = verdict("D04", priced(budget)).findings
    assert found.severity == severity
    assert found.arithmetic.startswith(
        "168 USD a month at the expected scale (minimum + 15% × (maximum − minimum)), 292 USD at the maximum"
    )


def test_d04_holds_if_the_cost_equals_the_budget() -> None:
    """2 replicas × 0.1 CPU × 1 USD an hour × 730 h = 146 USD."""
    tenant = tenant_of(service("a", READ, replicas=Replicas.exactly(2)))
    prices = PRICES.model_copy(update={"memory_hour": 1e-300})
    site = tenant.catalogue.site.model_copy(update={"prices": prices, "monthly_budget": 146})
    catalogue = tenant.catalogue.model_copy(update={"site": site})
    (found,) = verdict("D04", Platform(replace(tenant, catalogue=catalogue), toy.ENVIRONMENT)).findings
    assert found.severity == "info"


def test_d04_does_not_apply_without_a_budget() -> None:
    assert verdict("D04", Platform(tenant_of(service("a", READ)), toy.ENVIRONMENT)).text == "does not apply"


def old_prices(on: date) -> tuple[Finding, ...]:
    (rule,) = (rule for rule in RULES if rule.id == "D04")
    return tuple(found for found in rule.verdict(priced(168), on).findings if found.path == "prices")


def test_d04_finds_prices_older_than_180_days() -> None:
    assert old_prices(DAY + timedelta(days=180)) == ()
    (found,) = old_prices(DAY + timedelta(days=181))
    assert found.severity == "warning"
    assert found.arithmetic == "the prices were read on 2026-11-30: 181 days old > 180 days"
    assert found.field == "site.prices, or config.voiceassistant:prices"


def test_the_price_table_of_an_environment_replaces_the_price_table_of_the_site() -> None:
    dear = PRICES.model_copy(update={"cpu_hour": 2.0, "source": "a contract"})
    settings = toy.ENVIRONMENT.settings.model_copy(update={"prices": dear})
    platform = Platform(priced(168).tenant, toy.ENVIRONMENT.model_copy(update={"settings": settings}))
    (found,) = verdict("D04", platform).findings
    assert found.arithmetic.startswith("336 USD a month")
    assert "prices: a contract" in found.arithmetic
