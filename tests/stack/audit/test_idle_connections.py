from __future__ import annotations

import json
from typing import Any

import pytest

from components.operation import hard, operation, stage
from stack.audit.finding import Finding
from stack.audit.idle_connections import gateway_timeouts
from tests.small import gateway, service
from tests.stack.audit.rule_findings import READ, of_manifests, verdict


def config(name: str, text: str) -> dict[str, Any]:
    return {"kind": "ConfigMap", "metadata": {"name": "gateway"}, "data": {name: text}}


def found(rule: str, *documents: dict[str, Any]) -> tuple[Finding, ...]:
    return verdict(rule, of_manifests(*documents)).findings


@pytest.mark.parametrize(("idle", "count"), [("74s", 0), ("75s", 1)])
def test_t06_finds_a_gateway_that_keeps_connections_too_long(idle: str, count: int) -> None:
    assert len(found("T06", config("config.yaml", f"upstream:\n  keepalive_timeout: {idle}\n"))) == count


@pytest.mark.parametrize(
    ("pool", "count"),
    [({"idleTimeout": "60s"}, 0), ({"idleTimeout": "75s"}, 1), ({}, 1)],
    ids=["60s", "75s", "default of 1h"],
)
def test_t06_finds_a_mesh_that_keeps_connections_too_long(pool: dict[str, str], count: int) -> None:
    sidecar = {"kind": "Sidecar", "metadata": {"name": "a"}, "spec": {"inboundConnectionPool": {"http": pool}}}
    served = {"kind": "AuthorizationPolicy", "metadata": {"name": "a"}}
    assert len(found("T06", sidecar, served)) == count
    assert found("T06", sidecar) == (), "a mesh without a permitted caller has no finding"


@pytest.mark.parametrize(
    ("read", "websocket", "count"),
    [(20, True, 1), (21, True, 0), (20, False, 0)],
    ids=["WebSocket with 20 s", "WebSocket with 21 s", "HTTP with 20 s"],
)
def test_s02_finds_a_route_that_ends_a_silent_websocket(read: float, *, websocket: bool, count: int) -> None:
    route = {"id": "talk", "enable_websocket": websocket, "upstream": {"timeout": {"read": read}}}
    breaches = found("S02", config("apisix.yaml", json.dumps({"routes": [route]}) + "\n#END\n"))
    assert [each.path for each in breaches] == ["route talk"] * count


def test_gateway_timeouts_lists_all_timeouts_of_a_route_in_one_text() -> None:
    route = {"id": "list", "upstream": {"timeout": {"connect": 1, "read": 2.5}}}
    platform = of_manifests(config("apisix.yaml", json.dumps({"routes": [route]}) + "\n#END\n"))
    assert list(gateway_timeouts(platform)) == [("list", "connect 1s, read 2.5s")]


@pytest.mark.parametrize(
    ("transport", "idle", "count"), [("websocket", "20s", 1), ("websocket", "21s", 0), ("unary", "20s", 0)]
)
def test_s02_finds_a_mesh_that_ends_a_silent_websocket(transport: str, idle: str, count: int) -> None:
    talk = operation("talk", stage(hard("a.read", "idempotent")), p95="1s", deadline="2s", transport=transport)
    pool = {"inboundConnectionPool": {"http": {"idleTimeout": idle}}}
    sidecars = [{"kind": "Sidecar", "metadata": {"name": name}, "spec": pool} for name in ("a", "b")]
    breaches = verdict("S02", of_manifests(*sidecars, nodes=(gateway(talk), service("a", READ)))).findings
    assert [each.path for each in breaches] == ["Sidecar a"] * count


def test_missing_fields_of_resources_have_their_default_values() -> None:
    empty = {"kind": "ConfigMap", "metadata": {"name": "empty"}}
    assert found("T06", empty) == ()
    assert found("S02", empty) == ()
    assert found("S02", config("config.yaml", "")) == ()
    served = {"kind": "AuthorizationPolicy", "metadata": {"name": "a"}}
    specs: tuple[dict[str, Any], ...] = ({}, {"inboundConnectionPool": {}})
    for spec in specs:
        (idle,) = found("T06", {"kind": "Sidecar", "metadata": {"name": "a"}, "spec": spec}, served)
        assert "an idle connection for 1h" in idle.arithmetic
