"""The base of every component: identity, labels, and a pure method that yields Kubernetes resources."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from voice_policies import ClosedModel

from components.operation import Name, Sentence
from components.secret_keys import SecretKeys

if TYPE_CHECKING:
    from components.kubernetes import cloudnative_pg, istio, types
    from components.kubernetes.types import ObjectMeta

    Resource: TypeAlias = (
        cloudnative_pg.Cluster
        | cloudnative_pg.Database
        | cloudnative_pg.ObjectStore
        | cloudnative_pg.Pooler
        | cloudnative_pg.ScheduledBackup
        | istio.AuthorizationPolicy
        | istio.DestinationRule
        | istio.PeerAuthentication
        | istio.Sidecar
        | istio.VirtualService
        | types.ClusterRole
        | types.ClusterRoleBinding
        | types.ConfigMap
        | types.CronJob
        | types.DaemonSet
        | types.Deployment
        | types.HorizontalPodAutoscaler
        | types.Job
        | types.LimitRange
        | types.Namespace
        | types.NetworkPolicy
        | types.PersistentVolumeClaim
        | types.PodDisruptionBudget
        | types.ResourceQuota
        | types.Role
        | types.RoleBinding
        | types.Service
        | types.ServiceAccount
        | types.StatefulSet
    )

__all__ = ["Component", "Resource"]

PART_OF = "voiceassistant"
ANNOTATION_PREFIX = "voiceassistant.dev"


class Exemption(ClosedModel):
    """A hardening default that a component cannot hold, and why. `voice render` lists each."""

    rule: str
    """The default from which the component is exempt, such as `run_as_user` or `read_only_root`."""
    reason: Sentence


class Component(ClosedModel):
    """A building block. Rendering is a function of the model: no clock, no network, no global state."""

    kind: ClassVar[str]
    """Its type in the stack's tree, `voice:components:<kind>`: the name of the class unless it has another."""
    folder: ClassVar[str]
    """Where its manifest stands. Folders are applied in order: what others stand on comes first."""
    name: Name
    namespace: Name

    exemptions: ClassVar[tuple[Exemption, ...]] = ()
    """Every hardening default from which the component is exempt."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.kind = vars(cls).get("kind", cls.__name__)

    @property
    def secrets(self) -> tuple[SecretKeys, ...]:
        """The secrets that it reads and that no rendered file holds."""
        return ()

    @property
    def selector(self) -> dict[str, str]:
        """The labels that pick this component's pods; they never change."""
        return {"app.kubernetes.io/name": self.name}

    @property
    def pods(self) -> tuple[dict[str, str], ...]:
        """The label that picks each kind of its pods; none for a component that runs none."""
        return ()

    @property
    def labels(self) -> dict[str, str]:
        """The labels on everything of this component."""
        return {**self.selector, "app.kubernetes.io/part-of": PART_OF}

    def metadata(self, suffix: str = "") -> ObjectMeta:
        """Name, namespace and labels of one of its resources."""
        name = f"{self.name}-{suffix}" if suffix else self.name
        return {"name": name, "namespace": self.namespace, "labels": self.labels}

    @abstractmethod
    def resources(self) -> Iterator[Resource]:
        """Its Kubernetes resources, in an order that an API server accepts."""
