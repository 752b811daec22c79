"""The base of every component: identity, labels, and a pure method that yields Kubernetes resources."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from voice_policies import ClosedModel

from components.operation import Name, Sentence
from components.secret_keys import SecretKeys

if TYPE_CHECKING:
    from components.kubernetes.cloudnative_pg import Cluster, Database, ObjectStore, Pooler, ScheduledBackup
    from components.kubernetes.istio import (
        AuthorizationPolicy,
        DestinationRule,
        PeerAuthentication,
        Sidecar,
        VirtualService,
    )
    from components.kubernetes.types import (
        ClusterRole,
        ClusterRoleBinding,
        ConfigMap,
        CronJob,
        DaemonSet,
        Deployment,
        HorizontalPodAutoscaler,
        Job,
        LimitRange,
        Namespace,
        NetworkPolicy,
        ObjectMeta,
        PersistentVolumeClaim,
        PodDisruptionBudget,
        ResourceQuota,
        Role,
        RoleBinding,
        Service,
        ServiceAccount,
        StatefulSet,
    )

    Resource: TypeAlias = (
        AuthorizationPolicy
        | Cluster
        | ClusterRole
        | ClusterRoleBinding
        | ConfigMap
        | CronJob
        | DaemonSet
        | Database
        | Deployment
        | DestinationRule
        | HorizontalPodAutoscaler
        | Job
        | LimitRange
        | Namespace
        | NetworkPolicy
        | ObjectStore
        | PeerAuthentication
        | PersistentVolumeClaim
        | PodDisruptionBudget
        | Pooler
        | ResourceQuota
        | Role
        | RoleBinding
        | ScheduledBackup
        | Service
        | ServiceAccount
        | Sidecar
        | StatefulSet
        | VirtualService
    )

PART_OF = "voiceassistant"
ANNOTATION_PREFIX = "voiceassistant.dev"


class Exemption(ClosedModel):
    """A hardening default that a component cannot hold, and why. `voice render` lists each."""

    rule: str
    """The default that is given up, such as `run_as_user` or `read_only_root`."""
    reason: Sentence


class Component(ClosedModel):
    """A building block. Rendering is a function of the model: no clock, no network, no global state."""

    kind: ClassVar[str]
    """Its type in the stack's tree: `voice:components:<kind>`."""
    folder: ClassVar[str]
    """Where its manifest stands. Folders are applied in order: what others stand on comes first."""
    name: Name
    namespace: Name
    secrets: tuple[SecretKeys, ...] = ()
    """What it reads that no rendered file holds."""

    @property
    def selector(self) -> dict[str, str]:
        """The labels that pick this component's pods; they never change."""
        return {"app.kubernetes.io/name": self.name}

    @property
    def pods(self) -> tuple[dict[str, str], ...]:
        """The labels that pick each kind of its pods: what a network policy of another component names them by."""
        return (self.selector,)

    @property
    def labels(self) -> dict[str, str]:
        """The labels on everything of this component."""
        return {**self.selector, "app.kubernetes.io/part-of": PART_OF}

    def metadata(self, suffix: str = "", annotations: dict[str, str] | None = None) -> ObjectMeta:
        """Name, namespace and labels of one of its resources."""
        name = f"{self.name}-{suffix}" if suffix else self.name
        metadata: ObjectMeta = {"name": name, "namespace": self.namespace, "labels": self.labels}
        if annotations:
            metadata["annotations"] = annotations
        return metadata

    @property
    def exemptions(self) -> tuple[Exemption, ...]:
        """Every hardening default it gives up."""
        return ()

    @abstractmethod
    def resources(self) -> Iterator[Resource]:
        """Its Kubernetes resources, in an order that an API server accepts."""
