from __future__ import annotations

from typing import Any

import pytest
from voice_policies import Duration, InvalidInputError, Models, Ratio, TokenBudget

from components.operation import hard, operation, soft, stage
from stack.model.model_routes import models_of
from tests.platforms import ENVIRONMENTS, platform
from tests.small import datastore, graph_of, models, service
from tests.toy import SITE

BUDGET = TokenBudget(key="tenant", tokens=200_000, window=Duration("1m"), store="counters.reserve")
SHARE = Ratio("25%")


def made(**options: Any) -> Models:
    call = stage(hard("llm.generate", "idempotent"), soft("counters.reserve", "the local share"))
    adapter = service("adapter", operation("generate", call, p95="900ms", deadline="3s"))
    store = datastore("counters", operation("reserve", p95="3ms", deadline="20ms"))
    graph = graph_of(adapter, models(**options), store)
    found = models_of(graph.edges_from(adapter), SITE, SHARE)
    assert found is not None
    return found


def test_each_deployment_has_the_proxy_the_key_and_the_quota_of_its_provider() -> None:
    found = made(quota_store="counters.reserve", usage="counters.reserve")
    assert found.usage == "counters.reserve"
    address = found.providers["two"].address
    assert (address.host, address.port) == ("api.two.example", 443)
    assert address.via is not None
    assert address.via.startswith("egress-proxy-b.egress.svc.cluster.local:2")
    one = found.deployments["one-fast"]
    assert one.credential == "/etc/voice/secrets/adapter-llm/one"
    (quota,) = (found.budgets[name] for name in one.budgets)
    assert (quota.key, quota.tokens, str(quota.window), quota.local_share) == ("deployment", 20_000_000, "1m", SHARE)


def test_a_tenants_budget_is_shared_by_the_replicas_while_its_store_is_down() -> None:
    found = made(budgets={"tenant-minute": BUDGET}, route_policy={"budgets": ("tenant-minute",)})
    assert found.budgets["tenant-minute"].local_share == SHARE
    assert found.routes["llm.generate"].budgets == ("tenant-minute",)


def test_a_service_without_model_calls_has_no_models() -> None:
    alone = service("alone", operation("run", p95="1s", deadline="2s"))
    assert models_of(graph_of(alone).edges_from(alone), SITE, SHARE) is None


def test_a_budget_smaller_than_one_call_is_refused_with_its_source_line() -> None:
    small = {"tenant-minute": BUDGET.model_copy(update={"tokens": 149})}
    with pytest.raises(InvalidInputError, match="budget tenant-minute never admits more than 149") as caught:
        made(budgets=small, route_policy={"budgets": ("tenant-minute",)})
    assert "test_model_routes.py:" in str(caught.value)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_only_model_adapter_and_voice_engine_have_routes_and_keys(environment: str) -> None:
    found = {each.name: each.bundle.models for each in platform(environment).microservices if each.bundle.models}
    assert {name: sorted(each.routes) for name, each in found.items()} == {
        "model-adapter": ["llm.embed", "llm.generate", "llm.rerank", "llm.rewrite"],
        "voice-engine": ["speech.recognize", "speech.synthesize"],
    }
    keys = [
        secret
        for secret in platform(environment).secrets
        if secret.name in {"model-adapter-llm", "voice-engine-speech"}
    ]
    assert {secret.name: secret.keys for secret in keys} == {
        "model-adapter-llm": ("openai", "mistral"),
        "voice-engine-speech": ("azure", "google"),
    }
