"""The reasons that a platform cannot be deployed to its stack's cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from voice_policies import Bytes, Fault

from stack.deploy.cluster import Cluster, ClusterError
from stack.deploy.data_safety import INSTEAD, volume_sizes
from stack.deploy.operators import operator_of, required
from stack.deploy.prerequisites import prerequisite_faults

if TYPE_CHECKING:
    from stack.deploy.configuration import Configuration
    from stack.model.platform import Platform

CONTEXT, IDENTIFIER = "config.kubernetes:context", "config.kubernetes:clusterIdentifier"
GROW = (
    "set allowVolumeExpansion in the class if its driver can grow volumes, or restore a backup into a new store"
    " (docs/backup.md)"
)
CLOUDNATIVE_PG_VOLUMES = {"PG_DATA": "spec.storage.size", "PG_WAL": "spec.walStorage.size"}
"""CloudNativePG's name of a volume → the field of its Cluster that holds the size."""


class Volume(NamedTuple):
    """The resource and the field that declare the size of a volume, or of several volumes of equal size."""

    namespace: str
    kind: str
    name: str
    path: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}.{self.path}"


def cluster_faults(platform: Platform, configuration: Configuration) -> Iterator[Fault]:
    """Every fault of the cluster. If the context is missing, unknown or of another cluster, only this fault."""
    stack, context = configuration.settings.environment, configuration.context
    if not context:
        # Without this setting the program would use kubectl's current context, which can be any cluster.
        yield Fault(CONTEXT, "is missing", f"run `pulumi config set --stack {stack} kubernetes:context NAME`")
        return
    with Cluster.connected(context, configuration.kubeconfig) as cluster:
        try:
            if context not in cluster.contexts:
                yield Fault(
                    CONTEXT,
                    f"is {context!r}",
                    f"expected a context of the kubeconfig: {', '.join(cluster.contexts) or 'it has none'}",
                )
            elif faults := [*_identity_faults(cluster, stack, configuration.cluster_identifier)]:
                yield from faults
            else:
                yield from _operator_faults(platform, cluster)
                yield from prerequisite_faults(platform, cluster)
                yield from _growth_faults(platform, cluster)
        except ClusterError as error:
            yield Fault(CONTEXT, f"is {context!r}, and kubectl cannot query its cluster", str(error))


def _identity_faults(cluster: Cluster, stack: str, configured: str | None) -> Iterator[Fault]:
    """Refuse another cluster, because Pulumi would replace everything, volumes included.

    The check compares the uid of `kube-system`, because another cluster can have the same address.
    """
    identifier = cluster.identifier
    if not configured:
        line = f"pulumi config set --stack {stack} kubernetes:clusterIdentifier {identifier}"
        yield Fault(
            IDENTIFIER, "is missing", f"if the context {cluster.context!r} leads to this stack's cluster, run `{line}`"
        )
    elif configured != identifier:
        value = f"is {configured!r}, but the context {cluster.context!r} leads to the cluster {identifier!r}"
        yield Fault(
            IDENTIFIER, value, "choose the context of the stack's cluster, or create a new stack for another cluster"
        )


def _operator_faults(platform: Platform, cluster: Cluster) -> Iterator[Fault]:
    missing: dict[str, tuple[str, list[str]]] = {}
    for api_version, plurals in required(platform).items():
        operator = operator_of(api_version)
        absent = sorted(plurals - cluster.served(api_version))
        if operator and absent:
            _, definitions = missing.setdefault(operator.name, (operator.way_out, []))
            definitions += [f"{plural}.{api_version.partition('/')[0]}" for plural in absent]
    for name, (way_out, definitions) in missing.items():
        yield Fault(name, f"is not in the cluster, which has no {', '.join(definitions)}", way_out)


def _growth_faults(platform: Platform, cluster: Cluster) -> Iterator[Fault]:
    """Refuse a volume that shrinks, or that grows although its storage class forbids it. The update would fail."""
    wanted = dict(_wanted_volumes(platform))
    growing: dict[str, list[Fault]] = {}
    for namespace in sorted({volume.namespace for volume in wanted}):
        for claim in cluster.get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims")["items"]:
            volume, size = _volume_of(claim), Bytes(claim["spec"]["resources"]["requests"]["storage"])
            if wanted.get(volume, size) < size:
                yield Fault(str(volume), f"shrinks from {size} to {wanted[volume]}", INSTEAD["shrunk"])
            elif wanted.get(volume, size) > size:
                class_ = claim["spec"].get("storageClassName", "")
                value = f"grows from {size} to {wanted[volume]}, but the storage class {class_!r} forbids growth"
                growing.setdefault(class_, []).append(Fault(str(volume), value, GROW))
    if growing:
        classes = cluster.get("/apis/storage.k8s.io/v1/storageclasses")["items"]
        expandable = {each["metadata"]["name"] for each in classes if each.get("allowVolumeExpansion")}
        yield from (fault for class_, faults in growing.items() if class_ not in expandable for fault in faults)


def _wanted_volumes(platform: Platform) -> Iterator[tuple[Volume, Bytes]]:
    for _, resources in platform.resources:
        for resource in resources:
            metadata = resource["metadata"]
            for path, size in volume_sizes(resource).items():
                yield Volume(metadata["namespace"], resource["kind"], metadata["name"], path), size


def _volume_of(claim: Mapping[str, Any]) -> Volume:
    """The declared volume of a live claim. CloudNativePG's databases declare their volumes in their Cluster."""
    metadata = claim["metadata"]
    labels = metadata.get("labels", {})
    cluster, path = labels.get("cnpg.io/cluster"), CLOUDNATIVE_PG_VOLUMES.get(labels.get("cnpg.io/pvcRole"))
    if cluster and path:
        return Volume(metadata["namespace"], "Cluster", cluster, path)
    return Volume(metadata["namespace"], "PersistentVolumeClaim", metadata["name"], "spec.resources.requests.storage")
