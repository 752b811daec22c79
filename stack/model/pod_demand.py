"""The demand of the rendered workloads: the number of their pods, and the requests and limits of each pod."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from voice_policies import Bytes, Cpu

from components.mesh.proxy import SIZE_ANNOTATION

__all__ = ["DEFAULT_GRACE", "EXPECTED", "SURGE", "Amounts", "Demand", "Scale", "demands", "requests"]

EXPECTED = 0.15
"""A workload is assumed to run minimum + EXPECTED × (maximum − minimum) pods on average."""
SURGE = 1
"""Pods that a rollout adds to a Deployment (`maxSurge`). A StatefulSet stops a pod before it starts the next."""


DEFAULT_GRACE = 30
"""Grace period in seconds if the pod does not set one (Kubernetes' default)."""
NO_CPU, NO_MEMORY = Cpu("0"), Bytes("0")


@dataclass(frozen=True, slots=True)
class Amounts:
    """CPU and memory: requests and limits."""

    cpu_requests: Cpu = NO_CPU
    cpu_limits: Cpu = NO_CPU
    memory_requests: Bytes = NO_MEMORY
    memory_limits: Bytes = NO_MEMORY

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.cpu_requests + other.cpu_requests,
            self.cpu_limits + other.cpu_limits,
            self.memory_requests + other.memory_requests,
            self.memory_limits + other.memory_limits,
        )

    def times(self, count: float) -> Amounts:
        """The amounts of several pods. A mean number of pods may be a fraction."""
        return Amounts(
            self.cpu_requests * count, self.cpu_limits * count, self.memory_requests * count, self.memory_limits * count
        )

    def at_least(self, other: Amounts) -> Amounts:
        """The larger value of each amount, because an init container ends before the other containers start."""
        return Amounts(
            max(self.cpu_requests, other.cpu_requests),
            max(self.cpu_limits, other.cpu_limits),
            max(self.memory_requests, other.memory_requests),
            max(self.memory_limits, other.memory_limits),
        )


class Scale(NamedTuple):
    """The range of a workload's pods."""

    minimum: int
    maximum: int

    @property
    def expected(self) -> float:
        """Mean number of pods."""
        return self.minimum + EXPECTED * (self.maximum - self.minimum)


@dataclass(frozen=True, slots=True)
class Demand:
    """A workload's pods: their number, and the requests and limits of each."""

    namespace: str
    name: str
    scale: Scale
    """The range that the autoscaler allows; without an autoscaler, the declared number. A Job has a pod only while it
    runs, so its minimum is 0."""
    surge: int
    """Pods that a rollout adds."""
    stopping: int
    """Maximum number of replaced pods that are stopping at one time. The quota counts a pod until it has stopped."""
    each: Amounts

    @property
    def pods(self) -> int:
        """Maximum number of pods at one time, with a rollout's surge and without stopping pods."""
        return self.scale.maximum + self.surge


def demands(resources: Iterable[Mapping[str, Any]], nodes: int) -> Iterator[Demand]:
    """The demand of every workload; a DaemonSet has a pod on each of the `nodes`."""
    autoscaled: dict[tuple[str, str, str], Scale] = {}
    archivers: dict[tuple[str, str], Amounts] = {}
    # Only the demand of a workload is kept, so that its rendered resources can be freed.
    asked: list[tuple[tuple[str, str, str], Scale, int, int, Amounts, frozenset[str]]] = []
    for resource in resources:
        kind, metadata, spec = resource["kind"], resource["metadata"], resource.get("spec", {})
        if kind == "HorizontalPodAutoscaler":
            scaled = spec["scaleTargetRef"]
            autoscaled[scaled["kind"], metadata["namespace"], scaled["name"]] = Scale(
                spec.get("minReplicas", 1), spec["maxReplicas"]
            )
        elif kind == "ObjectStore":
            archivers[metadata["namespace"], metadata["name"]] = _of_container(spec["instanceSidecarConfiguration"])
        elif kind in _PODS:
            place = kind, metadata.get("namespace", ""), metadata["name"]
            scale, surge, each = _PODS[kind](spec, nodes)
            overlapping = _overlapping(spec) if kind == "Deployment" else 0
            asked.append((place, scale, surge, overlapping, each, _archives(spec)))
    for (kind, namespace, name), declared, surge, overlapping, each, stores in asked:
        beside = (archivers.get((namespace, store), Amounts()) for store in stores)
        scale = autoscaled.get((kind, namespace, name), declared)
        yield Demand(namespace, name, scale, surge, min(scale.maximum, overlapping), sum(beside, each))


def _overlapping(spec: Mapping[str, Any]) -> int:
    """Pods that a rollout stops within one grace period.

    A rollout stops one pod each time that a new pod becomes available. A new pod needs at least `minReadySeconds` to
    become available. For a Deployment without them, or with less than 1 s, this function assumes 1 s.
    """
    grace: int = spec["template"]["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE)
    ready: int = spec.get("minReadySeconds", 0)
    return math.ceil(grace / max(1, ready))


def _archives(spec: Mapping[str, Any]) -> frozenset[str]:
    """The object stores of a database's archive. The operator adds a container for each store to every instance."""
    return frozenset(plugin["parameters"]["barmanObjectName"] for plugin in spec.get("plugins", ()))


def _fixed(pods: int) -> Scale:
    return Scale(pods, pods)


_PODS: dict[str, Callable[[Mapping[str, Any], int], tuple[Scale, int, Amounts]]] = {
    "Deployment": lambda spec, _: (_fixed(spec.get("replicas", 1)), SURGE, _of_template(spec["template"])),
    "StatefulSet": lambda spec, _: (_fixed(spec.get("replicas", 1)), 0, _of_template(spec["template"])),
    "DaemonSet": lambda spec, nodes: (_fixed(nodes), 0, _of_template(spec["template"])),
    "Job": lambda spec, _: (Scale(0, 1), 0, _of_template(spec["template"])),
    "CronJob": lambda spec, _: (Scale(0, 1), 0, _of_template(spec["jobTemplate"]["spec"]["template"])),
    # CloudNativePG adds a pod while an instance joins the cluster or is restored.
    "Cluster": lambda spec, _: (_fixed(spec["instances"]), SURGE, _of_container(spec)),
    # The pooler's rollout stops a pod before it starts the next (`maxSurge: 0`).
    "Pooler": lambda spec, _: (_fixed(spec["instances"]), 0, _of_template(spec["template"])),
}
"""Scale, surge and amounts for every kind that has pods."""


def _of_template(template: Mapping[str, Any]) -> Amounts:
    annotations = template.get("metadata", {}).get("annotations", {})
    running = sum((_of_container(each) for each in template["spec"]["containers"]), _of_mesh_proxy(annotations))
    for first in template["spec"].get("initContainers", ()):
        running = running.at_least(_of_container(first))
    return running


def requests(container: Mapping[str, Any]) -> Mapping[str, str]:
    """The requests of a container. Kubernetes requests the limit of a resource that has no request."""
    resources = container.get("resources", {})
    return {**resources.get("limits", {}), **resources.get("requests", {})}


def _of_container(container: Mapping[str, Any]) -> Amounts:
    requested, limits = requests(container), container.get("resources", {}).get("limits", {})
    return Amounts(
        Cpu(requested.get("cpu", "0")),
        Cpu(limits.get("cpu", "0")),
        Bytes(requested.get("memory", "0")),
        Bytes(limits.get("memory", "0")),
    )


def _of_mesh_proxy(annotations: Mapping[str, str]) -> Amounts:
    if f"{SIZE_ANNOTATION}CPU" not in annotations:
        return Amounts()
    return Amounts(
        Cpu(annotations[f"{SIZE_ANNOTATION}CPU"]),
        Cpu(annotations[f"{SIZE_ANNOTATION}CPULimit"]),
        Bytes(annotations[f"{SIZE_ANNOTATION}Memory"]),
        Bytes(annotations[f"{SIZE_ANNOTATION}MemoryLimit"]),
    )
