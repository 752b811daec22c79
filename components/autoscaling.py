"""Horizontal autoscaling on the CPU of one container.

The autoscaler ignores memory. Python and Go return little memory to the system after a peak. So an autoscaler that
measures memory would never remove the new replicas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.kubernetes.types import HorizontalPodAutoscaler, ObjectMeta
    from components.node import Replicas

CPU_TARGET = 70
"""Percent of the CPU request. Source: the platform's specification."""
SCALE_DOWN_WINDOW = 300
"""Seconds of lower load before the autoscaler removes replicas. This is Kubernetes' default."""


def autoscaler(metadata: ObjectMeta, replicas: Replicas, container: str) -> HorizontalPodAutoscaler:
    """The autoscaler of the Deployment with the same name. Nothing else sets the replica count.

    The autoscaler measures only `container`, because a metric of the pod would include the mesh's proxy.
    """
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"]},
            "minReplicas": replicas.min,
            "maxReplicas": replicas.max,
            "metrics": [
                {
                    "type": "ContainerResource",
                    "containerResource": {
                        "name": "cpu",
                        "container": container,
                        "target": {"type": "Utilization", "averageUtilization": CPU_TARGET},
                    },
                }
            ],
            "behavior": {
                "scaleUp": {"policies": [{"type": "Percent", "value": 100, "periodSeconds": 30}]},
                "scaleDown": {
                    "stabilizationWindowSeconds": SCALE_DOWN_WINDOW,
                    "policies": [{"type": "Percent", "value": 25, "periodSeconds": 60}],
                },
            },
        },
    }
