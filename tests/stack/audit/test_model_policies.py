from __future__ import annotations

from typing import Any

import pytest
from voice_policies import (
    Duration,
    InvalidInputError,
    ModelFallback,
    PromptPrivacy,
    Ratio,
    ResponseCache,
    Retry,
    TokenBudget,
)

from components.models import ModelDependency
from components.node import Client, Dependency, Host, Service
from components.operation import hard, operation, soft, stage
from stack.audit.finding import Finding
from tests.small import (
    CANDIDATES,
    PROVIDERS,
    datastore,
    deployment,
    models,
    provider,
    service,
    small_platform,
)
from tests.stack.audit.rule_findings import READ, findings, of_manifests, verdict

ONE, TWO = CANDIDATES
BEHIND_ONE_PROXY = (provider("one", "egress-proxy-a"), provider("two", "egress-proxy-a"))


def adapter(**call: Any) -> Service:
    made = hard("llm.generate", **{"idempotency": "idempotent", **call})
    return service("adapter", operation("generate", stage(made), p95="900ms", deadline="3s", load="10/s"))


def found(rule: str, dependency: ModelDependency, caller: Service | None = None) -> tuple[Finding, ...]:
    return findings(rule, caller or adapter(), dependency)


@pytest.mark.parametrize(
    ("dependency", "said"),
    [
        (models(), []),
        (models(providers=BEHIND_ONE_PROXY), ["both candidates need proxy egress-proxy-a"]),
        (
            models(ONE, deployment("one-slow", "one"), providers=PROVIDERS[:1]),
            ["both candidates need the key of provider one, host api.one.example, proxy egress-proxy-a"],
        ),
        (
            models(route_policy={"fallback": ModelFallback(max_attempts=1)}),
            ["2 candidates and 1 attempt: no call moves to another candidate"],
        ),
        (models(ONE, providers=PROVIDERS[:1], route_policy={"fallback": ModelFallback(max_attempts=1)}), []),
    ],
    ids=["independent", "one proxy", "one provider", "one attempt", "one candidate"],
)
def test_m01_finds_candidates_that_fail_together(dependency: ModelDependency, said: list[str]) -> None:
    assert [each.arithmetic for each in found("M01", dependency)] == said


def test_m01_finds_attempts_that_all_go_to_one_address() -> None:
    pair = Dependency(
        name="providers",
        kind="provider",
        purpose="either suffices",
        protocol="https",
        addresses=tuple(Host(host=f"api-{n}.example.com", port=443, egress=f"egress-proxy-{n}") for n in "ab"),
        availability=Ratio("99.5%"),
        operations=(READ,),
    )
    calling = service("a", operation("run", stage(hard("providers.read", "idempotent")), p95="1s", deadline="2s"))
    (one,) = findings("M01", calling, pair)
    assert "all attempts of a request go to the same address" in one.arithmetic
    alone = pair.model_copy(update={"addresses": pair.addresses[:1]})
    assert findings("M01", calling, alone) == ()


@pytest.mark.parametrize(
    ("retries", "said"),
    [(None, ["1 + 2 attempts for each of the route's 2 attempts: 6 in total"]), (0, [])],
    ids=["default retries", "no retries"],
)
def test_m05_finds_the_retries_of_an_sdk(retries: int | None, said: list[str]) -> None:
    client = Client(library="openai-python", retries=retries)
    breaches = found("M05", models(clients=(client,)))
    assert [each.arithmetic.removeprefix("openai-python makes ") for each in breaches] == said


def test_a_retry_of_the_call_itself_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="and the route's fallback replaces retries"):
        found("M05", models(), adapter(retry=Retry(max_retries=1)))


def test_m05_finds_the_retries_of_the_mesh() -> None:
    host = "egress-proxy-a.egress.svc.cluster.local"
    route = {"kind": "VirtualService", "metadata": {"name": "out"}, "spec": {"hosts": [host], "http": [{}]}}
    assert verdict("M05", of_manifests(route, nodes=(adapter(), models()))).findings == ()
    route["spec"] = {"hosts": [host], "http": [{"retries": {"attempts": 2}}]}
    (one,) = verdict("M05", of_manifests(route, nodes=(adapter(), models()))).findings
    route["spec"] = {"hosts": [host], "http": [{"retries": {}}, {"retries": {"attempts": 2}}]}
    (both,) = verdict("M05", of_manifests(route, nodes=(adapter(), models()))).findings
    assert both.arithmetic == one.arithmetic
    assert "the mesh in front of egress-proxy-a makes 1 + 2 attempts" in one.arithmetic


def test_m06_finds_an_idempotency_key_that_the_provider_ignores() -> None:
    (one,) = found("M06", models(), adapter(idempotency="with_key"))
    assert one.severity == "warning"
    ignoring = "providers that ignore idempotency keys: one, two"
    assert one.arithmetic == f"{ignoring}; 2 attempts may cost 2 × 285 = 570 micro-USD"
    aware = tuple(each.model_copy(update={"idempotency_keys": True}) for each in PROVIDERS)
    assert found("M06", models(providers=aware), adapter(idempotency="with_key")) == ()
    assert found("M06", models()) == ()
    free = models(*(deployment(f"{name}-fast", name, price=None) for name in ("one", "two")))
    (unpriced,) = found("M06", free, adapter(idempotency="with_key"))
    assert "2 × 0 = 0 micro-USD" in unpriced.arithmetic


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"context_window": 3_149}, ["context window 3,149 < 3,150 = 3,000 tokens in + 150 out"]),
        ({"context_window": 3_150}, []),
        ({"capabilities": ("text",)}, ["the model lacks streaming"]),
        ({"capabilities": ("tools",)}, ["the model lacks streaming, text"]),
    ],
    ids=["window too small", "window just large enough", "no streaming", "no streaming and no text"],
)
def test_m09_finds_a_fallback_that_cannot_answer(changes: dict[str, Any], said: list[str]) -> None:
    breaches = found("M09", models(ONE, deployment("two-fast", "two", **changes)))
    assert [each.arithmetic for each in breaches] == said
    assert all(each.path.endswith(": two-fast") for each in breaches)


BUDGET = TokenBudget(key="tenant", tokens=200_000, window=Duration("1m"), store="counters.reserve")


def budgeted(*, evicts: bool = False, **changes: Any) -> tuple[Finding, ...]:
    reserve = operation("reserve", p95="3ms", deadline="20ms")
    store = datastore("counters", reserve).model_copy(update={"protocol": "redis", "evicts": evicts})
    made = stage(hard("llm.generate", "idempotent"), soft("counters.reserve", "the local share"))
    caller = service("adapter", operation("generate", made, p95="900ms", deadline="3s"))
    policy = {"budgets": ("tenant-minute",)}
    budgets = {"tenant-minute": BUDGET.model_copy(update=changes)}
    return findings("M10", caller, models(route_policy=policy, budgets=budgets), store)


def test_m10_finds_a_budget_whose_store_evicts() -> None:
    assert budgeted() == ()
    (one,) = budgeted(evicts=True)
    assert one.arithmetic.startswith("counters drops entries when its memory is full")


def test_m10_finds_a_budget_that_declares_nothing_for_an_outage() -> None:
    (one,) = budgeted(when_store_unavailable=None)
    assert one.arithmetic == "the budget does not declare what happens while counters.reserve is down"


def test_m10_finds_answers_without_a_limit() -> None:
    (one,) = found("M10", models(route_policy={"output_limit": None}))
    assert one.arithmetic.startswith("no max_tokens")
    assert found("M10", models()) == ()


@pytest.mark.parametrize(
    ("scope", "count"),
    [(("model",), 1), (("user", "model"), 1), (("tenant", "model"), 0)],
    ids=["model", "user and model", "tenant and model"],
)
def test_m11_finds_a_cache_that_tenants_share(scope: Any, count: int) -> None:
    cache = ResponseCache(scope=scope, max_age=Duration("1h"), store="counters.reserve")
    assert len(found("M11", models(route_policy={"cache": cache}))) == count


@pytest.mark.parametrize(("strict", "count"), [(True, 1), (False, 0)], ids=["strict", "not strict"])
def test_m11_finds_prompts_in_the_spans_of_a_strict_profile(*, strict: bool, count: int) -> None:
    capturing = models(route_policy={"privacy": PromptPrivacy(capture=True)})
    assert len(verdict("M11", small_platform(adapter(), capturing, strict=strict)).findings) == count


@pytest.mark.parametrize(
    ("path", "count"),
    [("/v1", 0), ("/openai/deployments/text-embedding-3-small", 0), ("/v1/sk-4f", 1), ("/a8Dk3jf8Kd93jfK39dkfj3", 1)],
)
def test_m11_finds_an_api_key_in_an_address(path: str, count: int) -> None:
    one = PROVIDERS[0].model_copy(update={"base_path": path})
    assert len(found("M11", models(providers=(one, PROVIDERS[1])))) == count


def test_the_rules_do_not_apply_to_a_platform_without_models() -> None:
    nothing = small_platform(service("a", operation("run", p95="1s", deadline="2s")))
    ids = [f"M{number:02}" for number in range(1, 13)]
    assert {verdict(rule, nothing).text for rule in ids} == {"does not apply"}
