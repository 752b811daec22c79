"""Which resources bear data, and what to do instead of losing it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from voice_policies import Bytes

Loss = Literal["replaced", "removed", "shrunk"]
INSTEAD: dict[Loss, str] = {
    "replaced": "leave the field as it is, or make a second store, move the data (docs/backup.md), remove the first",
    "removed": "save the data (docs/backup.md), then in prod lift the protection: `pulumi state unprotect URN`",
    "shrunk": "volumes only grow: restore a backup (docs/backup.md) into a new store of the smaller size",
}


def bears_data(resource: Mapping[str, Any]) -> bool:
    """Whether data goes with the resource: claims, what holds them, and a database that an operator runs."""
    match resource["kind"]:
        case "PersistentVolumeClaim":
            return True
        case "StatefulSet":
            return bool(resource["spec"].get("volumeClaimTemplates"))
        case "Cluster":
            return "storage" in resource["spec"]
        case _:
            return False


def data_namespaces(resources: Iterable[Mapping[str, Any]]) -> set[str]:
    """Namespaces that must not go: whatever bears data goes with its namespace."""
    return {resource["metadata"]["namespace"] for resource in resources if bears_data(resource)}


def volume_size(resource: Mapping[str, Any]) -> Bytes | None:
    """The size of the volume, or of each volume, that a resource asks for; `None` where it asks for none."""
    match resource["kind"]:
        case "PersistentVolumeClaim":
            size = resource["spec"].get("resources", {}).get("requests", {}).get("storage")
        case "Cluster":
            size = resource["spec"].get("storage", {}).get("size")
        case _:
            size = None
    return Bytes(size) if size else None
