"""Horizontal autoscaling on CPU, and also on memory for services whose memory fills first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.kubernetes.types import HorizontalPodAutoscaler, MetricSpec, ObjectMeta
    from components.node import Replicas

CPU_TARGET = 70
MEMORY_TARGET = 80
"""Percent of the memory request. Source: the platform's specification."""
SCALE_DOWN_WINDOW = 300
"""Seconds of lower load before the autoscaler removes replicas. Kubernetes' default, written out for readers."""


def autoscaler(metadata: ObjectMeta, replicas: Replicas, *, on_memory: bool) -> HorizontalPodAutoscaler:
    """The autoscaler of the Deployment with the same name. Nothing else sets the replica count."""
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
