"""kube-state-metrics: exports the state of nodes, pods, workloads and autoscalers from the API server as metrics."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override
from voice_policies import Duration

from components.access import node_reader, pod_reader
from components.component import Exemption
from components.container import Container, go_runtime
from components.operation import Name
from components.probes import Probes
from components.scrape import Scrape
from components.server import Server
from components.services import tcp
from components.workloads import ONE, Deployment

if TYPE_CHECKING:
    from components.kubernetes.types import PolicyRule

__all__ = ["METRICS", "KubeStateMetrics"]

PORT, TELEMETRY_PORT = 8080, 8081
SHUTDOWN = Duration("5s")
WATCHED = {
    "apps": ["deployments", "statefulsets"],
    "autoscaling": ["horizontalpodautoscalers"],
    "batch": ["cronjobs", "jobs"],
}
"""API group → the resources that the program watches in addition to nodes and pods."""
METRICS = (
    "kube_pod_container_status_restarts_total",
    "kube_pod_init_container_status_restarts_total",
    "kube_pod_status_phase",
    "kube_node_status_condition",
    "kube_deployment_spec_replicas",
    "kube_deployment_status_replicas_available",
    "kube_statefulset_replicas",
    "kube_statefulset_status_replicas_ready",
    "kube_job_status_failed",
    "kube_job_status_succeeded",
    "kube_cronjob_created",
    "kube_cronjob_spec_suspend",
    "kube_cronjob_status_last_successful_time",
    "kube_horizontalpodautoscaler_spec_min_replicas",
    "kube_horizontalpodautoscaler_spec_max_replicas",
    "kube_horizontalpodautoscaler_status_current_replicas",
    "kube_horizontalpodautoscaler_status_condition",
)
"""The metrics that alerts and dashboards read. Without this list the program exports every metric of the watched
resources."""


class KubeStateMetrics(Server):
    """One replica: each replica exports every object, so sums over two would be double. A restart delays alerts."""

    folder: ClassVar[str] = "30-observability"
    exemptions: ClassVar[tuple[Exemption, ...]] = (
        Exemption(
            rule="no_api_token",
            reason="reads nodes, and pods, workloads and autoscalers of our namespaces, from the API server",
        ),
        Exemption(
            rule="two_replicas",
            reason="sums over two replicas would be double; the replica stores nothing that a restart could lose",
        ),
    )
    scrape: ClassVar[Scrape] = Scrape(port=PORT, honor_labels=True)
    namespaces: tuple[Name, ...]
    """Namespaces that the program watches. It has no rights in other namespaces."""

    @override
    def workloads(self) -> Iterator[Deployment]:
        """The Deployment, with read access to the nodes and to the watched namespaces."""
        rules: list[PolicyRule] = [
            {"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]}
            for group, resources in WATCHED.items()
        ]
        readers = (pod_reader(self.metadata(), namespace, *rules) for namespace in self.namespaces)
        watched = ["nodes", "pods", *chain.from_iterable(WATCHED.values())]
        yield Deployment(
            name=self.name,
            rights=(*chain.from_iterable(readers), *node_reader(self.metadata())),
            container=Container(
                args=(
                    f"--port={PORT}",
                    f"--telemetry-port={TELEMETRY_PORT}",
                    f"--resources={','.join(watched)}",
                    f"--namespaces={','.join(self.namespaces)}",
                    f"--metric-allowlist={','.join(METRICS)}",
                ),
                env=go_runtime(self.sizing),
                ports={"http": PORT, "telemetry": TELEMETRY_PORT},
                probes=Probes.http("/metrics", "/readyz", port="telemetry"),
            ),
            replicas=ONE,
            shutdown=SHUTDOWN,
            services={self.name: tcp(PORT)},
        )
