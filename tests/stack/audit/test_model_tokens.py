from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from components.models import ModelDependency
from components.operation import ModelUse, hard, operation, stage
from stack.audit.finding import Finding
from stack.audit.ledgers.model_cost import model_costs
from stack.model.platform import Platform
from tests.small import CANDIDATES, deployment, models, service, small_platform
from tests.stack.audit.rule_findings import findings, verdict

ADAPTER = service(
    "adapter",
    operation("generate", stage(hard("llm.generate", "idempotent")), p95="900ms", deadline="3s", load="100/s"),
)
USE = ModelUse(input_p95=1_000, input_mean=800, output_max=200, output_mean=200)
ONE, TWO = CANDIDATES


def with_quotas(one: int, two: int) -> ModelDependency:
    return models(deployment("one-fast", "one", quota=one), deployment("two-fast", "two", quota=two), use=USE)


@pytest.mark.parametrize(
    ("one", "two", "severities"),
    [
        (2_999_999, 3_000_000, ["error"]),
        (3_000_000, 3_000_000, ["warning"]),
        (3_750_000, 3_750_000, []),
    ],
    ids=["above the quotas", "100 % of the quotas", "80 % of the quotas"],
)
def test_m07_finds_a_load_above_or_near_the_quotas(one: int, two: int, severities: list[str]) -> None:
    breaches = findings("M07", ADAPTER, with_quotas(one, two))
    assert [each.severity for each in breaches] == severities
    if severities == ["error"]:
        assert breaches[0].arithmetic == "the declared load needs 6,000,000 tokens a minute > 5,999,999"


@pytest.mark.parametrize(
    ("two", "paths"),
    [(5_999_999, ["llm.generate without one-fast"]), (6_000_000, [])],
    ids=["quota too small", "quota just large enough"],
)
def test_m08_finds_a_fallback_whose_quota_is_too_small(two: int, paths: list[str]) -> None:
    assert [each.path for each in findings("M08", ADAPTER, with_quotas(9_000_000, two))] == paths


@pytest.mark.parametrize(
    ("seconds", "rules"),
    [(2.0, []), (2.01, ["M08"]), (4.01, ["M07", "M08"])],
    ids=["200 streams", "201 streams", "401 streams"],
)
def test_m07_and_m08_count_streams_if_the_quota_is_in_streams(seconds: float, rules: list[str]) -> None:
    def streaming(name: str, provider: str) -> Any:
        return deployment(name, provider).model_copy(update={"tokens_per_minute": None, "streams": 200})

    speech = models(streaming("one-speech", "one"), streaming("two-speech", "two"), use=ModelUse(seconds_mean=seconds))
    errors = {
        rule: [each for each in findings(rule, ADAPTER, speech) if each.severity == "error"] for rule in ("M07", "M08")
    }
    assert [rule for rule, found in errors.items() if found] == rules


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"price": None}, ["no price: the tokens or the cost of a call cannot be computed"]),
        ({"tokenizer": None}, ["no tokenizer: the tokens or the cost of a call cannot be computed"]),
        (
            {"price": None, "tokenizer": None},
            ["no price and no tokenizer: the tokens or the cost of a call cannot be computed"],
        ),
    ],
    ids=["price and tokenizer", "no price", "no tokenizer", "neither"],
)
def test_m12_finds_a_model_without_price_or_tokenizer(changes: dict[str, Any], said: list[str]) -> None:
    breaches = findings("M12", ADAPTER, models(ONE, deployment("two-fast", "two", **changes)))
    assert [each.arithmetic for each in breaches] == said


@pytest.mark.parametrize(
    ("on", "severity"),
    [
        (date(2027, 1, 1), []),
        (date(2027, 1, 2), ["warning"]),
        (date(2027, 1, 31), ["warning"]),
        (date(2027, 2, 1), ["error"]),
    ],
    ids=["in 31 days", "in 30 days", "in 1 day", "today"],
)
def test_m12_finds_a_model_that_has_retired_or_retires_within_30_days(on: date, severity: list[str]) -> None:
    retiring = models(ONE, deployment("two-fast", "two", retires=date(2027, 2, 1)))
    assert [each.severity for each in verdict("M12", small_platform(ADAPTER, retiring), on).findings] == severity


def limited(monthly: int) -> tuple[Finding, ...]:
    small = small_platform(ADAPTER, models(use=USE))
    site = small.site.model_copy(update={"monthly_model_budget": monthly})
    tenant = replace(small.tenant, catalogue=small.tenant.catalogue.model_copy(update={"site": site}))
    return verdict("M12", Platform(tenant, small.environment)).findings


def test_m12_compares_the_cost_of_a_month_with_its_budget() -> None:
    """The mean load is 25 % of 100/s, so a month of 730 h has 65.7 million calls.

    Each call costs 800 × 0.15 + 200 × 0.60 = 240 micro-USD.
    """
    assert limited(15_768) == ()
    (one,) = limited(15_767)
    assert one.arithmetic == "at the mean load model calls cost 15,768 USD a month > the budget of 15,767 USD"


def test_a_route_costs_the_price_of_its_preferred_candidate() -> None:
    cost = model_costs(small_platform(ADAPTER, models(use=USE)))["llm.generate"]
    assert cost.calls == pytest.approx(65_700_000)
    assert cost.units == pytest.approx(800 * cost.calls)
    assert cost.output == pytest.approx(200 * cost.calls)
    assert cost.usd == pytest.approx(15_768)
