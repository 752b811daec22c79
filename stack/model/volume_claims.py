"""The volumes that the rendered resources claim, with their sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from voice_policies import Bytes

__all__ = ["claimed_storage"]

Claim = tuple[str, str]
"""Namespace of a claim, and a name that no other claim of the namespace has. In the cluster, the claims of a database
have other names."""


def claimed_storage(resources: Iterable[Mapping[str, Any]]) -> dict[Claim, Bytes]:
    """Each claim with its size.

    A claim of a StatefulSet's template may also be rendered as a resource of the same name. Such a claim counts once.
    """
    return {claim: Bytes(size) for resource in resources for claim, size in _claims(resource)}


def _claims(resource: Mapping[str, Any]) -> Iterator[tuple[Claim, str]]:
    metadata, spec = resource["metadata"], resource.get("spec", {})
    namespace, name = metadata.get("namespace", ""), metadata["name"]
    match resource["kind"]:
        case "PersistentVolumeClaim":
            yield (namespace, name), spec["resources"]["requests"]["storage"]
        case "StatefulSet":
            for template in spec.get("volumeClaimTemplates", ()):
                size = template["spec"]["resources"]["requests"]["storage"]
                for index in range(spec.get("replicas", 1)):
                    yield (namespace, f"{template['metadata']['name']}-{name}-{index}"), size
        case "Cluster":
            for field in ("storage", "walStorage"):
                for index in range(1, 1 + spec["instances"] if field in spec else 0):
                    yield (namespace, f"{name}-{index}-{field}"), spec[field]["size"]
