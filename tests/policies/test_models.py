from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from voice_policies import (
    Address,
    Cooldown,
    Duration,
    InvalidInputError,
    ModelFallback,
    ModelPrice,
    ModelRoute,
    Models,
    OutboundCall,
    Policy,
    PolicyBundle,
    PromptPrivacy,
    ResponseCache,
    StreamLatency,
    StreamTimeout,
    Timeout,
    TokenBudget,
    faults_of,
)

from tests.bundles import bundle, call

PRICE = {"input": 0.15, "output": 0.6, "as_of": "2026-11-01", "source": "assumption"}
MODEL = {
    "name": "fast-1",
    "capabilities": ["text", "streaming"],
    "context_window": 128_000,
    "tokenizer": "o200k",
    "price": PRICE,
}


def deployment(provider: str) -> dict[str, Any]:
    return {
        "provider": provider,
        "model": "fast",
        "credential": f"/etc/voice/secrets/model-adapter-llm/{provider}",
        "latency": {"first_token": "250ms", "per_token": "4.3ms"},
        "budgets": [f"{provider}-minute"],
    }


def provider(name: str) -> dict[str, Any]:
    return {"address": {"host": f"api.{name}.example", "port": 443, "via": "egress-proxy:20001"}}


def budget(key: str, tokens: int = 20_000_000) -> dict[str, Any]:
    return {"key": key, "tokens": tokens, "window": "1m", "store": "events.reserve"}


ROUTE = {
    "candidates": ["a-fast", "b-fast"],
    "capabilities": ["text"],
    "output_limit": {"max_tokens": 150},
    "budgets": ["tenant-minute"],
}


EMBED = {"candidates": ["a-fast", "b-fast"], "capabilities": ["embeddings"], "hedge": {"delay": "100ms"}}


def models(**overrides: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "providers": {"a": provider("a"), "b": provider("b")},
        "models": {"fast": MODEL},
        "deployments": {"a-fast": deployment("a"), "b-fast": deployment("b")},
        "routes": {"llm.generate": ROUTE},
        "budgets": {
            "a-minute": budget("deployment"),
            "b-minute": budget("deployment"),
            "tenant-minute": budget("tenant", 200_000),
        },
        "usage": "events.append",
    }
    return found | overrides


def read(document: dict[str, Any]) -> Models:
    return Models.model_validate_json(json.dumps(document))


def model_call(**overrides: Any) -> OutboundCall:
    three = Duration("3s")
    return call(
        "llm.generate",
        **{
            "protocol": "https",
            "addresses": (),
            "route": "llm.generate",
            "timeout": Timeout(attempt=three, overall=three),
        }
        | overrides,
    )


def adapter(*calls: OutboundCall, **overrides: Any) -> PolicyBundle:
    stores = [
        call(f"events.{name}", protocol="redis", necessity="soft", fallback="x") for name in ("reserve", "append")
    ]
    return bundle(*stores, *(calls or (model_call(),)), **{"models": read(models())} | overrides)


def refused(kind: type[Policy], values: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate_json(json.dumps(values))
    return str(InvalidInputError("policy", faults_of(caught.value, kind)))


def test_the_defaults_of_a_route_fit_an_interactive_answer() -> None:
    route = read(models()).routes["llm.generate"]
    assert [str(each) for _, each in route.timeout] == ["250ms", "700ms", "1s", "3s"]
    assert (route.fallback.max_attempts, route.fallback.distinct, str(route.fallback.backoff)) == (2, True, "50ms")
    assert [str(each) for _, each in Cooldown()] == ["5s", "1m", "15m"]
    assert str(route.timeout.total - route.max_waiting) == "1550ms"
    assert (route.latency_class, route.cache, route.privacy) == ("interactive", None, PromptPrivacy(capture=False))


def test_the_reasoning_timeout_is_longer_before_the_first_token() -> None:
    timeout = StreamTimeout.reasoning()
    assert (str(timeout.first_token), str(timeout.idle)) == ("2m", "1m")


def test_the_defaults_of_a_budget_are_a_local_share_and_an_expiry_margin() -> None:
    budget = read(models()).budgets["tenant-minute"]
    assert (budget.when_store_unavailable, str(budget.expiry_margin)) == ("local_share", "30s")


def test_a_cache_separates_tenants_users_models_and_prompt_versions() -> None:
    cache = ResponseCache(max_age=Duration("1h"), store="redis.access")
    assert cache.scope == ("tenant", "user", "model", "prompt_version")


def test_a_price_per_million_units_is_micro_usd_per_unit() -> None:
    price = ModelPrice.model_validate_json(json.dumps(PRICE))
    assert price.micro_usd(1_000, 100) == 210
    assert price.micro_usd(0, 0) == 0


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_input_tokens_never_cost_less(given_tokens: int, written: int, more: int) -> None:
    price = ModelPrice.model_validate_json(json.dumps(PRICE))
    assert price.micro_usd(given_tokens + more, written) >= price.micro_usd(given_tokens, written)


def test_the_latency_of_an_answer_is_the_sum_over_its_tokens() -> None:
    latency = StreamLatency(first_token=Duration("250ms"), per_token=Duration("4.3ms"))
    assert str(latency.whole(150)) == "890700us"
    assert latency.whole(0) == latency.whole(1) == latency.first_token


def test_the_candidates_of_a_route_keep_their_order() -> None:
    found = read(models())
    assert [each.provider for each in found.candidates("llm.generate")] == ["a", "b"]


def test_a_bundle_with_models_is_read_back_unchanged() -> None:
    sent = adapter()
    assert PolicyBundle.from_json(json.dumps(sent.to_document()), "policy.json") == sent


def test_the_addresses_of_a_model_call_are_the_addresses_of_its_providers() -> None:
    found = adapter()
    hosts = [address.host for each in found.outbound for address in found.addresses_of(each)]
    assert hosts == ["events", "events", "api.a.example", "api.b.example"]


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (StreamTimeout, {"total": "500ms"}, "total 500ms is below first_token 700ms"),
        (StreamTimeout, {"idle": "0s"}, "must be above 0s"),
        (Cooldown, {"max": "1s"}, "max 1s is below default 5s"),
        (ModelFallback, {"max_attempts": 0}, "greater than or equal to 1"),
        (ModelRoute, {**ROUTE, "candidates": ["a", "a"]}, "candidates contains a twice"),
        (ModelRoute, {**ROUTE, "candidates": ["a"]}, "fallback.max_attempts 2 needs 2 candidates, found 1"),
        (ModelRoute, {**ROUTE, "timeout": {"total": "1449ms"}}, "is shorter than 2 attempts of timeout.first_token"),
        (ModelRoute, {**ROUTE, "capabilities": ["telepathy"]}, "'text', 'streaming'"),
        (
            ModelRoute,
            {**ROUTE, "hedge": {"delay": "100ms"}},
            "hedge is only for embeddings and reranking, and the route requires text",
        ),
        (
            ModelRoute,
            {**EMBED, "hedge": {"delay": "700ms"}},
            "hedge.delay 700ms must be below timeout.first_token 700ms",
        ),
        (ModelRoute, {**EMBED, "fallback": {"max_attempts": 1}}, "hedge needs a second attempt"),
        (TokenBudget, {**budget("tenant"), "tokens": 0}, "greater than or equal to 1"),
        (TokenBudget, {**budget("user")}, "'tenant' or 'deployment'"),
        (ResponseCache, {"max_age": "1h", "store": "redis.access", "scope": []}, "expected at least 1"),
        (ModelPrice, {**PRICE, "input": -1}, "greater than or equal to 0"),
        (Models, models(providers={"a": provider("a")}), "deployment b-fast names provider b, which does not exist"),
        (Models, models(models={"slow": MODEL}), "deployment a-fast names model fast, which does not exist"),
        (Models, models(deployments={"a-fast": deployment("a")}), "names candidate b-fast, which does not exist"),
        (Models, models(routes={}), "expected at least 1"),
        (Models, models(budgets={}), "route llm.generate names budget tenant-minute, which does not exist"),
        (
            Models,
            models(routes={"llm.generate": {**ROUTE, "budgets": ["a-minute"]}}),
            "route llm.generate names budget a-minute, whose key is deployment; expected the key tenant",
        ),
        (
            Models,
            models(budgets={**models()["budgets"], "b-minute": budget("deployment", 149)}),
            "may ask for 150 output tokens, and budget b-minute never admits more than 149",
        ),
    ],
)
def test_invalid_or_contradictory_values_are_refused(kind: type[Policy], values: dict[str, Any], said: str) -> None:
    assert said in refused(kind, values)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"addresses": (Address(host="a.example", port=443),)}, "addresses and route exclude each other"),
        ({"route": None}, "addresses and route exclude each other"),
        ({"route": "llm.write"}, "names route llm.write, which does not exist"),
        (
            {"timeout": Timeout(attempt=Duration("1s"), overall=Duration("2s"))},
            "has timeout.overall 2s, but its route has timeout.total 3s",
        ),
    ],
)
def test_a_call_that_contradicts_its_route_is_refused(overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        adapter(model_call(**overrides))


def test_a_call_that_must_not_be_repeated_cannot_be_hedged() -> None:
    hedged = read(models(routes={"llm.generate": EMBED}))
    assert adapter(models=hedged).models == hedged
    with pytest.raises(ValidationError, match=r"has idempotency never, but route llm\.generate has a hedge"):
        adapter(model_call(idempotency="never"), models=hedged)


def test_a_budget_needs_a_call_to_its_store() -> None:
    with pytest.raises(ValidationError, match="budget a-minute names outbound call"):
        bundle(model_call(), models=read(models(usage=None)))
