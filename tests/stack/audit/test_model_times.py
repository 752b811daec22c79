from __future__ import annotations

from typing import Any

import pytest
from voice_policies import Duration, StreamTimeout

from components.edge.egress_proxy import EgressProxy
from components.models import ModelDependency
from components.node import Node, Service
from components.operation import ModelUse, hard, operation, stage
from stack.audit import model_times
from stack.audit.egress import EnvoyResources
from stack.audit.finding import Finding
from stack.audit.rendered import rendered
from tests.small import CANDIDATES, PROVIDERS, deployment, gateway, models, service
from tests.stack.audit.rule_findings import findings, of_manifests, verdict

ADAPTER = service(
    "adapter", operation("generate", stage(hard("llm.generate", "idempotent")), p95="900ms", deadline="3s")
)
PLAN = ModelUse(input_p95=1_200, input_mean=800, output_max=12, output_mean=8)


def agent(**call: Any) -> Service:
    asked = hard("adapter.generate", "with_key", **call)
    return service("agent", operation("run", stage(asked), p95="2s", deadline="14s", load="10/s"))


def found(rule: str, *nodes: Node, dependency: ModelDependency | None = None) -> tuple[Finding, ...]:
    return findings(rule, *nodes, ADAPTER, dependency or models())


@pytest.mark.parametrize(
    ("pace", "said"),
    [
        ("4.3ms", []),
        ("20ms", ["first token 250ms + 149 tokens × 20ms = 3230ms > 900ms, the objective"]),
    ],
    ids=["4.3ms a token", "20ms a token"],
)
def test_m02_finds_a_candidate_that_decodes_too_slowly(pace: str, said: list[str]) -> None:
    slow = models(CANDIDATES[0], deployment("two-fast", "two", pace=pace))
    breaches = found("M02", agent(), dependency=slow)
    assert [each.arithmetic for each in breaches] == said
    for each in breaches:
        assert each.path == "agent.run → adapter.generate → llm.generate: two-fast"
        assert each.proposal == "at most 33 tokens, or candidates with 229 tokens a second"


@pytest.mark.parametrize(
    ("objective", "tokens", "proposal"),
    [
        ("249ms", 1, ""),
        ("249ms", 150, ""),
        ("250ms", 150, ""),
        ("260ms", 4, "at most 3 tokens, or candidates with 300 tokens a second"),
    ],
)
def test_m02_proposes_fewer_tokens_only_if_time_is_left_after_the_first_token(
    objective: str, tokens: int, proposal: str
) -> None:
    use = ModelUse(input_p95=100, input_mean=80, output_max=tokens, output_mean=1)
    (one, _) = found("M02", agent(latency=Duration(objective), model_use=use))
    assert one.arithmetic.startswith(f"first token 250ms + {tokens - 1} tokens × ")
    assert one.proposal == proposal


def test_m03_adds_no_decoding_time_to_an_answer_of_one_token() -> None:
    single = ModelUse(input_p95=100, input_mean=80, output_max=1, output_mean=1)
    (one,) = found("M03", agent(timeout=Duration("1449ms"), model_use=single))
    assert "+ 0 tokens × 4300us = 1450ms > 1449ms" in one.arithmetic


def test_m02_measures_each_kind_of_request_by_its_own_objective() -> None:
    plan = agent(latency=Duration("300ms"), model_use=PLAN, purpose="plan", timeout=Duration("1500ms"))
    assert found("M02", plan) == ()
    (one, _) = found("M02", agent(latency=Duration("297ms"), model_use=PLAN))
    assert one.arithmetic == "first token 250ms + 11 tokens × 4300us = 297300us > 297ms, the objective"


def test_m02_finds_an_answer_that_the_routes_own_timeout_cuts() -> None:
    short = {"timeout": StreamTimeout(first_token=Duration("400ms"), total=Duration("890ms"))}
    (one, _) = found("M02", agent(), dependency=models(route_policy=short))
    assert one.arithmetic.endswith("= 890700us > 890ms, the route's total timeout")


@pytest.mark.parametrize(("waits", "count"), [("1497ms", 1), ("1500ms", 0)])
def test_m03_finds_a_caller_that_stops_waiting_before_the_second_attempt_ends(waits: str, count: int) -> None:
    breaches = found("M03", agent(timeout=Duration(waits), model_use=PLAN))
    assert [each.arithmetic for each in breaches] == [
        "2 first tokens × 700ms + 50ms of backoff + 11 tokens × 4300us = 1497300us > 1497ms, the deadline"
    ] * count


@pytest.mark.parametrize(("gap", "count"), [("1s", 0), ("1100ms", 1)])
def test_m03_finds_an_idle_timeout_below_a_models_pauses(gap: str, count: int) -> None:
    pausing = models(CANDIDATES[0], deployment("two-fast", "two", longest_gap=Duration(gap)))
    breaches = found("M03", agent(), dependency=pausing)
    assert [each.path for each in breaches] == ["adapter.generate → llm.generate: two-fast"] * count


@pytest.mark.parametrize(("waits", "count"), [("2999ms", 1), ("3s", 0)])
def test_m04_finds_a_gateway_that_ends_the_stream(waits: str, count: int) -> None:
    entrance = operation(
        "adapter-generate",
        stage(hard("adapter.generate", "with_key", timeout=Duration(waits))),
        p95="1s",
        deadline="9s",
    )
    breaches = found("M04", gateway(entrance))
    assert [each.arithmetic for each in breaches] == [
        f"the hop ends a stream after {waits}, but the route allows 3s"
    ] * count


@pytest.mark.parametrize(("timeout", "count"), [("2s", 1), ("3s", 0), ("0s", 0)])
def test_m04_finds_a_mesh_that_ends_the_stream(timeout: str, count: int) -> None:
    hosts = ["adapter-grpc.shop.svc.cluster.local"]
    route = {
        "kind": "VirtualService",
        "metadata": {"name": "a"},
        "spec": {"hosts": hosts, "http": [{"timeout": timeout}]},
    }
    assert len(verdict("M04", of_manifests(route, nodes=(agent(), ADAPTER, models()))).findings) == count


def test_m04_ignores_a_virtual_service_without_routes() -> None:
    route = {
        "kind": "VirtualService",
        "metadata": {"name": "a"},
        "spec": {"hosts": ["adapter-grpc.shop.svc.cluster.local"]},
    }
    assert verdict("M04", of_manifests(route, nodes=(agent(), ADAPTER, models()))).findings == ()


@pytest.mark.parametrize(
    ("limits", "fields"),
    [
        ({}, []),
        ({"idle_timeout": "2999ms"}, ["idle_timeout"]),
        ({"idle_timeout": "0s"}, []),
        ({"max_downstream_connection_duration": "2999ms"}, ["max_downstream_connection_duration"]),
        ({"idle_timeout": "3s", "max_downstream_connection_duration": "3s"}, []),
        (
            {"idle_timeout": "1s", "max_downstream_connection_duration": "2s"},
            ["idle_timeout", "max_downstream_connection_duration"],
        ),
    ],
    ids=[
        "defaults",
        "short idle timeout",
        "no idle timeout",
        "short connection",
        "limits equal to the route's",
        "both limits short",
    ],
)
def test_m04_finds_an_egress_proxy_that_ends_the_stream(
    limits: dict[str, str], fields: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners = [
        {"name": name, "filter_chains": [{"filters": [{}, {"typed_config": config}]}]}
        for name, config in (("adapter", limits), ("other", {"idle_timeout": "1s"}))
    ]
    written = EnvoyResources(listeners, clusters=[])
    monkeypatch.setattr(model_times, "envoy_resources", lambda _: written)
    looked_at = of_manifests(nodes=(agent(), ADAPTER, models()))
    proxy = EgressProxy.model_construct(name="egress-proxy-a")
    rendered(looked_at)
    looked_at.__dict__["resources"] = (*looked_at.resources, (proxy, ()))
    breaches = verdict("M04", looked_at).findings
    assert [(each.path, each.field) for each in breaches] == [
        ("adapter.generate → llm.generate: egress-proxy-a", field) for field in fields
    ]


def test_each_provider_has_one_of_the_candidates() -> None:
    assert {each.provider for each in CANDIDATES} == {each.name for each in PROVIDERS}
