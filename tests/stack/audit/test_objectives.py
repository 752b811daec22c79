from __future__ import annotations

import json
from typing import Any

import pytest

from components.operation import HttpRoute, hard, operation, stage
from stack.audit.finding import Finding
from stack.model.platform import Platform
from tests.platforms import platform
from tests.small import gateway, service
from tests.stack.audit.rule_findings import READ, ROUTE, of_manifests, verdict


def config(**data: str) -> dict[str, Any]:
    return {
        "kind": "ConfigMap",
        "metadata": {"name": "a"},
        "data": {name.replace("_", "."): text for name, text in data.items()},
    }


def found(*documents: dict[str, Any]) -> tuple[Finding, ...]:
    return verdict("O02", of_manifests(*documents, nodes=(gateway(ROUTE), service("a", READ)))).findings


@pytest.mark.parametrize(("boundaries", "count"), [("100 200 500", 0), ("100 500", 1)])
def test_o02_finds_an_objective_between_two_buckets(boundaries: str, count: int) -> None:
    listed = "".join(f"    - {number}\n" for number in boundaries.split())
    breaches = found(config(config_yaml=f"prometheus:\n  default_buckets:\n{listed}"))
    assert [each.path for each in breaches] == ["route read"] * count


@pytest.mark.parametrize(("kind", "count"), [("request", 1), ("upstream", 0)])
def test_o02_finds_a_latency_metric_that_includes_the_clients_time(kind: str, count: int) -> None:
    rule = {"record": "route:slow", "expr": f"rate(apisix_http_latency_bucket{{type='{kind}'}}[5m])"}
    text = json.dumps({"groups": [{"name": "all", "rules": [rule]}]})
    assert len(found(config(rules_json=text))) == count


def test_o02_finds_a_first_frame_objective_that_no_rule_measures() -> None:
    real = platform("prod")
    assert verdict("O02", real).text == "holds"
    silent = Platform(real.tenant, real.environment)
    silent.__dict__["components"] = of_manifests(
        config(rules_json=json.dumps({"groups": [{"name": "all", "rules": [{"record": "a:b", "expr": "up"}]}]}))
    ).components
    (unread,) = verdict("O02", silent).findings
    text = "a flow has an objective for its first frame, but no rule reads a first-byte metric"
    assert (unread.path, unread.arithmetic, unread.field) == ("first byte", text, "a rule over a first-byte metric")


def test_o02_compares_only_the_gateways_http_routes() -> None:
    """The gateway's latency histogram counts only HTTP routes."""
    uneven = {"p95": "300ms", "deadline": "2s"}
    web = HttpRoute(path="/other", method="GET")
    inner = operation("inner", stage(hard("b.read", "idempotent")), http=web, **uneven)
    routes = (
        operation("rpc", stage(hard("a.inner", "idempotent")), **uneven),
        operation("talk", stage(hard("a.inner", "idempotent")), http=web, transport="websocket", **uneven),
    )
    nodes = (gateway(*routes), service("a", inner), service("b", READ))
    empty = {"kind": "ConfigMap", "metadata": {"name": "empty"}}
    buckets = config(config_yaml="  default_buckets:\n    - 100\n    - 500\n")
    assert verdict("O02", of_manifests(empty, buckets, nodes=nodes)).findings == ()
