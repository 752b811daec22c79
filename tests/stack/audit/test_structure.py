from __future__ import annotations

from typing import Any

import pytest
from voice_policies import Bulkhead, InvalidInputError

from components.network_policy import NAME_LABEL
from components.node import Service
from components.operation import hard, operation, stage
from stack.audit.structure import SELECTORS, all_enforced
from tests.small import service, small_platform
from tests.stack.audit.rule_findings import READ, SNAPSHOT_LINES, STORE, TWICE, findings, of_manifests, verdict


def test_c07_refuses_a_cycle_of_operations_and_accepts_services_that_call_each_other() -> None:
    def calling(name: str, callee: str) -> Service:
        return service(name, READ, operation("run", stage(hard(callee, "idempotent")), p95="1s", deadline="2s"))

    with pytest.raises(InvalidInputError) as refused:
        findings("C07", calling("a", "b.run"), calling("b", "a.run"))
    _, _, without_line = str(refused.value.faults[0]).partition(": ")
    SNAPSHOT_LINES.append(f"C07: refused: {without_line}")
    assert "a.run → b.run → a.run: is a cycle" in SNAPSHOT_LINES[-1]
    assert verdict("C07", small_platform(calling("a", "b.read"), calling("b", "a.read"))).text == "holds"


def test_a_policy_that_no_layer_can_express_is_refused_before_rendering() -> None:
    retrying = stage(hard("store.read", "idempotent", retry=TWICE))
    refused = small_platform(service("a", operation("run", retrying, p95="1s", deadline="2s"), language="go"), STORE)
    with pytest.raises(InvalidInputError, match=r"a\.run → store\.read: retry is declared; driver and mesh cannot"):
        _ = refused.components


def test_the_refusal_of_a_call_with_contradictory_policies_names_its_edge() -> None:
    caller = service("a", operation("run", stage(hard("store.read", "never", retry=TWICE)), p95="1s", deadline="60s"))
    with pytest.raises(
        InvalidInputError, match=r"a\.run → store\.read: is refused; a call whose idempotency is 'never'"
    ):
        _ = small_platform(caller, STORE).components


def test_e01_finds_a_policy_that_no_layer_can_express() -> None:
    retrying = stage(hard("store.read", "idempotent", retry=TWICE, bulkhead=Bulkhead(max_concurrent=1)))
    caller = service("a", operation("run", retrying, p95="1s", deadline="2s"), language="go")
    found, *_ = filter(None, all_enforced(small_platform(caller, STORE)))
    assert found.arithmetic == "retry is declared, but driver and mesh cannot express it on this edge"
    assert found.proposal == "None"
    assert findings("E01", service("a", operation("run", retrying, p95="1s", deadline="2s")), STORE) == ()


NAMED = {"matchLabels": {NAME_LABEL: "a"}}
PODS = {
    "kind": "Deployment",
    "metadata": {"name": "a", "namespace": "shop"},
    "spec": {"template": {"metadata": {"labels": {NAME_LABEL: "a"}}, "spec": {"containers": [{"name": "a"}]}}},
}


def policy(kind: str, **spec: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "policy", "namespace": "shop"}, "spec": spec}


def destination_rule(*fields: str, host: str = "store.stores.svc.cluster.local") -> dict[str, Any]:
    enforced: dict[str, Any] = {field: {} for field in fields or ("outlierDetection",)}
    return policy("DestinationRule", host=host, workloadSelector=NAMED, trafficPolicy=enforced)


def of_go(*documents: dict[str, Any], mesh: bool, **policies: Any) -> tuple[tuple[str, str], ...]:
    """Path and field of each finding of E01 for a Go service. Only the mesh can enforce the service's breaker."""
    call = stage(hard("store.read", "idempotent", **policies))
    caller = service("a", operation("run", call, p95="1s", deadline="2s"), language="go")
    looked_at = of_manifests(PODS, *documents, nodes=(caller, STORE))
    settings = looked_at.environment.settings.model_copy(update={"mesh": mesh})
    looked_at.environment = looked_at.environment.model_copy(update={"settings": settings})
    return tuple((each.path, each.field) for each in verdict("E01", looked_at).findings)


def test_e01_finds_a_policy_that_only_the_missing_mesh_can_enforce() -> None:
    off = of_go(destination_rule(), mesh=False)
    assert off == (("circuit_breaker without mesh", "config.voiceassistant:mesh"),)


def test_e01_finds_policies_of_the_mesh_that_no_destination_rule_contains() -> None:
    assert of_go(destination_rule(), mesh=True) == ()
    missing = (("a.run → store.read", "DestinationRule: spec.trafficPolicy"),)
    assert of_go(mesh=True) == missing
    assert of_go(destination_rule(host="another"), mesh=True) == missing
    assert of_go(destination_rule("connectionPool"), mesh=True) == missing
    both = destination_rule("outlierDetection", "connectionPool")
    limited = Bulkhead(max_concurrent=1)
    assert of_go(both, mesh=True, bulkhead=limited) == ()
    assert of_go(destination_rule(), mesh=True, bulkhead=limited) == missing


@pytest.mark.parametrize("kind", sorted(SELECTORS))
def test_e01_finds_a_policy_that_applies_to_no_pod(kind: str) -> None:
    field, spec = SELECTORS[kind], {"host": "a", "trafficPolicy": {}}
    labels = "labels" if kind == "Sidecar" else "matchLabels"
    for selector, count in (({labels: {NAME_LABEL: "b"}}, 1), ({labels: {NAME_LABEL: "a"}}, 0), ({}, 0)):
        applied = verdict("E01", of_manifests(PODS, policy(kind, **spec, **{field: selector}))).findings
        assert [(each.path, each.field) for each in applied] == [(f"{kind} shop/policy", f"spec.{field}")] * count


def test_e01_names_every_caller() -> None:
    call = stage(hard("store.read", "idempotent"))
    callers = [service(name, operation("run", call, p95="1s", deadline="2s"), language="go") for name in ("b", "a")]
    (off,) = findings("E01", *callers, STORE)
    assert "only the mesh can enforce circuit_breaker for calls of a, b," in off.arithmetic
