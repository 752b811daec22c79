"""Pods that are alike and keep nothing, rolled out without a gap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.autoscaling import autoscaler
from components.disruption_budget import disruption_budget
from components.node import Replicas
from components.server import MIN_READY_SECONDS, REVISIONS, Workload

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import DeploymentSpec, ObjectMeta, PodTemplateSpec

PROGRESS_DEADLINE_SECONDS = 180
"""Three times the longest start: a rollout that has not moved by then has failed."""
ONE = Replicas.exactly(1)


@dataclass(frozen=True, kw_only=True)
class Deployment(Workload):
    """A rollout takes no pod away before its successor is ready. The autoscaler alone counts a range of replicas."""

    replicas: Replicas
    scale_on_memory: bool = False
    """The autoscaler looks at memory besides CPU."""

    def controllers(self, metadata: ObjectMeta, template: PodTemplateSpec) -> Iterator[Resource]:
        """The Deployment, its autoscaler and its disruption budget."""
        spec: DeploymentSpec = {
            "minReadySeconds": MIN_READY_SECONDS,
            "progressDeadlineSeconds": PROGRESS_DEADLINE_SECONDS,
            "revisionHistoryLimit": REVISIONS,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": self.own_label},
            "template": template,
        }
        if self.replicas.fixed:
            spec["replicas"] = self.replicas.min
        yield {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
        if not self.replicas.fixed:
            yield autoscaler(metadata, self.replicas, on_memory=self.scale_on_memory)
        if self.replicas.min > 1:
            yield disruption_budget(metadata, self.own_label)
