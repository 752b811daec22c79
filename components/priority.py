"""Priority of pods: which pods are scheduled first and evicted last when nodes are full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from components.component import Component

if TYPE_CHECKING:
    from components.component import Resource

__all__ = ["PRIORITIES", "PriorityClasses"]

Priority: TypeAlias = Literal["foundation", "core", "standard", "batch"]
PRIORITIES: dict[Priority, tuple[int, str]] = {
    "foundation": (1_000_000, "gateway, egress, datastores and node agents: everything depends on them"),
    "core": (100_000, "services of the core tier, and Prometheus, Alertmanager and the Collector"),
    "standard": (10_000, "services of the standard tier, and the other telemetry servers"),
    "batch": (1_000, "jobs, and services of the batch tier: they wait for room and displace no other pod"),
}
"""Value and purpose of each class. Pods without a class have the value 0. The system's own pods have 2,000,000,000 or
more."""


def priority_class(priority: Priority) -> str:
    """The name of the class in the cluster."""
    return f"voice-{priority}"


class PriorityClasses(Component):
    """The priority classes, which belong to the cluster and to no namespace."""

    folder: ClassVar[str] = "10-namespaces"

    def resources(self) -> Iterator[Resource]:
        """Each class."""
        for priority, (value, purpose) in PRIORITIES.items():
            yield {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": priority_class(priority), "labels": self.labels},
                "value": value,
                "description": purpose,
                "globalDefault": False,
                "preemptionPolicy": "Never" if priority == "batch" else "PreemptLowerPriority",
            }
