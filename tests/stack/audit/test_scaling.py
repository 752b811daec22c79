from __future__ import annotations

from typing import Any

import pytest

from components.node import Node
from components.operation import hard, operation, stage
from stack.audit.finding import Finding
from tests.small import service
from tests.stack.audit.rule_findings import READ, STORE, of_manifests, verdict

PROGRAM: dict[str, Any] = {
    "name": "a",
    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
}
PROXY = {**PROGRAM, "name": "proxy"}
UTILIZATION = {"type": "Utilization"}
ON_CPU = {"type": "Resource", "resource": {"name": "cpu", "target": UTILIZATION}}
ON_MEMORY = {"type": "Resource", "resource": {"name": "memory", "target": UTILIZATION}}
ON_CONTAINER = {
    "type": "ContainerResource",
    "containerResource": {"name": "cpu", "container": "a", "target": UTILIZATION},
}
ON_STORAGE = {"type": "Resource", "resource": {"name": "ephemeral-storage", "target": UTILIZATION}}


def scaled(
    rule: str,
    *metrics: dict[str, Any],
    containers: tuple[dict[str, Any], ...] = (PROGRAM,),
    nodes: tuple[Node, ...] = (),
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> tuple[Finding, ...]:
    template = {"metadata": {"labels": labels or {}}, "spec": {"containers": list(containers)}}
    deployment = {
        "kind": "Deployment",
        "metadata": {"name": "a", "namespace": "shop"},
        "spec": {"template": template, **spec},
    }
    target = {"kind": "Deployment", "name": "a"}
    autoscaler = {
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "a", "namespace": "shop"},
        "spec": {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 4, "metrics": list(metrics)},
    }
    return verdict(rule, of_manifests(deployment, autoscaler, nodes=nodes)).findings


def test_d03_finds_an_autoscaled_workload_without_a_request_or_with_declared_replicas() -> None:
    assert scaled("D03", ON_CPU) == ()
    (found,) = scaled("D03", ON_CPU, replicas=3)
    assert found.path == "shop/a: replicas"
    (missing,) = scaled("D03", ON_STORAGE)
    assert "but these containers have none: a" in missing.arithmetic
    requests = {**PROGRAM["resources"]["requests"], "ephemeral-storage": "1Gi"}
    program = {**PROGRAM, "resources": {**PROGRAM["resources"], "requests": requests}}
    of_program = {
        "type": "ContainerResource",
        "containerResource": {"name": "ephemeral-storage", "container": "a", "target": UTILIZATION},
    }
    assert scaled("D03", of_program, containers=(program, PROXY)) == (), "the metric counts only the program"
    assert len(scaled("D03", ON_STORAGE, containers=(program, PROXY))) == 1


def test_d03_counts_a_limit_as_a_request_and_names_containers_without_resources() -> None:
    limited = {**PROGRAM, "resources": {"limits": PROGRAM["resources"]["limits"]}}
    assert scaled("D03", ON_CPU, containers=(limited,)) == ()
    (missing,) = scaled("D03", ON_CPU, containers=({"name": "a"},))
    assert "but these containers have none: a" in missing.arithmetic


def test_d03_finds_a_metric_of_a_container_that_the_pod_does_not_have() -> None:
    of_other = {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "b", "target": {}}}
    (found,) = scaled("D03", of_other)
    assert found.arithmetic == "the autoscaler measures the container b, which the pod does not have"


def test_d03_reports_a_service_that_spends_80_percent_of_its_p95_in_calls() -> None:
    def waiting(p95: str) -> Node:
        return service("a", operation("run", stage(hard("store.read", "idempotent")), p95=p95, deadline="1s"))

    # The call takes 10 ms, which is 80 % of 12.5 ms.
    (found,) = scaled("D03", ON_CPU, nodes=(waiting("12500us"), STORE))
    assert (found.severity, found.path) == ("info", "shop/a: cpu")
    assert scaled("D03", ON_CPU, nodes=(waiting("13ms"), STORE)) == ()


def test_h01_finds_an_autoscaler_on_the_memory_of_a_python_service() -> None:
    (found,) = scaled("H01", ON_CPU, ON_MEMORY, nodes=(service("a", READ),))
    assert "a python process returns little memory" in found.arithmetic
    assert scaled("H01", ON_CPU, nodes=(service("a", READ),)) == ()
    assert scaled("H01", ON_MEMORY, nodes=(service("a", READ, language="go"),)) == ()


@pytest.mark.parametrize(
    ("target", "threshold"),
    [
        ({"type": "Utilization", "averageUtilization": 59}, "59% × 1Gi"),
        ({"type": "Utilization", "averageUtilization": 60}, None),
        ({"type": "AverageValue", "averageValue": "613Mi"}, "613Mi"),
        ({"type": "AverageValue", "averageValue": "614Mi"}, None),
    ],
    ids=["59 % of the request", "60 % of the request", "613Mi", "614Mi"],
)
def test_h01_finds_a_threshold_below_the_memory_of_a_replica_without_load(
    target: dict[str, Any], threshold: str | None
) -> None:
    """60 % of a request of 1Gi are 614.4Mi."""
    node = service("a", READ, language="go", resident_memory="614Mi")
    found = scaled("H01", {"type": "Resource", "resource": {"name": "memory", "target": target}}, nodes=(node,))
    text = f"the autoscaler adds replicas above {threshold} of memory, and a replica without load uses 614Mi"
    assert [(each.arithmetic, each.proposal) for each in found] == ([(text, "at least 614Mi")] if threshold else [])


def test_h01_compares_the_lowest_of_several_thresholds() -> None:
    node = service("a", READ, language="go", resident_memory="614Mi")
    metrics = [
        {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": value}}}
        for value in ("700Mi", "600Mi")
    ]
    (found,) = scaled("H01", *metrics, nodes=(node,))
    assert (
        found.arithmetic == "the autoscaler adds replicas above 600Mi of memory, and a replica without load uses 614Mi"
    )


def test_h02_finds_a_metric_that_counts_a_sidecar() -> None:
    (found,) = scaled("H02", ON_CPU, containers=(PROGRAM, PROXY))
    assert found.proposal == "ContainerResource"
    assert scaled("H02", ON_CONTAINER, containers=(PROGRAM, PROXY)) == ()
    assert scaled("H02", ON_CPU) == ()
    both = scaled("H02", ON_CPU, ON_MEMORY, containers=(PROGRAM, PROXY))
    assert [each.arithmetic for each in both] == [
        "a metric of type Resource (cpu, memory) includes the sidecar's usage and requests"
    ]


@pytest.mark.parametrize(("injected", "count"), [("true", 1), ("false", 0)])
def test_h02_knows_the_sidecar_that_the_mesh_adds(injected: str, count: int) -> None:
    assert len(scaled("H02", ON_CPU, labels={"sidecar.istio.io/inject": injected})) == count


def test_d03_names_every_container_without_a_request() -> None:
    (missing,) = scaled("D03", ON_STORAGE, containers=(PROGRAM, PROXY))
    assert "but these containers have none: a, proxy" in missing.arithmetic


def test_d03_ignores_an_autoscaler_without_metrics() -> None:
    template = {"metadata": {"labels": {}}, "spec": {"containers": [PROGRAM]}}
    metadata = {"name": "a", "namespace": "shop"}
    deployment = {"kind": "Deployment", "metadata": metadata, "spec": {"template": template}}
    target = {"scaleTargetRef": {"kind": "Deployment", "name": "a"}, "maxReplicas": 4}
    by_default = {"kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": target}
    assert verdict("D03", of_manifests(deployment, by_default)).findings == ()


@pytest.mark.parametrize(
    ("target", "count"),
    [
        ({"kind": "Deployment", "name": "a"}, 0),
        ({"kind": "Deployment", "name": "b"}, 1),
        ({"kind": "StatefulSet", "name": "a"}, 1),
    ],
    ids=["the Deployment", "another name", "another kind"],
)
def test_d03_finds_an_autoscaler_without_a_workload(target: dict[str, str], count: int) -> None:
    template = {"metadata": {"labels": {}}, "spec": {"containers": [PROGRAM]}}
    metadata = {"name": "a", "namespace": "shop"}
    deployment = {"kind": "Deployment", "metadata": metadata, "spec": {"template": template}}
    spec = {"scaleTargetRef": target, "maxReplicas": 4}
    autoscaler = {"kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": spec}
    found = verdict("D03", of_manifests(deployment, autoscaler)).findings
    assert [each.path for each in found] == ["HorizontalPodAutoscaler shop/a"] * count
