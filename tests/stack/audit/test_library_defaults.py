"""R09: libraries and mesh routes that retry by default."""

from __future__ import annotations

import re
from typing import Any

import pytest

from components.node import Client
from stack.audit.library_defaults import DEFAULTS, client_retries
from tests.small import graph_of
from tests.stack.audit.rule_findings import STORE, findings, of_manifests, verdict
from tests.stack.audit.test_retry_policies import calling


def store_with(*clients: Client) -> Any:
    return STORE.model_copy(update={"clients": clients})


def test_r09_finds_the_default_retries_of_a_library() -> None:
    (found,) = findings("R09", store_with(Client(library="openai-python")))
    assert found.path == "store by openai-python"
    assert found.arithmetic.startswith(
        "openai-python makes 1 + 2 attempts of 600s each by default, and nobody sets its retries"
    )
    assert "max_retries in its callers" in found.field
    (without,) = findings("R09", store_with(Client(library="redis-py")))
    assert without.arithmetic.startswith("redis-py makes 1 + 3 attempts by default")
    assert findings("R09", store_with(Client(library="openai-python", retries=0))) == ()
    assert findings("R09", store_with(Client(library="a-client-of-our-own"))) == (), "the table does not know it"


def test_a_client_of_one_language_counts_only_for_callers_in_that_language() -> None:
    store = store_with(Client(library="go-redis", language="go"), Client(library="redis-py", language="python"))
    graph = graph_of(calling(None)[0], calling(None)[0].model_copy(update={"name": "b", "language": "go"}), store)
    used = {edge.caller.name: [client.library for client in client_retries(edge)] for edge in graph.edges}
    assert used == {"a": ["redis-py"], "b": ["go-redis"]}


@pytest.mark.parametrize(
    ("route", "count"), [({}, 1), ({"retries": {"attempts": 0}}, 0)], ids=["default retries", "no retries"]
)
def test_r09_finds_a_route_on_which_the_mesh_retries_by_itself(route: dict[str, Any], count: int) -> None:
    service = {"kind": "VirtualService", "metadata": {"name": "orders"}, "spec": {"http": [route]}}
    found = verdict("R09", of_manifests(service))
    assert found.checked == 1
    assert len(found.findings) == count
    for each in found.findings:
        assert each.arithmetic.startswith("istio makes 1 + 2 attempts")


def test_every_row_of_the_table_has_a_setting_and_a_source() -> None:
    assert {"openai-python", "apisix", "istio", "envoy", "dapr", "kong", "ingress-nginx"} <= DEFAULTS.keys()
    for name, row in DEFAULTS.items():
        assert row.retries > 0, name
        assert row.setting, name
        assert re.search(r"[A-Za-z]", row.source), name


def test_r09_names_the_namespace_of_a_mesh_route_and_ignores_a_service_without_routes() -> None:
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
