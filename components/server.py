"""Servers and their workloads: a server declares its pods, and this module renders their Kubernetes objects.

It renders every pod of the platform, except the pods that a Kubernetes operator creates. This module sets the
fields that all pods have.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

from typing_extensions import override
from voice_policies import Bytes, Duration

from components.access import TOKEN_PATH, TOKEN_VOLUME, service_account
from components.component import Component
from components.container import (
    EPHEMERAL_LIMIT,
    EPHEMERAL_LOGS,
    EPHEMERAL_REQUEST,
    ROOT,
    TEMPORARY_VOLUME,
    USER,
    Container,
    Defaults,
    Image,
    pull_secrets,
)
from components.files import CONFIG_DIGEST_ANNOTATION, digest_of
from components.links import PlatformLinks
from components.network_policy import NAME_LABEL, NetworkEnd
from components.node import Sizing
from components.operation import Name
from components.placement import host_anti_affinity, zone_spread
from components.priority import Priority, priority_class
from components.secret_keys import SecretKeys, merged
from components.services import service
from components.volumes import ApiToken, Scratch, Volume, claim_specs, secret_volume
from components.writes import Disk, StartWork, Write

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import (
        ObjectMeta,
        PodSecurityContext,
        PodSpec,
        PodTemplateSpec,
        ServiceSpec,
    )

__all__ = ["Server"]

PRE_STOP = Duration("5s")
"""Sleep before SIGTERM. Kube-proxy and gateways need a few seconds to withdraw the endpoint."""
SHUTDOWN_MARGIN = Duration("5s")
"""Time to flush telemetry after the last request."""


@dataclass(frozen=True, kw_only=True)
class Workload(ABC):
    """Identical pods of a server. Each subclass is one kind of controller, such as a Deployment or a Job."""

    name: str
    """The pods' name label, and the name of the workload's own resources. A Job or CronJob may have another name."""
    container: Container
    init: Container | None = None
    """A container that must finish before `container` starts."""
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    """Volumes by name. The pod also gets a volume for `/tmp`, for each secret and, if there are `rights`, for a token.
    A StatefulSet adds the data volume."""
    pre_stop: Duration = PRE_STOP
    """Sleep before SIGTERM. Meanwhile callers stop connecting. 0 for pods that nobody calls."""
    shutdown: Duration
    """Longest time that the program needs after SIGTERM, in addition to `SHUTDOWN_MARGIN`."""
    outward: Iterable[NetworkEnd] = ()
    """Addresses that the pods connect to in addition to their links."""
    services: Mapping[str, ServiceSpec] = field(default_factory=dict)
    """Services by name."""
    address: Mapping[str, str] | None = None
    """The label by which Services and network policies select the pods. `None` means the name label."""
    account: str | None = None
    """Name of a shared service account. With `None` the workload has its own account."""
    rights: Sequence[Resource] = ()
    """Roles and bindings of the account. If there are any, the container gets a short-lived token for the API
    server."""
    pod_metadata: ObjectMeta | None = None
    """Additional labels and annotations of the pods."""
    user: int = USER
    priority: Priority | None = None
    """Priority of the pods. `None` means the server's priority."""
    quorum: bool = False
    """True: never two pods on one host, because losing two pods together would break the quorum."""
    writes: Sequence[Write] = ()
    """The program's data on the volumes, except `/tmp`: the largest size for each purpose."""
    start_work: StartWork | None = None
    """Work at each start that takes longer with more data, such as a replay. `None`: the start takes constant time."""

    @abstractmethod
    def controllers(self, metadata: ObjectMeta, template: PodTemplateSpec) -> Iterator[Resource]:
        """The controller of the pods, with its autoscaler and its disruption budget."""

    @property
    def own_label(self) -> dict[str, str]:
        """The label by which the controller selects the pods. Kubernetes does not allow a change of it."""
        return {NAME_LABEL: self.name}

    @property
    def selector(self) -> dict[str, str]:
        """The label by which Services and network policies select the pods."""
        return dict(self.address or self.own_label)

    @property
    def secrets(self) -> tuple[SecretKeys, ...]:
        """The secrets that the containers read."""
        return merged((*(self.init.secrets if self.init else ()), *self.container.secrets))

    def sizes(self) -> Iterator[tuple[str, Bytes, bool]]:
        """Name, size and persistence of each volume that the program writes to, apart from `/tmp`."""
        for name, volume in self.volumes.items():
            if volume.size is not None:
                yield name, volume.size, volume.persistent

    def disks(self, namespace: str) -> Iterator[Disk]:
        """The volumes, each with everything that the program writes to it."""
        for name, size, persistent in self.sizes():
            writes = [write for write in self.writes if write.volume == name]
            yield Disk(f"{namespace}/{self.name} volume {name}", size, persistent, writes)

    def resources(self, server: Server) -> Iterator[Resource]:
        """The objects that the pods need, then their controller."""
        metadata = server.metadata()
        own: ObjectMeta = {**metadata, "name": self.name}
        yield service_account({**metadata, "name": self.account or self.name})
        yield from self.rights
        for volume in self.volumes.values():
            yield from volume.resources(metadata)
        yield server.links.network_policy(own, self.selector, self.outward)
        for name, spec in self.services.items():
            yield service({**metadata, "name": name}, self.selector, spec)
        yield from self.controllers(own, self._pod_template(server))

    def _pod_template(self, server: Server) -> PodTemplateSpec:
        """The pod template. Its digest annotation covers the files that a program reads only at its start.

        A change of such a file changes the annotation, so the controller replaces the pods.
        """
        more = self.pod_metadata or {}
        files = {name: text for volume in self.volumes.values() for name, text in volume.read_at_start.items()}
        digest = {CONFIG_DIGEST_ANNOTATION: digest_of(files)} if files else {}
        labels = {**server.labels, **self.own_label, **self.selector, **more.get("labels", {})}
        metadata: ObjectMeta = {"labels": labels}
        if annotations := {**digest, **more.get("annotations", {})}:
            metadata["annotations"] = annotations
        return {"metadata": metadata, "spec": self.pod(server)}

    def pod(self, server: Server) -> PodSpec:
        """The hardened pod. It gets a token for the API server if the workload declares `rights`."""
        token = {TOKEN_VOLUME: ApiToken()} if self.rights else {}
        volumes: dict[str, Volume] = {TEMPORARY_VOLUME: Scratch(), **self.volumes, **token}
        read_only = {name for name, volume in volumes.items() if volume.read_only}
        default = Defaults(self.name, server.image, server.sizing, self.user, *self._ephemeral(volumes))
        container = replace(self.container, mounts={**self.container.mounts, **dict.fromkeys(token, TOKEN_PATH)})
        pod: PodSpec = {
            "serviceAccountName": self.account or self.name,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "priorityClassName": priority_class(self.priority or server.priority),
            "securityContext": self._security(),
            "terminationGracePeriodSeconds": (self.pre_stop + self.shutdown + SHUTDOWN_MARGIN).whole_seconds(),
            "topologySpreadConstraints": [{**zone_spread(self.own_label), "matchLabelKeys": ["pod-template-hash"]}],
            "affinity": host_anti_affinity(self.own_label, required=self.quorum),
            "containers": [container.document(default, read_only, self.pre_stop)],
            "volumes": [volume.document(name) for name, volume in volumes.items()],
        }
        pod["volumes"] += map(secret_volume, self.secrets)
        containers = [self.container, *([self.init] if self.init else [])]
        if secrets := pull_secrets(each.image or server.image for each in containers):
            pod["imagePullSecrets"] = secrets
        if self.init:
            pod["initContainers"] = [self.init.document(default, read_only)]
        return pod

    def _ephemeral(self, volumes: Mapping[str, Volume]) -> tuple[Bytes, Bytes]:
        """Request and limit of ephemeral storage. Kubelet evicts a pod that uses more than the limit."""
        on_node = {name: volume.size for name, volume in volumes.items() if volume.on_node and volume.size}
        written = sum((write.size for write in self.writes if write.volume in on_node), EPHEMERAL_LOGS)
        limit = sum(on_node.values(), EPHEMERAL_LOGS)
        return max(written, EPHEMERAL_REQUEST), max(limit, EPHEMERAL_LIMIT)

    def _security(self) -> PodSecurityContext:
        """The pod's part of Pod Security `restricted`, with fixed user and group. Only `ROOT` may run as root."""
        return {
            "runAsNonRoot": self.user != ROOT,
            "runAsUser": self.user,
            "runAsGroup": self.user,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }


class Server(Component):
    """A program that runs in its own pods. Jobs set the program up and maintain it."""

    image: Image
    sizing: Sizing
    links: PlatformLinks
    """Links of the platform, including the links of the server's pods."""

    storage_class: Name | None = None
    """Class of the server's volumes. `None` means the cluster's default."""
    priority: ClassVar[Priority] = "standard"
    """Priority of the pods, unless a workload sets another priority."""

    @abstractmethod
    def workloads(self) -> Iterator[Workload]:
        """The server's workloads, in the order of their manifests."""

    @cached_property
    def _workloads(self) -> tuple[Workload, ...]:
        """The workloads. They are computed once, because each computation serializes a service's policies again."""
        return tuple(self.workloads())

    @override
    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied.__dict__.pop("_workloads", None)  # `model_copy` may give the copy other values
        return copied

    @property
    @override
    def secrets(self) -> tuple[SecretKeys, ...]:
        return merged(secret for workload in self._workloads for secret in workload.secrets)

    @property
    @override
    def pods(self) -> tuple[dict[str, str], ...]:
        return tuple({str(workload.selector): workload.selector for workload in self._workloads}.values())

    def _in_storage_class(self, resource: Resource) -> Resource:
        if self.storage_class:
            for claim in claim_specs(resource):
                claim["storageClassName"] = self.storage_class
        return resource

    @override
    def disks(self) -> Iterator[Disk]:
        found = (disk for workload in self._workloads for disk in workload.disks(self.namespace))
        yield from {disk.path: disk for disk in found}.values()

    @override
    def resources(self) -> Iterator[Resource]:
        """The resources of all workloads. A shared resource appears once.

        Raises `ValueError` if two workloads declare different resources with one name.
        """
        found: dict[tuple[str, str, str], Resource] = {}
        for workload in self._workloads:
            for resource in map(self._in_storage_class, workload.resources(self)):
                kind, metadata = resource["kind"], resource["metadata"]
                key = kind, metadata.get("namespace", ""), metadata["name"]
                if found.setdefault(key, resource) != resource:
                    raise ValueError(
                        f"{self.name}: workloads declare different {kind}s with the name {metadata['name']}"
                    )
        yield from found.values()
