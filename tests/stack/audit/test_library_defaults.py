from __future__ import annotations

import json
import re
from typing import Any

import pytest
from voice_policies import Retry

from components.node import Client
from components.operation import hard, operation, stage
from stack.audit.library_defaults import DEFAULTS, client_retries
from tests.small import gateway, graph_of, service
from tests.stack.audit.rule_findings import STORE, findings, of_manifests, verdict
from tests.stack.audit.test_retry_policies import calling


def store_with(*clients: Client) -> Any:
    return STORE.model_copy(update={"clients": clients})


def test_r09_finds_the_default_retries_of_a_library() -> None:
    (found,) = findings("R09", store_with(Client(library="openai-python")))
    assert found.path == "store by openai-python"
    assert found.arithmetic.startswith(
        "openai-python makes 1 + 2 attempts of 600s each by default, and the catalogue sets no retries for it"
    )
    assert "max_retries in its callers" in found.field
    (without,) = findings("R09", store_with(Client(library="redis-py")))
    assert without.arithmetic.startswith("redis-py makes 1 + 3 attempts by default")
    assert findings("R09", store_with(Client(library="openai-python", retries=0))) == ()
    assert findings("R09", store_with(Client(library="a-client-of-our-own"))) == (), "the table lacks the library"


def test_a_client_of_one_language_counts_only_for_callers_in_that_language() -> None:
    store = store_with(Client(library="go-redis", language="go"), Client(library="redis-py", language="python"))
    graph = graph_of(calling(None)[0], calling(None)[0].model_copy(update={"name": "b", "language": "go"}), store)
    used = {edge.caller.name: [client.library for client in client_retries(edge)] for edge in graph.edges}
    assert used == {"a": ["redis-py"], "b": ["go-redis"]}


@pytest.mark.parametrize(
    ("route", "count"), [({}, 1), ({"retries": {"attempts": 0}}, 0)], ids=["default retries", "no retries"]
)
def test_r09_finds_a_mesh_route_that_does_not_set_its_retries(route: dict[str, Any], count: int) -> None:
    routed = {"kind": "VirtualService", "metadata": {"name": "orders"}, "spec": {"http": [route]}}
    found = verdict("R09", of_manifests(routed))
    assert found.checked == 1
    assert len(found.findings) == count
    for each in found.findings:
        assert each.arithmetic.startswith("istio makes 1 + 2 attempts")


def test_r09_finds_a_route_of_the_mesh_with_retries() -> None:
    route = {"retries": {"attempts": 3}}
    routed = {"kind": "VirtualService", "metadata": {"name": "orders"}, "spec": {"http": [route]}}
    (found,) = verdict("R09", of_manifests(routed)).findings
    assert found.arithmetic == "the mesh makes 1 + 3 attempts, and no call declares them"


@pytest.mark.parametrize("routed", [True, False], ids=["with a route", "without a route"])
def test_r09_finds_a_service_of_the_mesh_without_a_route(routed: bool) -> None:
    called = operation("get", p95="5ms", deadline="50ms")
    caller = operation("run", stage(hard("b.get", "idempotent")), p95="50ms", deadline="1s")
    spec = {"hosts": ["b-grpc.shop.svc.cluster.local"], "http": [{"retries": {"attempts": 0}}]}
    route = {"kind": "VirtualService", "metadata": {"name": "b-grpc", "namespace": "shop"}, "spec": spec}
    platform = of_manifests(*([route] if routed else []), nodes=(service("a", caller), service("b", called)))
    assert verdict("R09", platform).findings == (), "the small platform has no mesh"
    settings = platform.environment.settings.model_copy(update={"mesh": True})
    platform.environment = platform.environment.model_copy(update={"settings": settings})
    found = [each.path for each in verdict("R09", platform).findings]
    assert found == ([] if routed else ["b-grpc.shop.svc.cluster.local"])


def test_r09_finds_a_callee_of_the_gateway_without_a_mesh_route() -> None:
    spec = {"hosts": ["a.shop.svc.cluster.local"], "http": [{"retries": {"attempts": 0}}]}
    route = {"kind": "VirtualService", "metadata": {"name": "a", "namespace": "shop"}, "spec": spec}
    called = service("a", operation("read", p95="5ms", deadline="50ms"))
    entrance = gateway(operation("read", stage(hard("a.read", "idempotent")), p95="200ms", deadline="1s"))
    for documents, paths in (((route,), []), ((), ["a.shop.svc.cluster.local"])):
        platform = of_manifests(*documents, nodes=(called, entrance))
        settings = platform.environment.settings.model_copy(update={"mesh": True})
        platform.environment = platform.environment.model_copy(update={"settings": settings})
        assert [each.path for each in verdict("R09", platform).findings] == paths


@pytest.mark.parametrize(
    ("upstream", "arithmetic"),
    [
        ({}, "apisix makes 1 + 1 attempts by default, and the route does not set the retries"),
        ({"retries": 3}, "the gateway makes 1 + 3 attempts, and the catalogue declares 1 + 1"),
        ({"retries": 1}, None),
        ({"retries": 0}, None),
    ],
    ids=["default", "more", "declared", "fewer"],
)
def test_r09_compares_a_route_of_the_gateway_with_its_call(upstream: dict[str, Any], arithmetic: str | None) -> None:
    text = json.dumps({"routes": [{"id": "read", "upstream": upstream}]})
    config = {"kind": "ConfigMap", "metadata": {"name": "routes"}, "data": {"apisix.yaml": f"{text}#END\n"}}
    called = service("a", operation("read", p95="5ms", deadline="50ms"))
    call = hard("a.read", "idempotent", retry=Retry(max_retries=1))
    entrance = gateway(operation("read", stage(call), p95="200ms", deadline="1s", load="1/s"))
    found = verdict("R09", of_manifests(config, nodes=(called, entrance))).findings
    assert [each.arithmetic.partition(" (")[0] for each in found] == ([arithmetic] if arithmetic else [])


def test_every_row_of_the_table_has_the_retries_the_setting_and_the_source() -> None:
    assert {"openai-python", "apisix", "istio", "envoy", "dapr", "kong", "ingress-nginx"} <= DEFAULTS.keys()
    for name, row in DEFAULTS.items():
        assert row.retries > 0, name
        assert row.setting, name
        assert re.search(r"[A-Za-z]", row.source), name


def test_r09_names_the_namespace_of_a_mesh_route_and_ignores_a_virtual_service_without_http_routes() -> None:
    metadata = {"name": "orders", "namespace": "shop"}
    routed = {"kind": "VirtualService", "metadata": metadata, "spec": {"http": [{}]}}
    without = {"kind": "VirtualService", "metadata": {"name": "tcp", "namespace": "shop"}, "spec": {"tcp": []}}
    (found,) = verdict("R09", of_manifests(without, routed)).findings
    assert found.path == "VirtualService shop/orders"


def test_a_known_library_retries_its_own_conditions_and_an_unknown_library_all_transient_ones() -> None:
    clients = (Client(library="ours"), Client(library="theirs", retries=2), Client(library="redis-py"))
    (edge,) = graph_of(calling(None)[0], store_with(*clients)).edges
    transient = ("connection_failed", "attempt_timeout", "unavailable", "resource_exhausted")
    assert [(each.library, each.retries, each.conditions, each.jitter) for each in client_retries(edge)] == [
        ("theirs", 2, transient, True),
        ("redis-py", 3, transient[:2], True),
    ]
