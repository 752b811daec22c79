"""PodDisruptionBudgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.kubernetes.types import ObjectMeta, PodDisruptionBudget


def disruption_budget(metadata: ObjectMeta, selector: dict[str, str]) -> PodDisruptionBudget:
    """A budget that lets a drain evict one replica at a time. A drain may always evict a pod that is not ready."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata,
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector},
        },
    }
