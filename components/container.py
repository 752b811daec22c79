"""The hardened container: image, resources, security, probes and mounts of one program."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from voice_policies import Bytes, ClosedModel, Duration

from components.node import Sizing
from components.operation import Name
from components.probes import Probes
from components.secret_keys import SecretKeys

if TYPE_CHECKING:
    from components.kubernetes import types
    from components.kubernetes.types import (
        ContainerPort,
        EnvVar,
        EnvVarSource,
        LocalObjectReference,
        ResourceRequirements,
        SecurityContext,
        VolumeMount,
    )

__all__ = ["Image"]

USER = 10001
"""Default user and group of a container. Above 10000, to differ from the users of the node."""
ROOT = 0
TEMPORARY_VOLUME = "tmp"
TEMPORARY_PATH = "/tmp"  # noqa: S108 - the pod's own emptyDir
PULL_POLICY: Literal["IfNotPresent"] = "IfNotPresent"
"""A digest or a release's tag always names the same image, so kubelet may use the node's copy while the registry
is down."""
EPHEMERAL_LOGS = Bytes("64Mi")
"""Room for the logs of one container on the node. By default kubelet keeps 5 files of 10 MiB."""
EPHEMERAL_REQUEST = Bytes("128Mi")
EPHEMERAL_LIMIT = Bytes("512Mi")
"""Smallest limit of a container's ephemeral storage. A pod with large `emptyDir` volumes gets more."""
GO_MEMORY_SHARE = 0.8
"""`GOMEMLIMIT` as a share of the memory limit. Above it Go collects garbage more often. At the memory limit the kernel
kills the process."""
POD_NAME: EnvVarSource = {"fieldRef": {"fieldPath": "metadata.name"}}
POD_IP: EnvVarSource = {"fieldRef": {"fieldPath": "status.podIP"}}


class Image(ClosedModel):
    """An image of a container."""

    reference: str
    """`repository:tag`, with `@sha256:…` if the image is pinned."""
    pull_secret: Name | None = None
    """The Secret with which kubelet pulls the image; `None` pulls without credentials."""


class Defaults(NamedTuple):
    """Defaults for the containers of a pod. A container may override only name, image and sizing."""

    name: str
    image: Image
    sizing: Sizing
    user: int
    ephemeral_request: Bytes
    ephemeral_limit: Bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """One program of a pod. Its file system is read-only, except for `/tmp` and writable mounts."""

    name: str | None = None
    """`None` takes the workload's default. The same holds for `image` and `sizing`."""
    image: Image | None = None
    sizing: Sizing | None = None
    command: Sequence[str] = ()
    args: Sequence[str] = ()
    ports: Mapping[str, int] = field(default_factory=dict)
    """Name → TCP port on which the program listens."""
    udp_ports: Mapping[str, int] = field(default_factory=dict)
    env: Mapping[str, str | EnvVarSource] = field(default_factory=dict)
    mounts: Mapping[str, str] = field(default_factory=dict)
    """Volume of the pod → path in the container."""
    secrets: Sequence[SecretKeys] = ()
    """Secrets that the program reads as files, each at its own path."""
    probes: Probes | None = None
    before_stop: Sequence[str] = ()
    """Command that kubelet runs before SIGTERM, in place of the default sleep. It must end within the workload's
    `pre_stop`."""

    def document(
        self, default: Defaults, read_only: Collection[str], pre_stop: Duration | None = None
    ) -> types.Container:
        """The container as the Kubernetes API expects it. `read_only` names volumes that the program must not write."""
        image = self.image or default.image
        document: types.Container = {
            "name": self.name or default.name,
            "image": image.reference,
            "imagePullPolicy": PULL_POLICY,
            "resources": _resources(self.sizing or default.sizing, default),
            "securityContext": _security(default.user),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [{"name": TEMPORARY_VOLUME, "mountPath": TEMPORARY_PATH}, *self._mounts(read_only)],
        }
        if self.command:
            document["command"] = list(self.command)
        if self.args:
            document["args"] = list(self.args)
        if self.ports:
            document["ports"] = list(self._ports())
        if self.env:
            document["env"] = [_variable(name, value) for name, value in self.env.items()]
        if self.before_stop:
            document["lifecycle"] = {"preStop": {"exec": {"command": list(self.before_stop)}}}
        elif pre_stop:
            document["lifecycle"] = {"preStop": {"sleep": {"seconds": pre_stop.whole_seconds()}}}
        if self.probes:
            document["startupProbe"] = self.probes.startup.document()
            document["livenessProbe"] = self.probes.liveness.document()
            document["readinessProbe"] = self.probes.readiness.document()
        return document

    def _mounts(self, read_only: Collection[str]) -> Iterator[VolumeMount]:
        for name, path in self.mounts.items():
            mount: VolumeMount = {"name": name, "mountPath": path}
            yield {**mount, "readOnly": True} if name in read_only else mount
        for secret in self.secrets:
            yield {"name": secret.name, "mountPath": secret.path, "readOnly": True}

    def _ports(self) -> Iterator[ContainerPort]:
        for name, port in self.ports.items():
            yield {"name": name, "containerPort": port}
        for name, port in self.udp_ports.items():
            yield {"name": name, "containerPort": port, "protocol": "UDP"}


def _security(user: int) -> SecurityContext:
    """Security context: the container's part of Pod Security `restricted`, and a read-only root file system."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsGroup": user,
        "runAsNonRoot": user != ROOT,
        "runAsUser": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def go_runtime(sizing: Sizing) -> dict[str, str]:
    """Environment variables that tell a Go program its limits of memory and of parallel threads.

    Without `GOMAXPROCS`, Go before 1.25 starts a thread for every core of the node. The kernel throttles these threads
    to the CPU limit.
    """
    return {
        "GOMEMLIMIT": f"{int(sizing.memory_limit.units * GO_MEMORY_SHARE) >> 20}MiB",
        "GOMAXPROCS": str(math.ceil(sizing.cpu_limit.cores)),
    }


def pull_secrets(images: Iterable[Image]) -> list[LocalObjectReference]:
    """The Secrets with which kubelet pulls the images of one pod, without duplicates."""
    return [{"name": name} for name in dict.fromkeys(image.pull_secret for image in images) if name]


def cpu_and_memory(sizing: Sizing) -> ResourceRequirements:
    """CPU and memory as the Kubernetes API expects them."""
    return {
        "requests": {"cpu": str(sizing.cpu_request), "memory": str(sizing.memory_request)},
        "limits": {"cpu": str(sizing.cpu_limit), "memory": str(sizing.memory_limit)},
    }


def _resources(sizing: Sizing, default: Defaults) -> ResourceRequirements:
    resources = cpu_and_memory(sizing)
    resources["requests"]["ephemeral-storage"] = str(default.ephemeral_request)
    resources["limits"]["ephemeral-storage"] = str(default.ephemeral_limit)
    return resources


def _variable(name: str, value: str | EnvVarSource) -> EnvVar:
    return {"name": name, "value": value} if isinstance(value, str) else {"name": name, "valueFrom": value}
