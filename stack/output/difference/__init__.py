"""The effect of a change on a running platform: on numbers, resources, fields, pods and data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from stack.audit.ledgers.measures import Measures
from stack.deploy.data_safety import INSTEAD, Loss, bears_data, data_namespaces, volume_sizes
from stack.output.difference.blast_radius import Consequence, blast_radius
from stack.output.difference.fields import FieldChange, field_changes

__all__ = ["compare"]

_POD_FIELDS = {
    "Deployment": ("spec.template",),
    "StatefulSet": ("spec.template",),
    "DaemonSet": ("spec.template",),
    "Cluster": ("spec.imageName", "spec.resources", "spec.postgresql.parameters"),
    "Pooler": ("spec.template", "spec.pgbouncer.parameters"),
}
"""Kind → the fields whose change restarts pods. The operator of a `Cluster` or `Pooler` may apply a change without a
restart."""
_IMMUTABLE = {
    "Deployment": ("spec.selector",),
    "DaemonSet": ("spec.selector",),
    "StatefulSet": ("spec.selector", "spec.serviceName", "spec.podManagementPolicy", "spec.volumeClaimTemplates"),
    "PersistentVolumeClaim": (
        "spec.accessModes",
        "spec.dataSource",
        "spec.selector",
        "spec.storageClassName",
        "spec.volumeMode",
        "spec.volumeName",
    ),
    "ClusterRoleBinding": ("roleRef",),
    "Job": ("spec.selector", "spec.template"),
    "RoleBinding": ("roleRef",),
    "Service": ("spec.clusterIP",),
}
"""Fields that the API server refuses to change. If one of them differs, Pulumi replaces the resource."""
_TEMPLATE_SIZE = re.compile(r"spec\.volumeClaimTemplates\[\d+\]\.spec\.resources\b")
"""The size in a claim template of a StatefulSet. Pulumi ignores its change, because the claims grow separately."""


class Identity(NamedTuple):
    """The identity of a resource in two trees. A new API version does not change the identity."""

    kind: str
    namespace: str
    name: str
    group: str

    @classmethod
    def of(cls, resource: Mapping[str, Any]) -> Identity:
        """The identity of a manifest."""
        metadata = resource["metadata"]
        group = resource["apiVersion"].rpartition("/")[0]
        return cls(resource["kind"], metadata.get("namespace", ""), metadata["name"], group)

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


Resources = Mapping[Identity, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: the resources and the numbers of an environment."""

    resources: Resources
    measures: Measures | None
    """`None` for a tree without `ledger.json`. Earlier versions of `voice` did not write this file."""


@dataclass(frozen=True, slots=True)
class Change:
    """A resource that both sides have, and the fields in which it differs."""

    identity: Identity
    fields: tuple[FieldChange, ...]

    def touches(self, *prefixes: str) -> bool:
        """True if a field at or below one of `prefixes` differs."""
        return any(
            field.path == prefix or field.path.startswith((f"{prefix}.", f"{prefix}["))
            for field in self.fields
            for prefix in prefixes
        )

    @property
    def replaces(self) -> bool:
        """True if Pulumi must replace the resource, because the API server refuses to change it."""
        fields = tuple(field for field in self.fields if not _TEMPLATE_SIZE.match(field.path))
        return Change(self.identity, fields).touches(*_IMMUTABLE.get(self.identity.kind, ()))


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of a change on the pods of a workload, with its cause."""

    workload: Identity
    pods: Literal["restart", "reload"]
    because: str


@dataclass(frozen=True, slots=True)
class Risk:
    """A resource that holds data, and the way in which a change would lose the data."""

    identity: Identity
    loss: Loss

    def __str__(self) -> str:
        return f"{self.identity}: holds data and would be {self.loss}; {INSTEAD[self.loss]}"


@dataclass(frozen=True, slots=True)
class Difference:
    """All differences between two sides."""

    blast_radius: tuple[Consequence, ...] | None
    """`None` if a side has no measures."""
    added: tuple[Identity, ...]
    removed: tuple[Identity, ...]
    changed: tuple[Change, ...]
    effects: tuple[Effect, ...]
    data_at_risk: tuple[Risk, ...]

    def __bool__(self) -> bool:
        return any((self.blast_radius, self.added, self.removed, self.changed))


def compare(before: Side, after: Side) -> Difference:
    """The changes between two sides."""
    old, new = before.resources, after.resources
    changed = tuple(_changes(old, new))
    removed = tuple(identity for identity in old if identity not in new)
    measured = before.measures is not None and after.measures is not None
    return Difference(
        blast_radius=tuple(blast_radius(before.measures or {}, after.measures or {})) if measured else None,
        added=tuple(identity for identity in new if identity not in old),
        removed=removed,
        changed=changed,
        effects=tuple(_effects(changed, old, new)),
        data_at_risk=tuple(_risks(changed, removed, old, new)),
    )


def _changes(before: Resources, after: Resources) -> Iterator[Change]:
    for identity, resource in before.items():
        if identity in after and (fields := tuple(field_changes(resource, after[identity]))):
            yield Change(identity, fields)


def _risks(
    changed: Iterable[Change], removed: Iterable[Identity], before: Resources, after: Resources
) -> Iterator[Risk]:
    kept = data_namespaces(before.values())
    for identity in removed:
        if bears_data(before[identity]) or (identity.kind == "Namespace" and identity.name in kept):
            yield Risk(identity, "removed")
    for change in changed:
        if change.replaces and bears_data(before[change.identity]):
            yield Risk(change.identity, "replaced")
            continue
        old, new = volume_sizes(before[change.identity]), volume_sizes(after[change.identity])
        if any(new[path] < old[path] for path in old.keys() & new.keys()):
            yield Risk(change.identity, "shrunk")


def _effects(changed: Iterable[Change], before: Resources, after: Resources) -> Iterator[Effect]:
    """A changed pod template restarts pods. If only a mounted ConfigMap changes, the pods reload its content."""
    changes = {change.identity: change for change in changed}
    for workload, resource in after.items():
        if workload.kind not in _POD_FIELDS or workload not in before:
            continue
        change = changes.get(workload)
        if change and change.replaces:
            yield Effect(workload, "restart", "the workload is replaced")
            continue
        if change and (touched := [path for path in _POD_FIELDS[workload.kind] if change.touches(path)]):
            yield Effect(workload, "restart", f"its {', '.join(touched)} changes")
            continue
        mounted = [Identity("ConfigMap", workload.namespace, name, "") for name in _config_maps(resource)]
        names = [config.name for config in mounted if config in changes and changes[config].touches("data")]
        if names:
            yield Effect(workload, "reload", f"the content of {', '.join(names)} changes")


def _config_maps(workload: Mapping[str, Any]) -> Iterator[str]:
    template = workload.get("spec", {}).get("template") or {}
    for volume in template.get("spec", {}).get("volumes", ()):
        for source in (volume, *volume.get("projected", {}).get("sources", ())):
            if "configMap" in source:
                yield source["configMap"]["name"]
