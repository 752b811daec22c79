"""The resources that hold data, and what to do instead of replacing, removing or shrinking such a resource."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from voice_policies import Bytes, Fault, InvalidInputError

__all__ = ["INSTEAD", "Loss", "bears_data", "data_namespaces", "volume_sizes"]

Loss = Literal["replaced", "removed", "shrunk"]
INSTEAD: dict[Loss, str] = {
    "replaced": "keep the old value, or create a second store, move the data (docs/backup.md), remove the first store",
    "removed": "save the data (docs/backup.md), then in prod lift the protection: `pulumi state unprotect URN`",
    "shrunk": "volumes only grow: restore a backup (docs/backup.md) into a new store of the smaller size",
}


def bears_data(resource: Mapping[str, Any]) -> bool:
    """True for a resource that holds data: a claim, a StatefulSet with claims, or a database that an operator runs."""
    match resource["kind"]:
        case "PersistentVolumeClaim":
            return True
        case "StatefulSet":
            return bool(resource.get("spec", {}).get("volumeClaimTemplates"))
        case "Cluster":
            return "storage" in resource.get("spec", {})
        case _:
            return False


def data_namespaces(resources: Iterable[Mapping[str, Any]]) -> set[str]:
    """Namespaces that must stay, because deleting a namespace deletes the data in it."""
    return {resource["metadata"]["namespace"] for resource in resources if bears_data(resource)}


_SIZES = {
    "PersistentVolumeClaim": ("spec.resources.requests.storage",),
    "Cluster": ("spec.storage.size", "spec.walStorage.size"),
}
"""Kind → the fields with the sizes of the volumes."""


def volume_sizes(resource: Mapping[str, Any]) -> dict[str, Bytes]:
    """The sizes of a resource's volumes by path. Raises `InvalidInputError` for a value that is not a size."""
    sizes, faults = {}, []
    for path in _SIZES.get(resource["kind"], ()):
        value: Any = resource
        for key in path.split("."):
            value = value.get(key, {}) if isinstance(value, Mapping) else {}
        try:
            if value:
                sizes[path] = Bytes(str(value))
        except ValueError as error:
            faults.append(Fault(f"{resource['metadata']['name']}.{path}", f"is {value!r}", str(error)))
    if faults:
        raise InvalidInputError(resource["kind"], faults)
    return sizes
