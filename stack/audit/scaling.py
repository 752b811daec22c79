"""D03, H01, H02: autoscalers that cannot scale, or that use the wrong metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from voice_policies import Bytes

from components.mesh.proxy import INJECT_LABEL
from components.node import Service
from stack.audit.finding import Breach, Rule
from stack.audit.rendered import Workload, rendered
from stack.audit.timeouts import critical_path
from stack.model.platform import Platform
from stack.model.pod_demand import requests

KEEPS_MEMORY = {"python"}
"""Languages whose processes return little memory to the system: CPython keeps its arenas."""
WAITING = 0.8
"""Share of an operation's P95 that its calls take. At or above this share CPU is a poor measure of load."""


def _scaled(platform: Platform) -> Iterator[tuple[Workload, Mapping[str, Any]]]:
    found = rendered(platform)
    autoscalers = found.autoscalers
    for workload in found.workloads:
        if spec := autoscalers.get((workload.namespace, workload.name)):
            yield workload, spec


class Metric(NamedTuple):
    """A resource metric of an autoscaler."""

    type: str
    resource: str
    container: str
    """Empty for a metric of the whole pod."""
    target: Mapping[str, Any]


def _metrics(spec: Mapping[str, Any]) -> Iterator[Metric]:
    for metric in spec.get("metrics", ()):
        source = metric.get("resource") or metric.get("containerResource")
        if source:
            yield Metric(metric["type"], source["name"], source.get("container", ""), source["target"])


def can_scale(platform: Platform) -> Iterator[Breach | None]:
    """Check that pods have the containers and requests that their autoscaler needs.

    Also check that only the autoscaler sets the number of replicas.
    """
    yield from _targets(platform)
    services = {(service.namespace, service.name): service for service in platform.graph.services}
    for workload, spec in _scaled(platform):
        if "replicas" in workload.spec:
            text = (
                f"the manifest sets replicas: {workload.spec['replicas']}, so each apply resets the autoscaler's count"
            )
            yield Breach(f"{workload.path}: replicas", text, "spec.replicas", "leave it out")
        for _, resource, container, _ in _metrics(spec):
            without = [
                each["name"]
                for each in workload.pod["containers"]
                if container in {"", each["name"]} and resource not in requests(each)
            ]
            text = (
                f"the autoscaler needs a request for {resource}, but these containers have none: {', '.join(without)}"
            )
            field = f"resources.requests.{resource}"
            yield Breach(f"{workload.path}: requests", text, field) if without else None
            if container and container not in {each["name"] for each in workload.pod["containers"]}:
                text = f"the autoscaler measures the container {container}, which the pod does not have"
                yield Breach(f"{workload.path}: metrics", text, "spec.metrics[].containerResource.container")
            if resource == "cpu" and (service := services.get((workload.namespace, workload.name))):
                yield _waits(platform, workload, service)


def _targets(platform: Platform) -> Iterator[Breach | None]:
    """Check that the workload that each autoscaler scales exists."""
    found = rendered(platform)
    known = {(workload.kind, workload.namespace, workload.name) for workload in found.workloads}
    for autoscaler in found.of_kind("HorizontalPodAutoscaler"):
        metadata, target = autoscaler["metadata"], autoscaler["spec"]["scaleTargetRef"]
        namespace = metadata.get("namespace", "default")
        text = f"nothing renders the {target['kind']} {target['name']}, which the autoscaler must scale"
        lost = Breach(f"HorizontalPodAutoscaler {namespace}/{metadata['name']}", text, "spec.scaleTargetRef")
        yield None if (target["kind"], namespace, target["name"]) in known else lost


def _waits(platform: Platform, workload: Workload, service: Service) -> Breach | None:
    """The finding for a service that scales on CPU, although every operation spends most of its P95 in calls."""
    graph = platform.graph
    shares = [critical_path(graph, service, each) / each.latency for each in service.operations if each.latency]
    if not shares or min(shares) < WAITING:
        return None
    text = f"the operations spend at least {min(shares):.0%} of their P95 in calls, so CPU may stay low at full load"
    field = f"the metric of {service.name}'s autoscaler: requests in flight instead of CPU"
    return Breach(f"{workload.path}: cpu", text, field, "", service.location, "info")


def memory_metrics_can_scale_in(platform: Platform) -> Iterator[Breach | None]:
    """Check that no autoscaler scales on memory that an idle process still uses."""
    services = {(service.namespace, service.name): service for service in platform.graph.services}
    for workload, spec in _scaled(platform):
        service = services.get((workload.namespace, workload.name))
        targets = [metric.target for metric in _metrics(spec) if metric.resource == "memory"]
        yield _keeps_memory(workload, service, targets) if service and targets else None


def _keeps_memory(workload: Workload, service: Service, targets: list[Mapping[str, Any]]) -> Breach | None:
    if service.language in KEEPS_MEMORY:
        text = (
            f"the autoscaler uses memory, but a {service.language} process returns little memory after a peak,"
            " so the replicas may never decrease"
        )
        return Breach(workload.path, text, "spec.metrics", "cpu")
    if (resident := service.resident_memory) is None:
        return None
    threshold, arithmetic = min(_threshold(workload, target) for target in targets)
    text = f"the autoscaler adds replicas above {arithmetic} of memory, and a replica without load uses {resident}"
    found = Breach(workload.path, text, "spec.metrics[].target", f"at least {resident}", service.location)
    return found if threshold < resident else None


def _threshold(workload: Workload, target: Mapping[str, Any]) -> tuple[Bytes, str]:
    """Memory of one replica above which the autoscaler adds replicas, with its arithmetic."""
    if "averageValue" in target:
        return Bytes(target["averageValue"]), target["averageValue"]
    # Our components put the program first, before its sidecars.
    request = Bytes(requests(workload.pod["containers"][0]).get("memory", "0"))
    percent: int = target["averageUtilization"]
    return request * (percent / 100), f"{percent}% × {request}"


def metrics_exclude_sidecars(platform: Platform) -> Iterator[Breach | None]:
    """Check that no autoscaler includes the usage of a sidecar."""
    for workload, spec in _scaled(platform):
        sidecar = len(workload.pod["containers"]) > 1 or workload.labels.get(INJECT_LABEL) == "true"
        whole = [resource for kind, resource, *_ in _metrics(spec) if kind == "Resource"]
        text = f"a metric of type Resource ({', '.join(whole)}) includes the sidecar's usage and requests"
        found = Breach(workload.path, text, "spec.metrics[].type", "ContainerResource")
        yield found if sidecar and whole else None


RULES = (
    Rule(
        id="D03",
        title="pods have the containers and requests that their autoscaler needs, and nothing else sets the replicas",
        severity="error",
        rationale="without requests an autoscaler does nothing; an apply that sets replicas undoes the scaling",
        source="pulumi-kubernetes#2491; Kubernetes, Horizontal Pod Autoscaling",
        violates="a Deployment that sets replicas: 3 and has an autoscaler",
        holds="the same Deployment without replicas",
        check=can_scale,
    ),
    Rule(
        id="H01",
        title="no autoscaler scales on memory that the process keeps after a peak or needs without load",
        severity="warning",
        rationale="memory that is in use after a peak, or without any load, keeps the replicas at their maximum",
        source="ingress-nginx#10371",
        violates="a Python service that scales on memory",
        holds="the same service with an autoscaler on CPU only",
        check=memory_metrics_can_scale_in,
    ),
    Rule(
        id="H02",
        title="an autoscaler measures only the program's container",
        severity="warning",
        rationale="an idle sidecar hides a busy program, and a busy sidecar adds replicas of an idle program",
        source="kubernetes#86349",
        violates="a metric of type Resource in pods with a mesh proxy",
        holds="a metric of type ContainerResource in the same pods",
        check=metrics_exclude_sidecars,
    ),
)
