from __future__ import annotations

from typing import Any

import pytest
from voice_policies import Duration

from components.node import Node
from components.operation import hard, operation, stage
from stack.audit.finding import Finding
from tests.small import datastore, gateway, service
from tests.stack.audit.rule_findings import READ, STORE, WithManifests, of_manifests, verdict

SMALL = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
LIVE, READY = {"httpGet": {"path": "/health"}}, {"httpGet": {"path": "/ready"}}
CALLER = service("a", operation("run", stage(hard("store.read", "idempotent")), p95="1s", deadline="25s"))


def workload(kind: str = "Deployment", container: dict[str, Any] | None = None, **pod: Any) -> dict[str, Any]:
    spec = pod.pop("spec", {})
    containers = [{"name": "a", "resources": SMALL, **(container or {})}]
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": containers, **pod}}
    return {"kind": kind, "metadata": {"name": "a", "namespace": "shop"}, "spec": {"template": template, **spec}}


def found(rule: str, *documents: dict[str, Any], nodes: tuple[Node, ...] = (CALLER, STORE)) -> tuple[Finding, ...]:
    return verdict(rule, of_manifests(*documents, nodes=nodes)).findings


def sleeping(seconds: int) -> dict[str, Any]:
    return {"lifecycle": {"preStop": {"sleep": {"seconds": seconds}}}}


@pytest.mark.parametrize(
    ("sleep", "count"), [(5, 0), (6, 1)], ids=["30 s for sleep and request", "31 s for sleep and request"]
)
def test_t05_finds_a_grace_period_that_cuts_off_requests(sleep: int, count: int) -> None:
    breaches = found("T05", workload(container=sleeping(sleep)))
    assert [each.arithmetic for each in breaches] == [
        "grace period 30s < 6s of pre-stop sleep + 25s, the longest deadline"
    ] * count


def test_t07_finds_a_liveness_probe_that_checks_dependencies_and_probes_that_overlap() -> None:
    (same,) = found("T07", workload(container={"livenessProbe": READY, "readinessProbe": READY}))
    assert same.path == "shop/a: a.livenessProbe"
    assert found("T07", workload(container={"livenessProbe": LIVE, "readinessProbe": READY})) == ()
    (slow,) = found("T07", workload(container={"readinessProbe": {**READY, "timeoutSeconds": 5, "periodSeconds": 5}}))
    assert (slow.arithmetic[:22], slow.proposal) == ("timeout 5s ≥ period 5s", "4")
    (least,) = found("T07", workload(container={"readinessProbe": {**READY, "periodSeconds": 1}}))
    assert least.proposal == "1"
    assert (
        found("T07", workload(container={"readinessProbe": {**READY, "timeoutSeconds": 4, "periodSeconds": 5}})) == ()
    )


def test_t07_finds_pods_of_a_service_without_a_readiness_probe() -> None:
    selecting = {"kind": "Service", "metadata": {"name": "a", "namespace": "shop"}, "spec": {"selector": {"app": "a"}}}
    (unready,) = found("T07", workload(container={"livenessProbe": LIVE}), selecting)
    assert unready.path == "shop/a: readiness"
    assert found("T07", workload(container={"readinessProbe": READY}), selecting) == ()
    assert found("T07", workload(container={"livenessProbe": LIVE})) == (), "no Service selects the pods"


@pytest.mark.parametrize(
    ("check", "requested"),
    [
        ({"exec": {"command": ["ask", "store"]}}, "ask store"),
        ({"grpc": {"port": 9000, "service": "ready"}}, "ready"),
        ({"grpc": {"port": 9000}}, "grpc"),
        ({"tcpSocket": {"port": 9000}}, None),
    ],
    ids=["exec", "grpc with a service", "grpc", "tcp"],
)
def test_t07_compares_exec_and_grpc_probes_but_not_tcp_probes(check: dict[str, Any], requested: str | None) -> None:
    breaches = found("T07", workload(container={"livenessProbe": check, "readinessProbe": check}))
    assert [each.arithmetic.partition(",")[0] for each in breaches] == (
        [f"liveness and readiness both request {requested}"] if requested else []
    )


def budget(**spec: Any) -> dict[str, Any]:
    selected = {"selector": {"matchLabels": {"app": "a"}}}
    return {"kind": "PodDisruptionBudget", "metadata": {"name": "a", "namespace": "shop"}, "spec": {**selected, **spec}}


def test_a03_finds_a_single_replica_a_missing_budget_and_a_budget_that_blocks_drains() -> None:
    two = workload(spec={"replicas": 2})
    (alone,) = found("A03", workload(spec={"replicas": 1}))
    assert alone.path == "shop/a: replicas"
    batch = CALLER.model_copy(update={"name": "another"})
    assert found("A03", workload(spec={"replicas": 1}), nodes=(batch, STORE)) == (), (
        "no service with an availability target runs in the pods"
    )
    (without,) = found("A03", two)
    assert without.proposal == "maxUnavailable: 1"
    assert found("A03", two, budget(maxUnavailable=1)) == ()
    for blocking in ({"maxUnavailable": 0}, {"maxUnavailable": "0%"}, {"minAvailable": 2}, {"minAvailable": "100%"}):
        assert found("A03", two, budget(**blocking)), blocking
    assert found("A03", two, budget(minAvailable=1)) == ()


@pytest.mark.parametrize(
    ("replicas", "spec", "blocks"),
    [
        (3, {"minAvailable": "67%"}, True),
        (3, {"minAvailable": "66%"}, False),
        (2, {"minAvailable": 3}, True),
        (2, {"minAvailable": "50%"}, False),
        (2, {"maxUnavailable": "1%"}, False),
        (2, {"maxUnavailable": "0"}, True),
        (2, {}, False),
        (1, {"minAvailable": 1}, True),
        (1, {"maxUnavailable": 1}, False),
    ],
    ids=str,
)
def test_a03_finds_a_disruption_budget_that_permits_no_eviction(
    replicas: int, spec: dict[str, Any], blocks: bool
) -> None:
    """Kubernetes rounds percentages up: 67 % of 3 pods are all 3."""
    batch = CALLER.model_copy(update={"name": "another"})
    breaches = found("A03", workload(spec={"replicas": replicas}), budget(**spec), nodes=(batch, STORE))
    assert [each.path for each in breaches] == ["shop/a: disruption budget"] * blocks


@pytest.mark.parametrize(
    ("replicas", "spec", "together"),
    [
        (2, {"maxUnavailable": 2}, True),
        (2, {"maxUnavailable": "51%"}, True),
        (2, {"maxUnavailable": "50%"}, False),
        (2, {"minAvailable": 0}, True),
        (2, {"minAvailable": "0%"}, True),
        (2, {"minAvailable": "1%"}, False),
    ],
    ids=str,
)
def test_a03_finds_a_disruption_budget_that_permits_to_evict_all_pods(
    replicas: int, spec: dict[str, Any], together: bool
) -> None:
    (breach,) = found("A03", workload(spec={"replicas": replicas}), budget(**spec)) or [None]
    assert (breach is not None) == together
    assert breach is None or breach.arithmetic.endswith("drains may evict all of them together")


@pytest.mark.parametrize(
    ("kind", "strategy", "stops"),
    [
        ("Deployment", {"type": "Recreate"}, True),
        ("Deployment", {"type": "RollingUpdate"}, False),
        ("Deployment", {"rollingUpdate": {"maxUnavailable": 3}}, True),
        ("Deployment", {"rollingUpdate": {"maxUnavailable": 2}}, False),
        ("Deployment", {"rollingUpdate": {"maxUnavailable": "100%"}}, True),
        ("Deployment", {"rollingUpdate": {"maxUnavailable": "99%"}}, False),
        ("StatefulSet", {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 3}}, True),
        ("StatefulSet", {"type": "OnDelete"}, False),
    ],
    ids=str,
)
def test_a03_finds_a_rollout_that_stops_every_replica(kind: str, strategy: dict[str, Any], stops: bool) -> None:
    """Kubernetes rounds a percentage of unavailable pods down: 99 % of 3 pods are 2."""
    field = "strategy" if kind == "Deployment" else "updateStrategy"
    one, three = (workload(kind, spec={"replicas": count, field: strategy}) for count in (1, 3))
    assert [each.path for each in found("A03", three, budget(maxUnavailable=1))] == ["shop/a: rollout"] * stops
    batch = CALLER.model_copy(update={"name": "another"})
    assert found("A03", one, nodes=(batch, STORE)) == (), "no availability target needs a second replica"


@pytest.mark.parametrize(
    ("instances", "poolers", "paths"),
    [
        (3, 2, ["stores/store: disruption budget"]),
        (1, 2, ["stores/database: replicas", "stores/store: disruption budget"]),
        (3, 1, ["stores/store: replicas"]),
    ],
    ids=["a pooler without a budget", "one instance", "one pooler"],
)
def test_a03_checks_the_clusters_and_poolers_of_cloudnative_pg(instances: int, poolers: int, paths: list[str]) -> None:
    cluster: dict[str, Any] = {
        "kind": "Cluster",
        "metadata": {"name": "database", "namespace": "stores"},
        "spec": {"instances": instances},
    }
    template = {"metadata": {"labels": {"app": "pooler"}}, "spec": {"containers": []}}
    pooler: dict[str, Any] = {
        "kind": "Pooler",
        "metadata": {"name": "store", "namespace": "stores"},
        "spec": {"cluster": {"name": "database"}, "instances": poolers, "template": template},
    }
    assert [each.path for each in found("A03", cluster, pooler)] == paths
    pooler["spec"] = {**pooler["spec"], "deploymentStrategy": {"type": "Recreate"}}
    recreated = ["stores/store: rollout"] * (poolers > 1)
    assert [each.path for each in found("A03", cluster, pooler)] == paths + recreated


def test_a03_finds_a_workload_without_a_replica() -> None:
    (none,) = found("A03", workload(spec={"replicas": 0}))
    assert none.arithmetic.startswith("no replica with a target of 99.950%")


def test_a03_finds_nothing_in_an_environment_with_one_replica_per_service() -> None:
    dev = WithManifests((CALLER, STORE), (workload(spec={"replicas": 1}),))
    profile = dev.environment.profile.model_copy(update={"service_replicas": "one"})
    dev.environment = dev.environment.model_copy(update={"profile": profile})
    assert verdict("A03", dev).findings == ()


@pytest.mark.parametrize(("sleep", "count"), [(4, 1), (5, 0)], ids=["sleep of 4 s", "sleep of 5 s"])
def test_p01_finds_a_pod_that_stops_before_its_endpoint_is_withdrawn(sleep: int, count: int) -> None:
    selecting = {"kind": "Service", "metadata": {"name": "a", "namespace": "shop"}, "spec": {"selector": {"app": "a"}}}
    assert len(found("P01", workload(container=sleeping(sleep)), selecting)) == count
    assert found("P01", workload(container=sleeping(0))) == (), "no Service selects the pods"


def test_p02_finds_members_that_are_ready_before_they_have_caught_up() -> None:
    store = datastore("a", READ).model_copy(
        update={"addresses": (STORE.addresses[0].model_copy(update={"namespace": "shop", "service": "a"}),)}
    )
    spec = {"replicas": 3}
    alike = workload("StatefulSet", {"livenessProbe": LIVE, "readinessProbe": LIVE}, spec=spec)
    (same,) = found("P02", alike, nodes=(store,))
    assert same.arithmetic.startswith("readiness equals liveness")
    (none,) = found("P02", workload("StatefulSet", spec=spec), nodes=(store,))
    assert none.arithmetic.startswith("no readiness probe")
    for action in ({"tcpSocket": {"port": 1}}, {"exec": {"command": ["ask"]}}, {"grpc": {"port": 1}}):
        other = workload("StatefulSet", {"livenessProbe": LIVE, "readinessProbe": {**LIVE, **action}}, spec=spec)
        assert found("P02", other, nodes=(store,)) == (), action
    apart = workload("StatefulSet", {"livenessProbe": LIVE, "readinessProbe": READY}, spec=spec)
    assert found("P02", apart, nodes=(store,)) == ()
    assert found("P02", alike) == (), "the members of this StatefulSet are independent"
    required: dict[str, Any] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}
    quorum = workload("StatefulSet", spec={**spec, "volumeClaimTemplates": [{}]}, affinity=required)
    assert len(found("P02", quorum)) == 1
    spread = workload("StatefulSet", spec={**spec, "volumeClaimTemplates": [{}]}, affinity={"nodeAffinity": {}})
    assert found("P02", spread) == (), "the members of this StatefulSet may share a node"


def test_p03_finds_a_statefulset_whose_bad_revision_blocks_its_rollback() -> None:
    assert len(found("P03", workload("StatefulSet"))) == 1
    assert found("P03", workload("StatefulSet", spec={"podManagementPolicy": "Parallel"})) == ()
    assert found("P03", workload("StatefulSet", spec={"updateStrategy": {"type": "OnDelete"}})) == ()
    assert len(found("P03", workload("StatefulSet", spec={"updateStrategy": {"type": "RollingUpdate"}}))) == 1


def test_p04_finds_pods_without_a_priority_class() -> None:
    assert len(found("P04", workload())) == 1
    assert found("P04", workload(priorityClassName="core")) == ()
    assert len(found("P04", workload("Job"))) == 1
    of_database = {"metadata": {"name": "database", "namespace": "stores"}}
    spec: dict[str, Any] = {"instances": 3, "priorityClassName": "core"}
    template = {"template": {"spec": {"containers": [], "priorityClassName": "core"}}, "instances": 2}
    for kind, with_class in (("Cluster", spec), ("Pooler", template)):
        assert found("P04", {"kind": kind, **of_database, "spec": with_class}) == ()
    without: dict[str, Any] = {"instances": 2, "template": {"spec": {"containers": []}}}
    for kind in ("Cluster", "Pooler"):
        assert [each.path for each in found("P04", {"kind": kind, **of_database, "spec": without})] == [
            "stores/database"
        ]


def named(document: dict[str, Any], namespace: str, name: str) -> dict[str, Any]:
    return {**document, "metadata": {"name": name, "namespace": namespace}}


def test_t05_takes_the_longest_deadline_of_the_gateway_and_of_a_service_without_calls() -> None:
    routes = [
        operation(f"after-{seconds}s", stage(hard("a.read", "idempotent")), p95="20ms", deadline=f"{seconds}s")
        for seconds in (31, 2)
    ]
    nodes = (gateway(*routes), service("a", READ))
    (cut,) = found("T05", named(workload(), "edge", "gateway"), nodes=nodes)
    assert cut.arithmetic == "grace period 30s < 0s of pre-stop sleep + 31s, the longest deadline"
    brief = operation("brief", stage(hard("a.read", "idempotent")), p95="20ms", deadline="500ms")
    only_sleep = workload(container=sleeping(1), terminationGracePeriodSeconds=1)
    nodes = (gateway(brief), service("a", READ, operation("write", p95="10ms", deadline="40ms")))
    for place, text in ((("edge", "gateway"), "0.5s"), (("shop", "a"), "0.05s")):
        (cut,) = found("T05", named(only_sleep, *place), nodes=nodes)
        assert cut.arithmetic == f"grace period 1s < 1s of pre-stop sleep + {text}, the longest deadline"


def test_t07_proposes_a_timeout_of_at_least_one_second() -> None:
    for period in (1, 2):
        probe = {**READY, "timeoutSeconds": 2, "periodSeconds": period}
        (slow,) = found("T07", workload(container={"readinessProbe": probe}))
        assert slow.proposal == "1"


def test_a03_assumes_one_replica_by_default() -> None:
    scaler = {
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "a", "namespace": "shop"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "a"}, "maxReplicas": 4},
    }
    for documents in ((workload(),), (workload(spec={"replicas": 2}), scaler)):
        assert [each.path for each in found("A03", *documents)] == ["shop/a: replicas"]
    assert found("A03", workload("DaemonSet")) == (), "a DaemonSet runs a pod on each node"


@pytest.mark.parametrize(
    ("kind", "sleep", "count"),
    [("LoadBalancer", 9, 1), ("LoadBalancer", 10, 0), (None, 5, 0)],
    ids=["LoadBalancer, sleep of 9 s", "LoadBalancer, sleep of 10 s", "ClusterIP, sleep of 5 s"],
)
def test_p01_requires_a_sleep_as_long_as_the_ingress_grace_behind_a_load_balancer(
    kind: str | None, sleep: int, count: int
) -> None:
    spec = {"selector": {"app": "a"}, **({"type": kind} if kind else {})}
    balancer = {"kind": "Service", "metadata": {"name": "a", "namespace": "shop"}, "spec": spec}
    balanced = of_manifests(workload(container=sleeping(sleep)), balancer)
    settings = balanced.environment.settings.model_copy(update={"ingress_grace": Duration("10s")})
    balanced.environment = balanced.environment.model_copy(update={"settings": settings})
    assert [each.proposal for each in verdict("P01", balanced).findings] == ["10"] * count
