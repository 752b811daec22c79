"""The controllers that run a server's pods: Deployment, StatefulSet, DaemonSet, Job and CronJob."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic_core import to_json
from typing_extensions import override
from voice_policies import Bytes, Duration

from components.autoscaling import autoscaler
from components.disruption_budget import disruption_budget
from components.files import digest_of
from components.node import Replicas
from components.priority import Priority
from components.server import Server, Workload
from components.volumes import volume_claim

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import DeploymentSpec, ObjectMeta, PodSpec, PodTemplateSpec, StatefulSetSpec

MIN_READY_SECONDS = 5
REVISIONS = 5
"""Old templates that a controller keeps for a rollback."""
LONGEST_STARTS = 3
"""A rollout fails if it makes no progress for this multiple of the longest start time."""
ONE = Replicas.exactly(1)
DATA_VOLUME = "data"
NIGHTLY = "0 2 * * *"


@dataclass(frozen=True, kw_only=True)
class Deployment(Workload):
    """A Deployment.

    A rollout stops a pod only after its successor is ready. If `replicas` is a range, an autoscaler sets the count, and
    the Deployment states no count.
    """

    replicas: Replicas
    startup: Duration = Duration("60s")
    """Longest time from the start of a pod's program until it answers."""

    @override
    def controllers(self, metadata: ObjectMeta, template: PodTemplateSpec) -> Iterator[Resource]:
        spec: DeploymentSpec = {
            "minReadySeconds": MIN_READY_SECONDS,
            "progressDeadlineSeconds": LONGEST_STARTS * self.startup.whole_seconds(),
            "revisionHistoryLimit": REVISIONS,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": self.own_label},
            "template": template,
        }
        if self.replicas.fixed:
            spec["replicas"] = self.replicas.min
        yield {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
        if not self.replicas.fixed:
            yield autoscaler(metadata, self.replicas, self.container.name or self.name)
        if self.replicas.min > 1:
            yield disruption_budget(metadata, self.own_label)


@dataclass(frozen=True, kw_only=True)
class StatefulSet(Workload):
    """A StatefulSet, with its claims as separate resources.

    A separate claim can grow; the claim template of a StatefulSet is immutable and keeps its first size. Deleting the
    StatefulSet keeps the volumes, so that nobody deletes data by accident.

    All pods start together, because no member of a quorum is ready before it has found the others. An update still
    replaces one pod at a time, and waits until the new pod is ready. With `OrderedReady` a bad revision would block its
    own rollback: Kubernetes waits until the broken pod is ready (kubernetes#67250).
    """

    replicas: int = 1
    storage: Bytes | None = None
    """Size of each pod's volume `data`. `None` for no volume."""
    governing_service: str | None = None
    """The Service that names each pod. `None` means the Service with the workload's name."""

    @override
    def sizes(self) -> Iterator[tuple[str, Bytes, bool]]:
        yield from super().sizes()
        if self.storage is not None:
            yield DATA_VOLUME, self.storage, True

    @override
    def controllers(self, metadata: ObjectMeta, template: PodTemplateSpec) -> Iterator[Resource]:
        """The claims come first, with the names that the StatefulSet expects."""
        spec: StatefulSetSpec = {
            "serviceName": self.governing_service or self.name,
            "replicas": self.replicas,
            "revisionHistoryLimit": REVISIONS,
            "minReadySeconds": MIN_READY_SECONDS,
            "podManagementPolicy": "Parallel",
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


@dataclass(frozen=True, kw_only=True)
class DaemonSet(Workload):
    """A pod on every node, tainted nodes included."""

    @override
    def pod(self, server: Server) -> PodSpec:
        pod = super().pod(server)
        del pod["topologySpreadConstraints"], pod["affinity"]
        pod["tolerations"] = [{"operator": "Exists"}]
        return pod

    @override
    def controllers(self, metadata: ObjectMeta, template: PodTemplateSpec) -> Iterator[Resource]:
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


@dataclass(frozen=True, kw_only=True)
class _Batch(Workload):
    """Pods that nobody calls, so the pre-stop hook does not wait."""

    priority: Priority | None = "batch"
    job: str | None = None
    """Name of the controller. `None` means the workload's name."""
    pre_stop: Duration = Duration("0s")
    shutdown: Duration = Duration("35s")
    deadline: Duration
    """Longest time of a run, retries included."""

    def metadata_of(self, workload: ObjectMeta) -> ObjectMeta:
        return {**workload, "name": self.job or self.name}


@dataclass(frozen=True, kw_only=True)
class Job(_Batch):
    """Runs once, and again when its pod or its files change.

    Jobs are immutable, so the name contains a digest of the pod and its files. A new password does not change the
    digest. If the Job must read the new password, delete the Job and deploy again.
    """

    deadline: Duration = Duration("30m")
    """The default is long enough for a first deployment, in which the Job must wait for its server."""
    retries: int = 10

    @override
    def controllers(self, metadata: ObjectMeta, template: PodTemplateSpec) -> Iterator[Resource]:
        template["spec"]["restartPolicy"] = "OnFailure"
        own = self.metadata_of(metadata)
        digest = digest_of({"template": to_json(template).decode()})
        yield {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {**own, "name": f"{own['name']}-{digest[:8]}"},
            "spec": {
                "backoffLimit": self.retries,
                "activeDeadlineSeconds": self.deadline.whole_seconds(),
                "template": template,
            },
        }


@dataclass(frozen=True, kw_only=True)
class CronJob(_Batch):
    """Runs on a schedule, with up to three attempts.

    A suspended CronJob runs only on demand, with one attempt: `kubectl create job --from=cronjob/NAME JOB`.
    """

    schedule: str = NIGHTLY
    suspended: bool = False
    deadline: Duration = Duration("60m")

    @override
    def controllers(self, metadata: ObjectMeta, template: PodTemplateSpec) -> Iterator[Resource]:
        template["spec"]["restartPolicy"] = "Never"
        deadline = self.deadline.whole_seconds()
        yield {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": self.metadata_of(metadata),
            "spec": {
                "schedule": self.schedule,
                "timeZone": "Etc/UTC",
                "suspend": self.suspended,
                "concurrencyPolicy": "Forbid",
                "startingDeadlineSeconds": deadline,
                "jobTemplate": {
                    "spec": {
                        "backoffLimit": 0 if self.suspended else 2,
                        "activeDeadlineSeconds": deadline,
                        "template": template,
                    }
                },
            },
        }
