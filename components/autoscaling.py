"""Horizontal autoscaling on CPU, and on memory where memory dominates."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.kubernetes.types import HorizontalPodAutoscaler, MetricSpec, ObjectMeta
    from components.node import Replicas

CPU_TARGET = 70
MEMORY_TARGET = 80
"""Percent of the request (the platform's facts)."""
SCALE_DOWN_WINDOW = 300
"""Seconds of lower load before replicas go (the Kubernetes default, said so that it is seen)."""


def autoscaler(metadata: ObjectMeta, replicas: Replicas, *, on_memory: bool) -> HorizontalPodAutoscaler:
    """The autoscaler of the Deployment that has the same name; it alone owns the replica count."""
    metrics = [_utilization("cpu", CPU_TARGET)]
    if on_memory:
        metrics.append(_utilization("memory", MEMORY_TARGET))
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"]},
            "minReplicas": replicas.min,
            "maxReplicas": replicas.max,
            "metrics": metrics,
            "behavior": {
                "scaleUp": {"policies": [{"type": "Percent", "value": 100, "periodSeconds": 30}]},
                "scaleDown": {
                    "stabilizationWindowSeconds": SCALE_DOWN_WINDOW,
                    "policies": [{"type": "Percent", "value": 25, "periodSeconds": 60}],
                },
            },
        },
    }


def _utilization(resource: str, percent: int) -> MetricSpec:
    return {
        "type": "Resource",
        "resource": {"name": resource, "target": {"type": "Utilization", "averageUtilization": percent}},
    }
