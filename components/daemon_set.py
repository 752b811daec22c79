"""One pod on each node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.server import MIN_READY_SECONDS, REVISIONS, Server, Workload

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import ObjectMeta, PodSpec, PodTemplateSpec


@dataclass(frozen=True, kw_only=True)
class DaemonSet(Workload):
    """Pods that are neither spread nor kept apart, on tainted nodes too."""

    def pod(self, server: Server) -> PodSpec:
        """The hardened pod, wherever it is put."""
        pod = super().pod(server)
        del pod["topologySpreadConstraints"], pod["affinity"]
        pod["tolerations"] = [{"operator": "Exists"}]
        return pod

    def controllers(self, metadata: ObjectMeta, template: PodTemplateSpec) -> Iterator[Resource]:
        """The DaemonSet."""
        yield {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": metadata,
            "spec": {
                "minReadySeconds": MIN_READY_SECONDS,
                "revisionHistoryLimit": REVISIONS,
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
                "selector": {"matchLabels": self.own_label},
                "template": template,
            },
        }
