from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from voice_policies import InvalidInputError

from components.component import Component
from components.edge.egress_proxy import EgressProxy
from components.mesh.policy import MeshPolicy
from components.node import Caller, Gateway
from components.operation import HttpRoute, hard, operation, stage
from stack.model.platform import Platform
from stack.model.settings import ROOT
from stack.output.explanation import explain
from stack.output.explanation.report import REPORTS
from tests import toy
from tests.platforms import platform
from tests.stack.audit.test_network import Tampered


def toy_platform() -> Platform:
    return Platform(toy.TENANT, toy.ENVIRONMENT)


def line_of(number: int) -> str:
    return (ROOT / "tests/toy.py").read_text(encoding="utf-8").splitlines()[number - 1]


def test_a_declared_call_is_shown_with_its_line_its_policies_and_its_connection() -> None:
    explained = explain(toy_platform(), "orders", "prices.list")
    (call,) = explained.calls
    assert 'soft("prices.list"' in line_of(int(call.edge.source.partition(":")[2]))
    assert REPORTS["text"](explained).splitlines() == [
        "orders → prices.list: permitted in dev",
        "",
        f"orders.place → prices.list ({call.edge.source})",
        "  call             soft, idempotent",
        "  retry            1 attempt",
        "  timeout          100ms an attempt; 100ms in all, by runtime",
        "  deadline         100ms at the callee, or the caller's remaining time if that is shorter",
        "  circuit breaker  opens after 5 failures in a row, for 15s; 2 of 3 probes close it, by runtime",
        "  degradation      the price of yesterday",
        "",
        "connection",
        "  DNS      NetworkPolicy shop/allow-dns admits orders → kube-dns:53",
        "  name     prices-grpc.shop.svc.cluster.local:9000 is a port of Service shop/prices-grpc",
        "  egress   NetworkPolicy shop/orders admits orders → prices:9000",
        "  ingress  NetworkPolicy shop/prices admits orders → prices:9000",
    ]


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_every_declared_pair_is_permitted_and_names_the_line_of_each_call(name: str) -> None:
    graph = platform(name).graph
    for caller, callee in sorted({(edge.caller.name, edge.callee.name) for edge in graph.edges}):
        explained = explain(platform(name), caller, callee)
        assert explained.permitted, REPORTS["text"](explained)
        wanted = [edge.path for edge in graph.edges_from(graph.nodes[caller]) if edge.callee.name == callee]
        assert [call.edge.path for call in explained.calls] == wanted
        for call in explained.calls:
            file, _, line = call.edge.source.rpartition(":")
            assert (ROOT / file).read_text(encoding="utf-8").splitlines()[int(line) - 1].strip()


def test_each_policy_is_shown_with_the_layer_that_enforces_it() -> None:
    explained = REPORTS["text"](explain(platform("prod"), "knowledge-service", "retrieval-service"))
    assert ", by grpc" in row(explained, "retry")
    assert "an attempt, by mesh; " in row(explained, "timeout")
    assert row(explained, "circuit breaker").endswith(", by mesh")
    in_dev = REPORTS["text"](explain(platform("dev"), "knowledge-service", "retrieval-service"))
    assert row(in_dev, "circuit breaker") == "declared, but only the mesh could enforce it, and the mesh is off"


def row(text: str, title: str) -> str:
    return next(line.removeprefix(f"  {title}").strip() for line in text.splitlines() if line.startswith(f"  {title} "))


def test_a_call_that_no_network_policy_admits_fails_at_the_egress_step() -> None:
    explained = explain(Tampered(egress_closed=True), "orders", "stock")
    assert (explained.permitted, explained.broken and explained.broken.title) == (False, "egress")
    assert REPORTS["text"](explained).startswith(
        "orders → stock: declared, but the connection fails in dev: no NetworkPolicy admits orders → stock:6379; "
        "shop/default-deny, shop/allow-dns, shop/orders govern orders"
    )


class ProdWith(Platform):
    def __init__(self, kind: type[Component], name: str, change: Callable[[Any], dict[str, Any]]) -> None:
        whole = platform("prod")
        super().__init__(whole.tenant, whole.environment)
        self.__dict__["components"] = tuple(
            each.model_copy(update=change(each)) if isinstance(each, kind) and each.name == name else each
            for each in whole.components
        )


def without_hosts(proxy: EgressProxy) -> dict[str, Any]:
    return {"allow_lists": tuple(each.model_copy(update={"hosts": ()}) for each in proxy.allow_lists)}


@pytest.mark.parametrize(
    ("kind", "name", "change", "pair", "said"),
    [
        (
            MeshPolicy,
            "rag-engine",
            lambda _: {"destinations": ()},
            ("rag-engine", "redis"),
            "Sidecar voice-apps/rag-engine does not know voice-data/redis.voice-data.svc.cluster.local",
        ),
        (
            MeshPolicy,
            "rag-engine",
            lambda mesh: {"server": mesh.server.model_copy(update={"callers": ()})},
            ("agent-engine", "rag-engine"),
            "AuthorizationPolicy voice-apps/rag-engine does not admit ns/voice-apps/sa/agent-engine on port 9000",
        ),
        (
            EgressProxy,
            "egress-proxy-b",
            without_hosts,
            ("voice-engine", "speech"),
            "egress-proxy-b does not let voice-engine reach speech.googleapis.com:443",
        ),
        (
            EgressProxy,
            "egress-proxy-a",
            lambda _: {"allow_lists": ()},
            ("voice-engine", "speech"),
            "egress-proxy-a.voice-egress.svc.cluster.local:27715: the Service has only the ports 9902",
        ),
    ],
)
def test_a_call_that_the_mesh_or_the_egress_proxy_refuses_fails_at_that_step(
    kind: type[Component], name: str, change: Callable[[Any], dict[str, Any]], pair: tuple[str, str], said: str
) -> None:
    explained = explain(ProdWith(kind, name, change), *pair)
    assert explained.broken is not None
    assert explained.broken.text == said


def test_a_model_call_shows_its_route_and_the_enforcer_of_each_part() -> None:
    explained = REPORTS["text"](explain(platform("prod"), "model-adapter", "llm.generate"))
    assert row(explained, "candidate 1").startswith(
        "openai-generate: gpt-4o-mini at api.openai.com through egress-proxy-a"
    )
    assert row(explained, "candidate 2").startswith("mistral-generate: ")
    assert row(explained, "fallback") == "2 attempts at different candidates, wait ≤ 50ms, by runtime"
    times = "connect 250ms, first token 700ms, idle 1s, total 3s, by runtime"
    assert row(explained, "stream timeout") == times
    budget = (
        "tenant-minute: 200,000 tokens in 1m for each tenant, by runtime in events.reserve; while the store is down: "
    )
    assert row(explained, "budget") == f"{budget}each replica's share"
    assert "retry" not in explained
    assert "hedge" not in explained
    hedged = REPORTS["text"](explain(platform("prod"), "model-adapter", "llm.embed"))
    assert row(hedged, "hedge") == "a second request after 50ms, at most 5% of the calls, by runtime"
    other = REPORTS["text"](explain(platform("prod"), "agent-engine", "rag-engine"))
    assert "candidate" not in other


def with_line(whole: Platform, caller: str, line: str) -> Platform:
    names = {"stage": stage, "hard": hard, "operation": operation, "HttpRoute": HttpRoute}
    added = eval(line.removesuffix(","), names)  # noqa: S307 - the line under test, as a person would paste it
    catalogue = whole.tenant.catalogue
    nodes = []
    for node in catalogue.nodes:
        if node.name == caller and isinstance(node, Caller):
            first, *others = node.operations
            changed = (
                (*node.operations, added)
                if isinstance(node, Gateway)
                else (first.model_copy(update={"stages": (*first.stages, added)}), *others)
            )
            node = node.model_copy(update={"operations": changed})  # noqa: PLW2901 - the node with the line
        nodes.append(node)
    tenant = replace(whole.tenant, catalogue=catalogue.model_copy(update={"nodes": tuple(nodes)}))
    return Platform(tenant, whole.environment)


@pytest.mark.parametrize(
    ("caller", "callee"),
    [
        ("agent-engine", "knowledge-graph-service.neighbours"),
        ("gateway", "rag-engine"),
        ("model-router", "events"),
        ("multimodal-engine", "object-storage.read"),
        ("analytics-service", "identity-service"),
    ],
)
def test_the_proposed_line_permits_the_undeclared_pair(caller: str, callee: str) -> None:
    explained = explain(platform("prod"), caller, callee)
    assert (explained.permitted, explained.calls) == (False, ())
    assert explained.broken is not None
    assert explained.permission is not None
    assert explained.permission.refused == ()
    assert Path(ROOT, explained.permission.where.file).is_file() if explained.permission.where else False
    assert explain(with_line(platform("prod"), caller, explained.permission.line), caller, callee).permitted


def test_the_proposed_line_is_shown_with_every_rule_that_would_refuse_it() -> None:
    def refused(caller: str, callee: str) -> str:
        change = explain(platform("prod"), caller, callee).permission
        assert change is not None
        return "\n".join(change.refused)

    assert "only model-adapter may call llm" in refused("agent-engine", "llm")
    assert "model-adapter.generate → agent-engine.run is a cycle" in refused("model-adapter", "agent-engine")
    assert "indexing-service may never call rag-engine" in refused("indexing-service", "rag-engine.context")
    assert refused("redis", "gateway") == "redis has no operation that can make calls"
    assert refused("rag-engine", "gateway") == "gateway has no operation that can be called"


def test_the_findings_that_the_proposed_line_adds_are_shown() -> None:
    change = explain(platform("prod"), "model-router.choose", "rag-engine.answer").permission
    assert change is not None
    assert {(found.rule, found.path) for found in change.found} >= {
        ("T01", "model-router.choose"),
        ("T04", "model-router.choose"),
    }


def test_a_path_over_other_services_is_shown() -> None:
    explained = explain(platform("prod"), "conversation-service", "rag-engine.context")
    assert explained.through == (
        "conversation-service.send",
        "ai-orchestrator.answer",
        "agent-engine.run",
        "rag-engine.context",
    )


def test_a_node_that_the_environment_leaves_out_fails_the_connection() -> None:
    explained = explain(platform("dev-internal"), "gateway", "identity-service")
    assert REPORTS["text"](explained).splitlines()[0] == (
        "gateway → identity-service: declared, but the connection fails in dev-internal: gateway is not deployed: "
        "config.voiceassistant:without in Pulumi.dev-internal.yaml lists it"
    )


def test_unknown_names_are_refused_in_one_error_with_suggestions() -> None:
    with pytest.raises(InvalidInputError) as refusal:
        explain(platform("prod"), "rag-engin", "model-adapter.generat")
    assert "X: is 'rag-engin'; did you mean rag-engine? expected one of " in str(refusal.value)
    assert "Y: is 'model-adapter.generat', which model-adapter does not offer; did you mean generate?" in str(
        refusal.value
    )


def test_a_name_that_ends_with_a_dot_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"X: is 'rag-engine\.', which rag-engine does not offer"):
        explain(platform("prod"), "rag-engine.", "model-adapter")


def test_json_has_the_policies_in_the_form_of_the_bundle() -> None:
    document = json.loads(REPORTS["json"](explain(platform("prod"), "rag-engine.context", "retrieval-service")))
    (call,) = document["calls"]
    (service,) = (each for each in platform("prod").microservices if each.name == "rag-engine")
    (outbound,) = (each for each in service.bundle.outbound if each.name == "retrieval-service.search")
    assert call["outbound"] == outbound.model_dump(mode="json", exclude_none=True)
    assert document["permitted"] is True
    assert {step["title"] for step in document["connection"]} == {"DNS", "name", "egress", "ingress", "mesh"}
