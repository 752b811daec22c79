"""The OpenTelemetry Collector as a gateway: what every telemetry goes through, and waits in while a backend is away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field
from voice_policies import Bytes, Duration

from components.access import service_account
from components.component import Component, Exemption
from components.container import Image, hardened_container
from components.disruption_budget import disruption_budget
from components.network_policy import NetworkEnd, network_policy
from components.node import Sizing
from components.observability.collector_config import (
    GRPC_PORT,
    HEALTH_PORT,
    HTTP_PORT,
    LARGEST_BATCH_BYTES,
    METRICS_PORT,
    QUEUE_PATH,
    Backend,
    Sampling,
    configuration,
)
from components.observability.retention import FILL_LIMIT
from components.policy_config import CONFIG_DIGEST_ANNOTATION, config_files, digest_of, file_text
from components.probes import HttpProbes
from components.scrape import Scrape
from components.stateful_set import DATA_VOLUME, mount, stateful_set, tcp_service, with_volumes
from components.workload import pod_spec, pre_stop, secret_mounts, secret_volumes

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import Container, PodSpec, Service

CONFIG_PATH = "/etc/otelcol"
STOP = Duration("30s")
"""Longest time to write what is under way to the queues."""
COMPACTION_COPIES = 2
"""Files of a queue while it is written anew."""


class Collector(Component):
    """Replicas with a volume each, which holds what a backend has not taken yet.

    Every queue is as large as what arrives for its backend in the longest outage, with one replica missing.
    """

    kind: ClassVar[str] = "Collector"
    folder: ClassVar[str] = "30-observability"
    scrape: ClassVar[Scrape] = Scrape(port=METRICS_PORT)
    image: Image
    sizing: Sizing
    replicas: Annotated[int, Field(ge=1, le=20)]
    storage: Bytes
    """Of each replica."""
    outage: Duration
    """The longest absence of a backend that loses nothing."""
    backends: Annotated[tuple[Backend, ...], Field(min_length=1)]
    sampling: Sampling
    ingress: tuple[NetworkEnd, ...] = ()
    egress: tuple[NetworkEnd, ...] = ()

    def conflicts(self) -> Iterator[str]:
        """Settings that cannot hold together, a sentence each."""
        names = [backend.name for backend in self.backends]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"backends: {name} stands twice"
        for backend in self.backends:
            if (backend.user is None) != (backend.secret is None):
                yield f"backends.{backend.name}: user and secret stand together or not at all"
        needed = sum(self.queue(backend).units for backend in self.backends) * COMPACTION_COPIES
        room = self.storage * FILL_LIMIT
        if needed > room.units:
            yield (
                f"outage: {self.outage} of what arrives needs {needed / 2**30:.1f} GiB in each of {self.replicas} "
                f"replicas, and {FILL_LIMIT:.0%} of the disk ({self.storage}) is {room.gibibytes:.1f} GiB"
            )

    def queue(self, backend: Backend) -> Bytes:
        """The size of a backend's queue in one replica; a whole batch fits at least."""
        share = max(1, self.replicas - 1)
        needed = backend.bytes_per_second * (self.outage.seconds / share)
        return max(needed, Bytes.of_units(LARGEST_BATCH_BYTES))

    @property
    def files(self) -> dict[str, str]:
        """Its configuration, as mounted."""
        queues = [(backend, self.queue(backend)) for backend in self.backends]
        document = configuration(queues, self.sampling, self.sizing.memory_limit)
        return {"collector.json": file_text(document)}

    @property
    def exemptions(self) -> tuple[Exemption, ...]:
        """Every hardening default it gives up."""
        return (Exemption(rule="own_readiness", reason="the program tells one thing of itself: that it answers"),)

    def resources(self) -> Iterator[Resource]:
        """What they need first, then the replicas."""
        yield service_account(self.metadata())
        yield config_files(self.metadata("config"), self.files)
        yield network_policy(self.metadata(), self.selector, self.ingress, self.egress)
        yield self._service()
        yield tcp_service(self.metadata("replicas"), self.selector, GRPC_PORT, headless=True)
        collectors = stateful_set(
            self.metadata(),
            self.selector,
            {
                "metadata": {"labels": self.labels, "annotations": {CONFIG_DIGEST_ANNOTATION: digest_of(self.files)}},
                "spec": self._pod(),
            },
            replicas=self.replicas,
        )
        collectors["spec"]["serviceName"] = f"{self.name}-replicas"
        collectors["spec"]["podManagementPolicy"] = "Parallel"
        yield from with_volumes(collectors, self.storage)
        if self.replicas > 1:
            yield disruption_budget(self.metadata(), self.selector)

    def _service(self) -> Service:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata(),
            "spec": {
                "type": "ClusterIP",
                "selector": self.selector,
                "ports": [
                    {"name": "otlp-grpc", "port": GRPC_PORT, "targetPort": "otlp-grpc", "appProtocol": "grpc"},
                    {"name": "otlp-http", "port": HTTP_PORT, "targetPort": "otlp-http", "appProtocol": "http"},
                ],
            },
        }

    def _pod(self) -> PodSpec:
        config: Any = {"name": "config", "configMap": {"name": f"{self.name}-config"}}
        return pod_spec(self.name, self._collector(), [config, *secret_volumes(self.secrets)], self.selector, STOP)

    def _collector(self) -> Container:
        container = hardened_container(self.name, self.image, self.sizing)
        container["args"] = [f"--config={CONFIG_PATH}/collector.json"]
        soft_limit = int(self.sizing.memory_limit.units * 0.8) >> 20
        container["env"] = [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "GOMEMLIMIT", "value": f"{soft_limit}MiB"},
        ]
        container["ports"] = [
            {"name": "otlp-grpc", "containerPort": GRPC_PORT},
            {"name": "otlp-http", "containerPort": HTTP_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
            {"name": "health", "containerPort": HEALTH_PORT},
        ]
        mount(container, "config", CONFIG_PATH, read_only=True)
        mount(container, DATA_VOLUME, QUEUE_PATH)
        container["volumeMounts"] += secret_mounts(self.secrets)
        HttpProbes(port="health", liveness_path="/", readiness_path="/").onto(container)
        container["lifecycle"] = pre_stop()
        return container
