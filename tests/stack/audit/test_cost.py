"""D04: services that cost more than the budget."""

from __future__ import annotations

from dataclasses import replace

import pytest

from components.node import Replicas
from stack.model.platform import Platform
from stack.model.site import ComputeCost
from tests import toy
from tests.small import service, tenant_of
from tests.stack.audit.rule_findings import READ, verdict


@pytest.mark.parametrize(("budget", "severity"), [(168, "info"), (167, "error")])
def test_d04_holds_the_expected_scale_against_the_budget(budget: int, severity: str) -> None:
    """2 + 15 % of 2 = 2.3 replicas × 100m × 1 USD × 730 h = 167.9 USD; the memory costs a millionth."""
    cost = ComputeCost(monthly_budget=budget, cpu_hour=1.0, memory_hour=1e-6, source="a test")
    tenant = tenant_of(service("a", READ, replicas=Replicas(min=2, max=4)))
    site = tenant.catalogue.site.model_copy(update={"compute_cost": cost})
    priced = replace(tenant, catalogue=tenant.catalogue.model_copy(update={"site": site}))
    (found,) = verdict("D04", Platform(priced, toy.ENVIRONMENT)).findings
    assert found.severity == severity
    assert found.arithmetic.startswith("168 USD a month at minimum + 15% of the range, 292 USD at the maximum")


def test_d04_does_not_apply_without_a_budget() -> None:
    assert verdict("D04", Platform(tenant_of(service("a", READ)), toy.ENVIRONMENT)).text == "does not apply"
