"""The base of every component: identity, labels, and a pure method that yields Kubernetes resources."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from voice_policies import ClosedModel

from components.operation import Name, Sentence
from components.retention import Stream
from components.secret_keys import SecretKeys
from components.writes import Disk

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
        | types.PriorityClass
        | types.ResourceQuota
        | types.Role
        | types.RoleBinding
        | types.Service
        | types.ServiceAccount
        | types.StatefulSet
    )

__all__ = ["PART_OF", "Component", "Resource"]

PART_OF = "voiceassistant"
ANNOTATION_PREFIX = "voiceassistant.dev"


class Exemption(ClosedModel):
    """A hardening default from which a component is exempt, and the reason. `voice render -v` lists each."""

    rule: str
    """Name of the default, such as `run_as_user` or `read_only_root`."""
    reason: Sentence


PLAIN_TEXT = Exemption(
    rule="tls",
    reason="plain text inside the cluster: network policies admit only declared callers, each with a password; "
    "the platform requires no certificate issuer (decided 2026-11-30, due 2027-05-31)",
)
"""Exemption of a store that its callers reach without TLS."""


class Component(ClosedModel):
    """A part of an environment. Rendering is a function of the model: no clock, no network, no global state."""

    kind: ClassVar[str]
    """The component's resource type in Pulumi's tree, `voice:components:<kind>`. Default: the name of the class."""
    folder: ClassVar[str]
    """Folder of the manifest. Folders are applied in the order of their numbers.

    A folder depends only on folders with lower numbers.
    """
    name: Name
    namespace: Name

    exemptions: ClassVar[tuple[Exemption, ...]] = ()
    """Every hardening default from which the component is exempt."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.kind = vars(cls).get("kind", cls.__name__)

    @property
    def secrets(self) -> tuple[SecretKeys, ...]:
        """The secrets that the component reads. No rendered file holds their values."""
        return ()

    @property
    def selector(self) -> dict[str, str]:
        """The labels that select this component's pods. They never change, because selectors are immutable."""
        return {"app.kubernetes.io/name": self.name}

    @property
    def pods(self) -> tuple[dict[str, str], ...]:
        """The name label of each kind of pod. Empty for a component without pods."""
        return ()

    @property
    def labels(self) -> dict[str, str]:
        """The labels of each resource."""
        return {**self.selector, "app.kubernetes.io/part-of": PART_OF}

    def metadata(self, suffix: str = "") -> ObjectMeta:
        """Name, namespace and labels of one resource."""
        name = f"{self.name}-{suffix}" if suffix else self.name
        return {"name": name, "namespace": self.namespace, "labels": self.labels}

    def disks(self) -> Iterator[Disk]:
        """The volumes that the component's programs write to, each with the list of its writes."""
        yield from ()

    def streams_kept(self) -> Iterator[Stream]:
        """The telemetry streams that the component stores, each with its retention."""
        yield from ()

    @abstractmethod
    def resources(self) -> Iterator[Resource]:
        """The component's Kubernetes resources, in an order that an API server accepts."""
