"""A namespace and its guardrails: Pod Security, quota, default limits, default-deny and DNS policies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from typing_extensions import override
from voice_policies import Bytes, ClosedModel, Cpu

from components.component import PART_OF, Component
from components.network_policy import Cidr, default_deny, dns_policy
from components.operation import Name
from components.secret_keys import SecretKeys, pull_secret

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import ObjectMeta

__all__ = ["NamespaceGuard", "Quota"]

POD_SECURITY_VERSION = "v1.34"
"""The Pod Security Standards of the oldest supported Kubernetes. An upgrade of the cluster does not change them."""


class Quota(ClosedModel):
    """Upper bounds for a namespace: the sums of its requests and limits, and the number of its pods."""

    cpu_requests: Cpu
    memory_requests: Bytes
    cpu_limits: Cpu
    memory_limits: Bytes
    pods: int


class NamespaceGuard(Component):
    """One namespace and its guardrails."""

    kind: ClassVar[str] = "Namespace"
    folder: ClassVar[str] = "10-namespaces"
    level: Literal["restricted", "baseline", "privileged"] = "restricted"
    """`privileged` is for pods that mount directories of the node, such as a log shipper. Other levels forbid that."""
    quota: Quota
    dns: tuple[Cidr, ...]
    """Addresses of the cluster's DNS Service."""
    pull_secret: Name | None = None
    """Secret with which kubelet pulls images; `None` pulls without credentials."""

    @property
    def secrets(self) -> tuple[SecretKeys, ...]:
        """The credentials of registries. Every namespace needs its own copy."""
        return (pull_secret(self.pull_secret),) if self.pull_secret else ()

    @override
    def metadata(self, suffix: str = "") -> ObjectMeta:
        """The name is only the purpose, such as `quota`. The namespace already identifies the owner."""
        metadata = super().metadata()
        metadata["name"] = suffix
        metadata["labels"] = {"app.kubernetes.io/part-of": PART_OF}
        return metadata

    @override
    def resources(self) -> Iterator[Resource]:
        """The namespace first, then its guardrails."""
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": self._labels()}}
        yield default_deny(self.metadata("default-deny"))
        yield dns_policy(self.metadata("allow-dns"), self.dns)
        yield {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": self.metadata("quota"),
            "spec": {
                "hard": {
                    "requests.cpu": str(self.quota.cpu_requests),
                    "requests.memory": str(self.quota.memory_requests),
                    "limits.cpu": str(self.quota.cpu_limits),
                    "limits.memory": str(self.quota.memory_limits),
                    "pods": str(self.quota.pods),
                }
            },
        }
        yield {
            "apiVersion": "v1",
            "kind": "LimitRange",
            "metadata": self.metadata("defaults"),
            "spec": {
                "limits": [
                    {
                        "type": "Container",
                        "defaultRequest": {"cpu": "100m", "memory": "128Mi", "ephemeral-storage": "128Mi"},
                        "default": {"cpu": "500m", "memory": "256Mi", "ephemeral-storage": "512Mi"},
                    }
                ]
            },
        }

    def _labels(self) -> dict[str, str]:
        modes = ("enforce", "audit", "warn")
        security = "pod-security.kubernetes.io"
        return {
            "app.kubernetes.io/part-of": PART_OF,
            **{f"{security}/{mode}": self.level for mode in modes},
            **{f"{security}/{mode}-version": POD_SECURITY_VERSION for mode in modes},
        }
