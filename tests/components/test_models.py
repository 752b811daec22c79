from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from voice_policies import ModelRoute, OutputLimit

from components.models import ModelDependency
from components.operation import ModelUse, operation
from tests.small import CANDIDATES, PROVIDERS, deployment, models, provider

ONE, TWO = CANDIDATES


def faults(dependency: ModelDependency) -> str:
    return "\n".join(map(str, dependency.faults))


def test_addresses_keys_and_latency_come_from_providers_and_candidates() -> None:
    llm = models(ONE, deployment("two-fast", "two", pace="5ms"))
    assert [address.host for address in llm.addresses if hasattr(address, "host")] == [
        "api.one.example",
        "api.two.example",
    ]
    assert llm.credentials == ("one", "two")
    assert str(llm.operation("generate").latency) == "995ms", "250 ms + 149 × 5 ms of the slower candidate"
    assert str(llm.operation("generate").deadline) == "3s"
    assert llm.faults == ()


@pytest.mark.parametrize(
    ("dependency", "said"),
    [
        (
            models(ONE, deployment("two-fast", "three")),
            "deployment two-fast names provider three, which is not declared",
        ),
        (models(ONE, deployment("two-fast", "one")), "provider two serves no route"),
        (models(route_policy={"budgets": ("minute",)}), "generate: budget minute is not declared"),
        (models(deployments=(ONE,)), "generate: candidate two-fast is not a declared deployment"),
        (
            ModelDependency.of(
                "llm",
                operation("generate", p95="1s", deadline="3s"),
                providers=PROVIDERS,
                purpose="answers in a test",
                availability="99.5%",
                deployments=CANDIDATES,
            ),
            "operation generate has no route",
        ),
    ],
)
def test_undeclared_names_unused_providers_and_operations_without_a_route_are_refused(
    dependency: ModelDependency, said: str
) -> None:
    assert said in faults(dependency)


def test_candidates_keep_the_order_of_the_route() -> None:
    turned: dict[str, Any] = {"candidates": ("two-fast", "one-fast"), "output_limit": OutputLimit(max_tokens=150)}
    llm = models(route_policy=turned)
    route = llm.operation("generate").route
    assert isinstance(route, ModelRoute)
    assert [each.name for each in llm.candidates(route)] == ["two-fast", "one-fast"]
    assert llm.provider(TWO) == provider("two", "egress-proxy-b")


def test_a_mean_output_above_the_maximum_is_refused() -> None:
    with pytest.raises(ValidationError, match="output_mean 200 is above output_max 150"):
        ModelUse(output_max=150, output_mean=200)
