"""The hardened container: what every one of ours is, before it says anything of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from voice_policies import ClosedModel

if TYPE_CHECKING:
    from components.kubernetes.types import Container, PodSecurityContext, SecurityContext
    from components.node import Sizing

USER = 10001
"""User and group of our own images: above 10000, so that it is no user of the node."""
TEMPORARY_VOLUME = "tmp"
TEMPORARY_SIZE = "64Mi"
EPHEMERAL_REQUEST = "128Mi"
EPHEMERAL_LIMIT = "512Mi"
"""Ephemeral storage: logs and `/tmp`. Our services keep nothing else on a node."""


class Image(ClosedModel):
    """What a container runs."""

    reference: str
    """`repository:tag`, with `@sha256:…` where it is pinned."""
    pull_policy: Literal["Always", "IfNotPresent"] = "Always"
    """`Always` asks the registry at each start whether the tag or digest is still the one that was pulled;
    `IfNotPresent` also runs what was loaded onto the node by hand."""


def pod_security() -> PodSecurityContext:
    """The pod's half of Pod Security `restricted`, with a fixed user and group."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> SecurityContext:
    """The container's half of Pod Security `restricted`, and a read-only root besides."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsGroup": USER,
        "runAsNonRoot": True,
        "runAsUser": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def hardened_container(name: str, image: Image, sizing: Sizing) -> Container:
    """A container with image, resources and security; ports, probes and mounts are its component's."""
    return {
        "name": name,
        "image": image.reference,
        "imagePullPolicy": image.pull_policy,
        "resources": {
            "requests": {
                "cpu": str(sizing.cpu_request),
                "memory": str(sizing.memory_request),
                "ephemeral-storage": EPHEMERAL_REQUEST,
            },
            "limits": {
                "cpu": str(sizing.cpu_limit),
                "memory": str(sizing.memory_limit),
                "ephemeral-storage": EPHEMERAL_LIMIT,
            },
        },
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": TEMPORARY_VOLUME, "mountPath": "/tmp"}],  # noqa: S108 - the container's own emptyDir
    }
