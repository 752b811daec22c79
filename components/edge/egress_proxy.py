"""An egress proxy: Envoy, which lets each caller reach its declared hosts and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from voice_policies import Duration

from components.access import service_account
from components.component import Component
from components.container import Image, hardened_container
from components.disruption_budget import disruption_budget
from components.edge.envoy import LIVE_PATH, METRICS_PATH, READY_PATH, STATUS_PORT, AllowList, configuration
from components.network_policy import NetworkEnd, network_policy
from components.node import Replicas, Sizing
from components.policy_config import CONFIG_DIGEST_ANNOTATION, config_files, digest_of, file_text
from components.probes import HttpProbes
from components.scrape import Scrape
from components.workload import PRE_STOP, deployment, pod_spec, pre_stop

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import (
        Container,
        ContainerPort,
        Deployment,
        ObjectMeta,
        Service,
        ServicePort,
        Volume,
    )

CONFIGURATION_PATH = "/etc/envoy"
FILE_NAME = "envoy.json"
LOG_INTERVAL_MILLISECONDS = 1000
"""Envoy's own 10 s would tell of a refusal when its caller has given up."""


class EgressProxy(Component):
    """One of the proxies, with what it admits."""

    kind: ClassVar[str] = "EgressProxy"
    folder: ClassVar[str] = "30-egress"
    scrape: ClassVar[Scrape] = Scrape(port=STATUS_PORT, path=METRICS_PATH)
    image: Image
    sizing: Sizing
    replicas: Replicas
    allow_lists: tuple[AllowList, ...]
    ingress: tuple[NetworkEnd, ...]
    egress: tuple[NetworkEnd, ...]
    longest_request: Duration
    """The longest timeout of the calls through it. Envoy closes its connections when it is told to stop, so that long
    after it has left the endpoints it is not told."""

    def resources(self) -> Iterator[Resource]:
        """What it needs first, then the Deployment, then what watches over it."""
        yield service_account(self.metadata())
        yield config_files(self.metadata("configuration"), self._files())
        yield network_policy(self.metadata(), self.selector, self.ingress, self.egress)
        yield self._service()
        yield self._deployment()
        if self.replicas.min > 1:
            yield disruption_budget(self.metadata(), self.selector)

    def _files(self) -> dict[str, str]:
        return {FILE_NAME: file_text(configuration(self.allow_lists))}

    def _deployment(self) -> Deployment:
        volume: Volume = {"name": "configuration", "configMap": {"name": f"{self.name}-configuration"}}
        pod = pod_spec(self.name, self._container(), [volume], self.selector, self.longest_request)
        annotations = {CONFIG_DIGEST_ANNOTATION: digest_of(self._files())}
        template: ObjectMeta = {"labels": self.labels, "annotations": annotations}
        return deployment(self.metadata(), template, self.selector, pod, self.replicas)

    def _service(self) -> Service:
        ports: list[ServicePort] = [{"name": f"tls-{each.port}", "port": each.port} for each in self.allow_lists]
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata(),
            "spec": {
                "type": "ClusterIP",
                "selector": self.selector,
                "ports": [*ports, {"name": "status", "port": STATUS_PORT, "targetPort": "status"}],
            },
        }

    def _container(self) -> Container:
        container = hardened_container(self.name, self.image, self.sizing)
        container["command"] = ["/usr/local/bin/envoy"]
        container["args"] = [
            *("--config-path", f"{CONFIGURATION_PATH}/{FILE_NAME}"),
            *("--concurrency", str(max(1, round(self.sizing.cpu_limit.cores)))),
            *("--file-flush-interval-msec", str(LOG_INTERVAL_MILLISECONDS)),
            "--disable-hot-restart",
        ]
        ports: list[ContainerPort] = [
            {"name": f"tls-{each.port}", "containerPort": each.port} for each in self.allow_lists
        ]
        container["ports"] = [*ports, {"name": "status", "containerPort": STATUS_PORT}]
        container["volumeMounts"] += [{"name": "configuration", "mountPath": CONFIGURATION_PATH, "readOnly": True}]
        container["lifecycle"] = pre_stop(PRE_STOP + self.longest_request)
        HttpProbes(port="status", liveness_path=LIVE_PATH, readiness_path=READY_PATH).onto(container)
        return container
