"""A03, D03, H02, E01 on manifests: replicas, autoscalers, disruption budgets and selectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from components.declaration import Location
from stack.audit.finding import Breach
from stack.audit.manifests.known import on_manifests
from stack.audit.rollouts import blocks_every_drain
from stack.model.manifests.network import own_namespace_peers
from stack.model.manifests.resources import Budget, Selector
from stack.model.manifests.system import Item, System, Workload


def drains_can_proceed(system: System) -> Iterator[Breach | None]:
    """Check that each disruption budget allows drains.

    Also find the workloads behind a Service that have several replicas and no disruption budget.
    """
    governed = set()
    for budget in system.budgets:
        selected = system.selected(budget.spec.selector, budget.namespace)
        governed |= {workload.manifest.identity for workload in selected}
        counts = [system.count(workload) for workload in selected]
        if None not in counts:
            yield _blocked(budget, sum(count for count in counts if count))
    served = {pods.manifest.identity: pods for service in system.services for pods in system.pods_of(service)}
    for identity, workload in served.items():
        count = system.count(workload) or 0
        if count > 1 and identity not in governed:
            text = f"{count} replicas and no PodDisruptionBudget: drains may evict all of them together"
            where = workload.manifest.at("spec", "replicas")
            yield Breach(workload.title, text, "PodDisruptionBudget", "maxUnavailable: 1", where, "warning")


def _blocked(budget: Item[Budget], pods: int) -> Breach | None:
    spec = budget.spec
    if not pods or not blocks_every_drain(spec.min_available, spec.max_unavailable, pods):
        return None
    name = "minAvailable" if spec.max_unavailable is None else "maxUnavailable"
    value = spec.min_available if spec.max_unavailable is None else spec.max_unavailable
    text = f"{name} {value} of {pods} pods: no pod may be evicted, so no node that runs such a pod can be drained"
    return Breach(budget.title, text, name, "maxUnavailable: 1", budget.at(name))


def autoscalers_can_work(system: System) -> Iterator[Breach | None]:
    """Check that each autoscaler's target exists, requests the measured resources and sets no `replicas`."""
    for autoscaler in system.autoscalers:
        target = autoscaler.spec.scale_target_ref
        workload = system.scaled(autoscaler)
        if workload is None:
            text = f"no manifest defines {target.kind} {target.name}, which the autoscaler must scale"
            yield Breach(autoscaler.title, text, "scaleTargetRef", "", autoscaler.at("scaleTargetRef"), "warning")
            continue
        yield from (_without_request(workload, resource) for resource in autoscaler.spec.utilization_of)
        where = workload.manifest.at("spec", "replicas")
        text = f"each apply sets {workload.spec.replicas} replicas and overwrites the count of {autoscaler.title}"
        beside = Breach(workload.title, text, "replicas", "leave it out", where)
        yield None if workload.spec.replicas is None else beside


def _without_request(workload: Workload, resource: str) -> Breach | None:
    """The breach of a container without a request for the resource. The autoscaler then does not scale the pods."""
    for place, index, container in workload.containers:
        if place == "containers" and not container.resources.requested(resource):
            text = f"the container requests no {resource}, so the autoscaler cannot compute the utilization"
            return Breach(
                f"{workload.title} → {container.name}",
                text,
                f"resources.requests.{resource}",
                "",
                workload.at(place, index),
            )
    return None


def metrics_exclude_sidecars(system: System) -> Iterator[Breach | None]:
    """Find autoscalers whose metric is the sum over several containers of a pod."""
    for workload in system.workloads:
        autoscaler = system.autoscaler_of(workload)
        if autoscaler is None or not autoscaler.spec.utilization_of:
            continue
        containers = [container.name for container in workload.template.spec.containers]
        resources = ", ".join(autoscaler.spec.utilization_of)
        text = f"the utilization of {resources} is the sum over the containers {', '.join(containers)}"
        summed = Breach(workload.title, text, "metrics", "a metric of type ContainerResource", autoscaler.at("metrics"))
        yield summed if len(containers) > 1 else None


def policies_select_pods(system: System) -> Iterator[Breach | None]:
    """Find NetworkPolicies and budgets whose selector selects no pod, and rules that admit no pod."""
    for item, selector, field, idle, where in _selectors(system):
        labels = f" → {selector.text}" if selector else ""
        found = Breach(f"{item.title}{labels}", idle, field, "", where, "warning")
        yield None if system.selected(selector, item.namespace) else found


def _selectors(system: System) -> Iterator[tuple[Item[Any], Selector | None, str, str, Location]]:
    """Every selector: its object, the selector, the name and the fault of its field, and the line of its field.

    The fault applies if no pod matches.
    """
    for policy in (each for each in system.network_policies if system.is_complete(each.namespace)):
        idle = "podSelector selects no pod of these manifests: the policy protects nothing"
        yield policy, policy.spec.pod_selector, "podSelector", idle, policy.at("podSelector")
        for peer, where in own_namespace_peers(policy):
            idle = f"a rule admits pods with {peer.text}, but no manifest has such a pod"
            yield policy, peer, "podSelector", idle, where
    for budget in (each for each in system.budgets if system.is_complete(each.namespace)):
        idle = "selector selects no pod of these manifests: the budget limits no drain"
        yield budget, budget.spec.selector, "selector", idle, budget.at("selector")


RULES = (
    on_manifests("A03", drains_can_proceed),
    on_manifests("D03", autoscalers_can_work),
    on_manifests("H02", metrics_exclude_sidecars),
    on_manifests("E01", policies_select_pods),
)
