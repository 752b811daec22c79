"""The rendered resources for the rules. They are collected once, because rendering is the slowest step."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from stack.model.platform import Platform
from stack.model.pod_demand import DEFAULT_GRACE, Demand, demands

if TYPE_CHECKING:
    from components.component import Resource


__all__ = ["rendered"]

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
CONTROLLERS = ("Deployment", "StatefulSet", "DaemonSet")


@dataclass(frozen=True, slots=True)
class Workload:
    """A resource that starts pods."""

    kind: str
    namespace: str
    name: str
    spec: Mapping[str, Any]

    @property
    def path(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def pod(self) -> Mapping[str, Any]:
        """The spec of each pod."""
        pod: Mapping[str, Any] = self.spec["template"]["spec"]
        return pod

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of each pod."""
        labels: Mapping[str, str] = self.spec["template"].get("metadata", {}).get("labels", {})
        return labels

    @property
    def grace(self) -> int:
        """Seconds from the start of termination until kubelet kills the pod."""
        return int(self.pod.get("terminationGracePeriodSeconds", DEFAULT_GRACE))

    @property
    def pre_stop(self) -> int:
        """Longest preStop sleep of its containers, in seconds. SIGTERM follows the sleep."""
        hooks = (container.get("lifecycle", {}).get("preStop", {}) for container in self.pod["containers"])
        return max((int(hook.get("sleep", {}).get("seconds", 0)) for hook in hooks), default=0)


@dataclass(frozen=True)
class Rendered:
    """Every resource of an environment, and the capacity that the workloads request."""

    by_kind: Mapping[str, Sequence[Mapping[str, Any]]]
    demands: tuple[Demand, ...]

    @property
    def everything(self) -> Iterator[Mapping[str, Any]]:
        """Every resource."""
        return chain.from_iterable(self.by_kind.values())

    def of_kind(self, kind: str) -> Sequence[Mapping[str, Any]]:
        """The resources of one kind."""
        return self.by_kind.get(kind, ())

    @property
    def workloads(self) -> Iterator[Workload]:
        """Every Deployment, StatefulSet and DaemonSet."""
        for kind in CONTROLLERS:
            for found in self.of_kind(kind):
                metadata = found["metadata"]
                yield Workload(kind, metadata.get("namespace", "default"), metadata["name"], found["spec"])

    @property
    def pods(self) -> Iterator[Workload]:
        """Everything that starts pods: the workloads, and every Job and CronJob."""
        yield from self.workloads
        for kind in ("Job", "CronJob"):
            for found in self.of_kind(kind):
                metadata, spec = found["metadata"], found["spec"]
                job = spec["jobTemplate"]["spec"] if kind == "CronJob" else spec
                yield Workload(kind, metadata.get("namespace", "default"), metadata["name"], job)

    @cached_property
    def autoscalers(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        """Namespace and name of a Deployment → the spec of its autoscaler."""
        return {
            (found["metadata"].get("namespace", "default"), found["spec"]["scaleTargetRef"]["name"]): found["spec"]
            for found in self.of_kind("HorizontalPodAutoscaler")
        }

    def selecting(self, kind: str, workload: Workload) -> Iterator[Mapping[str, Any]]:
        """The Services, or the PodDisruptionBudgets, that select the pods of a workload."""
        for label in workload.labels.items():
            for found, chosen in self._by_label.get((kind, workload.namespace, label), ()):
                if chosen.items() <= workload.labels.items():
                    yield found

    @cached_property
    def _by_label(
        self,
    ) -> Mapping[tuple[str, str, tuple[str, str]], Sequence[tuple[Mapping[str, Any], Mapping[str, str]]]]:
        """An index by the first label of each selector. A linear search for each workload would take quadratic time."""
        by_label = defaultdict(list)
        for kind in ("Service", "PodDisruptionBudget"):
            for found in self.of_kind(kind):
                selector = found["spec"].get("selector") or {}
                if chosen := selector.get("matchLabels", {}) if kind == "PodDisruptionBudget" else selector:
                    namespace = found["metadata"].get("namespace", "default")
                    by_label[kind, namespace, next(iter(chosen.items()))].append((found, chosen))
        return by_label

    @property
    def gateway_routes(self) -> Iterator[Mapping[str, Any]]:
        """The routes of the gateway. APISIX's file is JSON except for its last line, `#END`."""
        for config in self.of_kind("ConfigMap"):
            if text := config.get("data", {}).get("apisix.yaml"):
                yield from json.loads(text.removesuffix("#END\n"))["routes"]

    @property
    def network_policies(self) -> Sequence[Resource]:
        """Every NetworkPolicy."""
        return self.of_kind("NetworkPolicy")  # type: ignore[return-value]  # the kind determines the type


@lru_cache(maxsize=4)
def rendered(platform: Platform) -> Rendered:
    """The resources of one environment."""
    by_kind: dict[str, list[Resource]] = defaultdict(list)
    for _, resources in platform.resources:
        for resource in resources:
            by_kind[resource["kind"]].append(resource)
    everything = chain.from_iterable(by_kind.values())
    return Rendered(by_kind, tuple(demands(everything, platform.environment.settings.node_pool.nodes)))
