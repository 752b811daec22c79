"""Pods of stable names, each of which keeps its volume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voice_policies import Bytes

from components.disruption_budget import disruption_budget
from components.server import MIN_READY_SECONDS, REVISIONS, Workload
from components.volumes import volume_claim

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import ObjectMeta, PodTemplateSpec, StatefulSetSpec

DATA_VOLUME = "data"


@dataclass(frozen=True, kw_only=True)
class StatefulSet(Workload):
    """Claims are resources of their own: a claim can grow, and nothing can change a StatefulSet's template of one.

    The template keeps the size that it was created with. Volumes outlive the StatefulSet: data goes only deliberately.
    """

    replicas: int = 1
    storage: Bytes | None = None
    """Size of the volume `data` of each pod; `None` keeps nothing."""
    governing_service: str | None = None
    """The Service that names each pod; `None` is the one of the workload's name."""
    parallel: bool = False
    """All pods start at once: none is ready before enough of them have found each other."""

    def controllers(self, metadata: ObjectMeta, template: PodTemplateSpec) -> Iterator[Resource]:
        """The claims by the names that the StatefulSet looks for, the StatefulSet, and its disruption budget."""
        spec: StatefulSetSpec = {
            "serviceName": self.governing_service or self.name,
            "replicas": self.replicas,
            "revisionHistoryLimit": REVISIONS,
            "minReadySeconds": MIN_READY_SECONDS,
            "podManagementPolicy": "Parallel" if self.parallel else "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate"},
            "selector": {"matchLabels": self.own_label},
            "template": template,
        }
        if self.storage is not None:
            spec["persistentVolumeClaimRetentionPolicy"] = {"whenDeleted": "Retain", "whenScaled": "Retain"}
            spec["volumeClaimTemplates"] = [volume_claim({"name": DATA_VOLUME}, self.storage)]
            for ordinal in range(self.replicas):
                yield volume_claim({**metadata, "name": f"{DATA_VOLUME}-{self.name}-{ordinal}"}, self.storage)
        yield {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec}
        if self.replicas > 1:
            yield disruption_budget(metadata, self.own_label)
