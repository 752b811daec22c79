"""T05, T07, A03, P01 to P04: termination, probes, drains, updates and eviction of pods."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from components.node import Caller, Dependency, InCluster
from stack.audit.finding import Breach, Rule
from stack.audit.rendered import PROBES, Rendered, Workload, rendered
from stack.model.platform import Platform

PROBE_PERIOD, PROBE_TIMEOUT = 10, 1
"""Kubernetes' defaults of a probe, in seconds."""
WITHDRAWAL = 5
"""Seconds until kube-proxy and other proxies have removed a pod's endpoint (kubernetes#85643)."""
AMOUNT = re.compile(r"(\d{1,9})(%?)")
"""Pods of a disruption budget: a number or a percentage."""
PROMISED = 0.999
"""Lowest availability target that needs two replicas. A single replica is down during every rollout, drain and crash.
"""


def grace_periods_cover_requests(platform: Platform) -> Iterator[Breach | None]:
    """Compare the grace period of each service and of the gateway with their longest request."""
    longest = _longest_requests(platform)
    for workload in rendered(platform).workloads:
        request = longest.get((workload.namespace, workload.name))
        if request is not None:
            needed = workload.pre_stop + request
            text = (
                f"grace period {workload.grace}s < {workload.pre_stop}s of pre-stop sleep + {request:g}s, the longest"
                " deadline"
            )
            found = Breach(workload.path, text, "terminationGracePeriodSeconds", f"{needed:g}s")
            yield found if workload.grace < needed else None


def _longest_requests(platform: Platform) -> dict[tuple[str, str], float]:
    """Namespace and name of a workload → its longest deadline in seconds."""
    return {
        (node.namespace, node.name): max(operation.deadline.seconds for operation in node.operations)
        for node in platform.graph.nodes.values()
        if isinstance(node, Caller) and node.operations
    }


def liveness_checks_only_the_process(platform: Platform) -> Iterator[Breach | None]:
    """Check that no caller's liveness probe equals its readiness probe.

    Also check that each probe's timeout is shorter than its period. Pods behind a Service must have a readiness probe.
    """
    found = rendered(platform)
    depending = {(edge.caller.namespace, edge.caller.name) for edge in platform.graph.edges}
    for workload in found.workloads:
        ready = any("readinessProbe" in container for container in workload.pod["containers"])
        if any(found.selecting("Service", workload)):
            text = "no readiness probe: during a rollout Services send requests to pods that cannot answer yet"
            yield None if ready else Breach(f"{workload.path}: readiness", text, "readinessProbe")
        for container in workload.pod["containers"]:
            place = f"{workload.path}: {container['name']}"
            if (workload.namespace, workload.name) in depending:
                yield from _alike(place, container)
            for name in PROBES:
                yield _overlapping(f"{place}.{name}", container[name]) if name in container else None


def _alike(place: str, container: Mapping[str, Any]) -> Iterator[Breach | None]:
    """Compare the liveness check with the readiness check.

    TCP checks may be equal, because a TCP check reaches no dependency.
    """
    for action in ("httpGet", "grpc", "exec"):
        liveness, readiness = (container.get(probe, {}).get(action) for probe in PROBES[1:])
        if liveness:
            asked = liveness.get("path") or liveness.get("service") or " ".join(liveness.get("command", (action,)))
            text = (
                f"liveness and readiness both request {asked}, which checks dependencies:"
                " if a dependency fails, kubelet restarts every pod of its callers"
            )
            found = Breach(f"{place}.livenessProbe", text, f"livenessProbe.{action}", "a check of the process alone")
            yield found if liveness == readiness else None


def _overlapping(path: str, probe: Mapping[str, Any]) -> Breach | None:
    timeout, period = probe.get("timeoutSeconds", PROBE_TIMEOUT), probe.get("periodSeconds", PROBE_PERIOD)
    text = f"timeout {timeout}s ≥ period {period}s: the next probe is due while a slow probe may still run"
    return Breach(path, text, "timeoutSeconds", f"{max(1, period - 1)}") if timeout >= period else None


def _replicas(found: Rendered, workload: Workload) -> int:
    scaled = found.autoscalers.get((workload.namespace, workload.name))
    return int(scaled.get("minReplicas", 1) if scaled else workload.spec.get("replicas", 1))


def pods_stop_one_by_one(platform: Platform) -> Iterator[Breach | None]:
    """Check that a workload with a target of at least `PROMISED` has at least two replicas.

    Also check that neither a rollout nor drains stop all replicas together, and that every disruption budget permits
    an eviction.
    """
    found, promised = rendered(platform), _availability_targets(platform)
    for workload in _replicated(found):
        replicas, budgets = _replicas(found, workload), list(found.selecting("PodDisruptionBudget", workload))
        if replicas <= 1:
            target = promised.get((workload.namespace, workload.name), 0)
            text = f"{replicas or 'no'} replica with a target of {target:.3%} ≥ {PROMISED:.1%}"
            text += ": nothing serves while its pod is replaced"
            yield Breach(f"{workload.path}: replicas", text, "replicas", "2") if target >= PROMISED else None
        else:
            yield _evicted_together(workload, replicas, [budget["spec"] for budget in budgets])
            yield _replaced_together(workload, replicas)
        yield from (_blocks(workload, replicas, budget["spec"]) for budget in budgets)


def _replicated(found: Rendered) -> Iterator[Workload]:
    """Deployments and StatefulSets, and the poolers and clusters of CloudNativePG in the same form."""
    yield from (each for each in found.workloads if each.kind != "DaemonSet")
    for kind in ("Cluster", "Pooler"):
        for each in found.of_kind(kind):
            metadata, spec = each["metadata"], each["spec"]
            # The operator itself creates the disruption budget of a cluster with several instances.
            if kind == "Pooler" or spec["instances"] == 1:
                strategy = spec.get("deploymentStrategy", {})
                form = {"template": {}, **spec, "replicas": spec["instances"], "strategy": strategy}
                yield Workload(kind, metadata["namespace"], metadata["name"], form)


def _availability_targets(platform: Platform) -> dict[tuple[str, str], float]:
    """Namespace and name of a workload → its availability target. Empty if each service has only one replica."""
    if platform.environment.profile.service_replicas == "one":
        return {}
    targets = platform.site.own_availability
    services = {(each.namespace, each.name): float(targets[each.tier]) for each in platform.graph.services}
    stores = _stores(platform)
    clusters = {
        (place[0], pooler["spec"]["cluster"]["name"]): stores[place]
        for pooler in rendered(platform).of_kind("Pooler")
        if (place := (pooler["metadata"]["namespace"], pooler["metadata"]["name"])) in stores
    }
    return {**clusters, **stores, **services}


def _stores(platform: Platform) -> dict[tuple[str, str], float]:
    """Namespace and name of the Service of a dependency in the cluster → the dependency's availability."""
    return {
        (place.namespace, place.service): float(node.availability)
        for node in platform.graph.nodes.values()
        if isinstance(node, Dependency)
        for place in node.addresses
        if isinstance(place, InCluster)
    }


def blocks_every_drain(min_available: int | str | None, max_unavailable: int | str | None, pods: int) -> bool:
    """True if a disruption budget permits no eviction. Kubernetes rounds both percentages up."""
    least, most = _pods(min_available, pods), _pods(max_unavailable, pods)
    return most == 0 if most is not None else least is not None and least >= pods


def _pods(amount: int | str | None, pods: int, *, round_up: bool = True) -> int | None:
    """The pods that `amount` stands for: a number, or a percentage of `pods`. `None` if it is neither."""
    found = AMOUNT.fullmatch(str(amount))
    return None if found is None else (int(found[1]) * pods + 99 * round_up) // 100 if found[2] else int(found[1])


def _evicted_together(workload: Workload, replicas: int, budgets: list[Mapping[str, Any]]) -> Breach | None:
    """A breach if drains may evict all replicas together, because no disruption budget keeps one of them."""
    if any(_keeps_a_pod(budget, replicas) for budget in budgets):
        return None
    without = "with a PodDisruptionBudget that permits every eviction" if budgets else "without a PodDisruptionBudget"
    text = f"{replicas} replicas {without}: drains may evict all of them together"
    return Breach(f"{workload.path}: disruption budget", text, "PodDisruptionBudget", "maxUnavailable: 1")


def _keeps_a_pod(budget: Mapping[str, Any], replicas: int) -> bool:
    least, most = (_pods(budget.get(name), replicas) for name in ("minAvailable", "maxUnavailable"))
    return most < replicas if most is not None else least != 0


def _replaced_together(workload: Workload, replicas: int) -> Breach | None:
    """A breach if a rollout stops every replica before a new replica is ready."""
    strategy = workload.spec.get("strategy", workload.spec.get("updateStrategy", {}))
    most = strategy.get("rollingUpdate", {}).get("maxUnavailable")
    recreated = strategy.get("type") == "Recreate"
    text = "strategy Recreate" if recreated else f"maxUnavailable {most}"
    text += f": a rollout stops all {replicas} replicas before a new one is ready"
    stopped = replicas if recreated else _pods(most, replicas, round_up=False) or 0
    found = Breach(f"{workload.path}: rollout", text, "rollingUpdate.maxUnavailable", "1")
    return found if stopped >= replicas else None


def _blocks(workload: Workload, replicas: int, budget: Mapping[str, Any]) -> Breach | None:
    blocks = blocks_every_drain(budget.get("minAvailable"), budget.get("maxUnavailable"), replicas)
    text = f"the budget allows no eviction of the {replicas} replicas: no node that runs a replica can be drained"
    return Breach(f"{workload.path}: disruption budget", text, "maxUnavailable", "1") if blocks else None


def pre_stop_outlasts_endpoint_removal(platform: Platform) -> Iterator[Breach | None]:
    """Compare the preStop sleep of every pod behind a Service with the time until proxies have removed the pod."""
    found, ingress = rendered(platform), platform.environment.settings.ingress_grace.seconds
    for workload in found.workloads:
        behind = list(found.selecting("Service", workload))
        if behind:
            balanced = any(service["spec"].get("type") == "LoadBalancer" for service in behind)
            needed = max(WITHDRAWAL, ingress) if balanced else WITHDRAWAL
            text = f"pre-stop sleep {workload.pre_stop}s < {needed:g}s until proxies open no new connection to the pod"
            breach = Breach(workload.path, text, "lifecycle.preStop.sleep.seconds", f"{needed:g}")
            yield breach if workload.pre_stop < needed else None


def rollouts_wait_for_members(platform: Platform) -> Iterator[Breach | None]:
    """Check that the readiness probe of each store member differs from its liveness probe.

    Only such a readiness probe makes a rollout wait until the member has caught up.
    """
    found, stores = rendered(platform), _stores(platform)
    for workload in found.workloads:
        if workload.kind != "StatefulSet" or _replicas(found, workload) == 1:
            continue
        if (workload.namespace, workload.name) not in stores and not _is_quorum(workload):
            continue
        container = workload.pod["containers"][0]
        readiness, liveness = container.get("readinessProbe"), container.get("livenessProbe")
        action = {"httpGet", "tcpSocket", "exec", "grpc"}
        alike = liveness and all((readiness or {}).get(name) == liveness.get(name) for name in action)
        why = "no readiness probe" if not readiness else "readiness equals liveness" if alike else ""
        text = f"{why}: a rollout replaces the next member before the replaced one has caught up"
        yield Breach(workload.path, text, "readinessProbe", "a check of the cluster's state") if why else None


def _is_quorum(workload: Workload) -> bool:
    """True if the pods keep data and never share a host, as the members of a quorum do."""
    affinity = workload.pod.get("affinity", {}).get("podAntiAffinity", {})
    return "volumeClaimTemplates" in workload.spec and "requiredDuringSchedulingIgnoredDuringExecution" in affinity


def can_roll_back(platform: Platform) -> Iterator[Breach | None]:
    """Check that a StatefulSet can replace a pod that is not ready: a broken pod may never become ready."""
    for workload in rendered(platform).workloads:
        by_hand = workload.spec.get("updateStrategy", {}).get("type") == "OnDelete"
        if workload.kind == "StatefulSet" and not by_hand:
            policy = workload.spec.get("podManagementPolicy", "OrderedReady")
            text = f"podManagementPolicy {policy}: a pod that never becomes ready blocks its own rollback"
            found = Breach(workload.path, text, "podManagementPolicy", "Parallel")
            yield found if policy == "OrderedReady" else None


def pods_have_a_priority_class(platform: Platform) -> Iterator[Breach | None]:
    """Check that every pod has a priority class."""
    found = rendered(platform)
    pods = [(workload.path, workload.pod) for workload in found.pods]
    pods += [(_path(cluster), cluster["spec"]) for cluster in found.of_kind("Cluster")]
    pods += [(_path(pooler), pooler["spec"]["template"]["spec"]) for pooler in found.of_kind("Pooler")]
    for path, pod in pods:
        text = "no priority class: under node pressure kubelet may evict the pod before it evicts a batch job"
        yield None if pod.get("priorityClassName") else Breach(path, text, "priorityClassName")


def _path(resource: Mapping[str, Any]) -> str:
    return f"{resource['metadata']['namespace']}/{resource['metadata']['name']}"


RULES = (
    Rule(
        id="T05",
        title="pods finish their requests before they stop",
        severity="error",
        rationale="a rollout cuts off every request that still runs when the grace period ends",
        source="Kubernetes, Termination of Pods",
        violates="a grace period of 30s, a preStop sleep of 5s and a deadline of 26s",
        holds="a grace period of 31s with the same sleep and deadline",
        check=grace_periods_cover_requests,
    ),
    Rule(
        id="T07",
        title="liveness checks only the process, pods of Services have a readiness probe, and probes do not overlap",
        severity="error",
        rationale="if liveness checks a dependency and the dependency fails, kubelet restarts every pod of its callers",
        source="Kubernetes, Configure Liveness, Readiness and Startup Probes",
        violates="liveness and readiness both request /ready",
        holds="liveness requests /health, readiness requests /ready",
        check=liveness_checks_only_the_process,
    ),
    Rule(
        id="A03",
        title="the loss of one pod breaks no availability target, and neither a rollout nor drains stop all pods",
        severity="error",
        rationale="a single replica is down during every drain; without a budget drains evict all replicas together",
        source="Kubernetes, Specifying a Disruption Budget; Deployments, Strategy",
        violates="1 replica with a target of 99.9%",
        holds="2 replicas with the same target, and maxUnavailable: 1",
        check=pods_stop_one_by_one,
    ),
    Rule(
        id="P01",
        title="pods serve until no proxy sends them requests",
        severity="error",
        rationale="a pod that stops before proxies remove its endpoint refuses connections during every rollout",
        source="kubernetes#85643; envoy#14981",
        violates="a pod behind a Service with a preStop sleep of 4s",
        holds="the same pod with a preStop sleep of 5s",
        check=pre_stop_outlasts_endpoint_removal,
    ),
    Rule(
        id="P02",
        title="a rollout waits until a member of a store has caught up",
        severity="error",
        rationale="if two members are behind at the same time, the store loses its quorum or the latest writes",
        source="elastic/helm-charts#917",
        violates="three members with volumes, whose readiness probe equals their liveness probe",
        holds="the same members with a readiness probe that checks the state of their cluster",
        check=rollouts_wait_for_members,
    ),
    Rule(
        id="P03",
        title="a bad revision of a StatefulSet can be rolled back",
        severity="warning",
        rationale="with OrderedReady the rollback waits for the broken pod until somebody deletes the pod by hand",
        source="kubernetes#67250",
        violates="podManagementPolicy: OrderedReady, which is the default",
        holds="podManagementPolicy: Parallel",
        check=can_roll_back,
    ),
    Rule(
        id="P04",
        title="every pod has a priority class",
        severity="warning",
        rationale="without priority classes kubelet may evict a store before it evicts a batch job",
        source="helm/charts#24429",
        violates="a pod without priorityClassName",
        holds="the same pod with priorityClassName: core",
        check=pods_have_a_priority_class,
    ),
)
