"""The volumes of a pod, and the resources that each needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from typing_extensions import override
from voice_policies import Bytes

from components.secret_keys import SecretKeys

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import ObjectMeta, PersistentVolumeClaim, PersistentVolumeClaimSpec
    from components.kubernetes.types import Volume as KubernetesVolume

SCRATCH_SIZE = Bytes("64Mi")
TOKEN_SECONDS = 3600


class Volume(ABC):
    """A directory that a pod's containers mount."""

    read_only: bool = False
    """True if containers mount the volume read-only."""
    size: Bytes | None = None
    """Largest size of the content. `None` for a volume without its own limit."""
    persistent: bool = False
    """True if the content is on a persistent volume."""
    on_node: bool = False
    """True if files that the pod writes here count as its ephemeral storage."""

    @abstractmethod
    def document(self, name: str) -> KubernetesVolume:
        """The volume of that name as the Kubernetes API expects it."""

    def resources(self, metadata: ObjectMeta) -> Iterator[Resource]:  # noqa: ARG002 - most volumes need no resources
        """The resources that the volume needs, with the labels of `metadata`."""
        yield from ()

    @property
    def read_at_start(self) -> Mapping[str, str]:
        """Files that the program reads only at its start. A change must restart the pods."""
        return {}


@dataclass(frozen=True, slots=True)
class ConfigFiles(Volume):
    """Files of a ConfigMap. The whole directory is mounted, so that changes reach running pods."""

    config_map: str
    files: Mapping[str, str]
    reloaded: bool = False
    """True if the program reads changed files without a restart."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    read_only = True

    @override
    def document(self, name: str) -> KubernetesVolume:
        return {"name": name, "configMap": {"name": self.config_map}}

    @override
    def resources(self, metadata: ObjectMeta) -> Iterator[Resource]:
        own: ObjectMeta = {**metadata, "name": self.config_map}
        if self.annotations:
            own["annotations"] = {**self.annotations}
        yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": own, "data": {**self.files}}

    @property
    @override
    def read_at_start(self) -> Mapping[str, str]:
        """All of its files, unless the program reads changed files without a restart."""
        return {} if self.reloaded else self.files


@dataclass(frozen=True, slots=True)
class Scratch(Volume):
    """An `emptyDir`: a directory that lives as long as the pod."""

    size: Bytes = SCRATCH_SIZE
    in_memory: bool = False

    @property
    def on_node(self) -> bool:  # type: ignore[override]  # memory is not on the node's disk
        """True unless the directory is in memory."""
        return not self.in_memory

    @override
    def document(self, name: str) -> KubernetesVolume:
        size = str(self.size)
        return {
            "name": name,
            "emptyDir": {"medium": "Memory", "sizeLimit": size} if self.in_memory else {"sizeLimit": size},
        }


@dataclass(frozen=True, slots=True)
class HostPath(Volume):
    """A directory of the node."""

    path: str
    read_only: bool = True

    @override
    def document(self, name: str) -> KubernetesVolume:
        """A `hostPath`. For a writable volume, kubelet creates a missing directory."""
        kind = "Directory" if self.read_only else "DirectoryOrCreate"
        return {"name": name, "hostPath": {"path": self.path, "type": kind}}


@dataclass(frozen=True, slots=True)
class Claim(Volume):
    """A persistent volume that the pods of one node may mount."""

    claim: str
    size: Bytes
    persistent = True

    @override
    def document(self, name: str) -> KubernetesVolume:
        return {"name": name, "persistentVolumeClaim": {"claimName": self.claim}}

    @override
    def resources(self, metadata: ObjectMeta) -> Iterator[Resource]:
        yield volume_claim({**metadata, "name": self.claim}, self.size)


class ApiToken(Volume):
    """A token that expires after an hour, the cluster's CA certificate, and the namespace. Kubelet renews the token."""

    read_only = True

    @override
    def document(self, name: str) -> KubernetesVolume:
        """The three files, with the names that client libraries expect."""
        return {
            "name": name,
            "projected": {
                "sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    {
                        "downwardAPI": {
                            "items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]
                        }
                    },
                ]
            },
        }


def volume_claim(metadata: ObjectMeta, size: Bytes) -> PersistentVolumeClaim:
    """A claim that the pods of one node may mount. It can grow in place; the API server refuses a smaller size."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": str(size)}}},
    }


def claim_specs(resource: Resource) -> Iterator[PersistentVolumeClaimSpec]:
    """The claims in a resource: the resource itself, or the templates for its pods."""
    if resource["kind"] == "PersistentVolumeClaim":
        yield resource["spec"]
    elif resource["kind"] == "StatefulSet":
        yield from (claim["spec"] for claim in resource["spec"].get("volumeClaimTemplates", ()))


def secret_volume(secret: SecretKeys) -> KubernetesVolume:
    """Only the named keys of a secret, readable by the pod's group."""
    return {
        "name": secret.name,
        "secret": {
            "secretName": secret.name,
            "defaultMode": 0o440,
            "items": [{"key": key, "path": key} for key in secret.keys],
        },
    }
