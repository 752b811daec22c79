"""kube-state-metrics: what the API server knows of our pods and autoscalers, as metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from voice_policies import Duration

from components.access import TOKEN_PATH, TOKEN_VOLUME, pod_reader, service_account, token_volume
from components.component import Component, Exemption
from components.container import Image, hardened_container
from components.network_policy import NetworkEnd, network_policy
from components.node import Replicas, Sizing
from components.operation import Name
from components.probes import HttpProbes
from components.scrape import Scrape
from components.stateful_set import mount, tcp_service
from components.workload import deployment, pod_spec, pre_stop

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import Container, PolicyRule

PORT, TELEMETRY_PORT = 8080, 8081
STOP = Duration("5s")
METRICS = (
    "kube_pod_container_status_restarts_total",
    "kube_horizontalpodautoscaler_spec_min_replicas",
    "kube_horizontalpodautoscaler_spec_max_replicas",
    "kube_horizontalpodautoscaler_status_current_replicas",
)
"""What the rules read. It knows a hundred times as much, which nobody asks for."""


class KubeStateMetrics(Component):
    """One replica: another would only count everything twice. While it is away its alerts wait, and nothing else."""

    kind: ClassVar[str] = "KubeStateMetrics"
    folder: ClassVar[str] = "30-observability"
    scrape: ClassVar[Scrape] = Scrape(port=PORT, honor_labels=True)
    image: Image
    sizing: Sizing
    namespaces: tuple[Name, ...]
    """What it watches: it has rights in these alone."""
    ingress: tuple[NetworkEnd, ...] = ()
    egress: tuple[NetworkEnd, ...] = ()

    @property
    def exemptions(self) -> tuple[Exemption, ...]:
        """It reads pods and autoscalers, once for all."""
        return (
            Exemption(rule="no_api_token", reason="reads pods and autoscalers of our namespaces to count them"),
            Exemption(rule="two_replicas", reason="two would count everything twice, and it holds nothing"),
        )

    def resources(self) -> Iterator[Resource]:
        """What it needs first, then itself."""
        autoscalers: PolicyRule = {
            "apiGroups": ["autoscaling"],
            "resources": ["horizontalpodautoscalers"],
            "verbs": ["list", "watch"],
        }
        yield service_account(self.metadata())
        for namespace in self.namespaces:
            yield from pod_reader(self.metadata(), namespace, autoscalers)
        yield network_policy(self.metadata(), self.selector, self.ingress, self.egress)
        yield tcp_service(self.metadata(), self.selector, PORT)
        pod = pod_spec(self.name, self._container(), [token_volume()], self.selector, STOP)
        one = Replicas(min=1, max=1)
        yield deployment(self.metadata(), {"labels": self.labels}, self.selector, pod, one)

    def _container(self) -> Container:
        container = hardened_container(self.name, self.image, self.sizing)
        container["args"] = [
            f"--port={PORT}",
            f"--telemetry-port={TELEMETRY_PORT}",
            "--resources=pods,horizontalpodautoscalers",
            f"--namespaces={','.join(self.namespaces)}",
            f"--metric-allowlist={','.join(METRICS)}",
        ]
        container["ports"] = [
            {"name": "http", "containerPort": PORT},
            {"name": "telemetry", "containerPort": TELEMETRY_PORT},
        ]
        mount(container, TOKEN_VOLUME, TOKEN_PATH, read_only=True)
        # Alive is a server that answers, whatever the API server does; ready is one whose own metrics can be read.
        HttpProbes(port="telemetry", liveness_path="/metrics", readiness_path="/readyz").onto(container)
        container["lifecycle"] = pre_stop()
        return container
