"""Prometheus: finds what is declared, asks it for metrics, evaluates rules and tells Alertmanager."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field
from voice_policies import Bytes, Duration

from components.access import TOKEN_PATH, TOKEN_VOLUME, pod_reader, service_account, token_volume
from components.component import Component, Exemption
from components.container import Image, hardened_container
from components.disruption_budget import disruption_budget
from components.network_policy import NetworkEnd, network_policy
from components.node import Sizing
from components.observability.retention import FILL_LIMIT, Stream, disk_conflicts
from components.observability.rules import RuleGroup
from components.observability.scraping import ScrapeTarget, certificates_job, duplicates, kubelet_job
from components.operation import Name
from components.policy_config import config_files, file_text
from components.probes import HttpProbes
from components.scrape import Scrape
from components.stateful_set import DATA_VOLUME, mount, stateful_set, tcp_service, with_volumes
from components.workload import pod_spec, pre_stop

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import ClusterRole, ClusterRoleBinding, Container, PodSpec

PORT = 9090
CONFIG_PATH = "/etc/prometheus"
DATA_PATH = "/prometheus"
STOP = Duration("120s")
"""Longest time to end queries and write the head's chunks."""
SAMPLE_BYTES = 2
"""On disk: Prometheus' documentation of its storage gives 1 to 2 bytes for an average sample."""
DAY_SECONDS = 86_400
LOCAL_SERIES = 20_000
"""Room for what comes over OTLP and remote write, and for what rules record: as much as ten services expose."""


class Prometheus(Component):
    """Replicas that each ask and keep everything, so that either may be lost; Alertmanager tells no alert twice."""

    kind: ClassVar[str] = "Prometheus"
    folder: ClassVar[str] = "30-observability"
    scrape: ClassVar[Scrape] = Scrape(port=PORT)
    image: Image
    sizing: Sizing
    replicas: Annotated[int, Field(ge=1, le=5)]
    storage: Bytes
    """Of each replica."""
    retention: Duration
    interval: Duration = Duration("30s")
    """Between two scrapes of a target, and two evaluations of a rule."""
    late: Duration
    """How late a sample may come over OTLP: as long as the Collector may have to hold it."""
    cluster: Name
    """Names this platform on every alert."""
    targets: tuple[ScrapeTarget, ...]
    certificates: tuple[str, ...] = ()
    """`host:port` of what shows a certificate to clients; `prober` asks it."""
    prober: str
    """`host:port` of the blackbox exporter."""
    alertmanagers: tuple[str, ...]
    """`host:port` of each replica: every one is told."""
    groups: tuple[RuleGroup, ...]
    ingress: tuple[NetworkEnd, ...] = ()
    egress: tuple[NetworkEnd, ...] = ()

    def conflicts(self) -> Iterator[str]:
        """Settings that cannot hold together, a sentence each."""
        yield from duplicates(self.targets)
        keys = [rule.key for group in self.groups for rule in group.rules]
        for key in sorted({key for key in keys if keys.count(key) > 1}, key=str):
            yield f"groups: {' '.join(map(str, key))} stands twice"
        yield from disk_conflicts([self.stream], self.storage)

    @property
    def samples_per_second(self) -> float:
        """The declared rate: every series of every pod, once an interval."""
        series = LOCAL_SERIES + sum(target.pods * target.scrape.series for target in self.targets)
        return series / self.interval.seconds

    @property
    def stream(self) -> Stream:
        """What it keeps, for the sum against its disk."""
        daily = Bytes.of_units(round(self.samples_per_second * DAY_SECONDS * SAMPLE_BYTES))
        return Stream(name="metrics", daily=daily, retention=self.retention)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Where it finds pods."""
        return tuple(sorted({target.namespace for target in self.targets}))

    @property
    def exemptions(self) -> tuple[Exemption, ...]:
        """It reads pods where it finds them, and how full volumes are."""
        reason = "finds its targets among the pods of our namespaces, and reads the kubelets' volume statistics"
        return (Exemption(rule="no_api_token", reason=reason),)

    @property
    def files(self) -> dict[str, str]:
        """Its configuration, as mounted."""
        groups = [group.document() for group in self.groups]
        return {"prometheus.json": file_text(self._configuration()), "rules.json": file_text({"groups": groups})}

    def _configuration(self) -> dict[str, Any]:
        return {
            "global": {
                "scrape_interval": str(self.interval),
                "scrape_timeout": "10s",
                "evaluation_interval": str(self.interval),
                "external_labels": {"cluster": self.cluster, "replica": "${POD_NAME}"},
            },
            "storage": {
                "tsdb": {
                    "out_of_order_time_window": str(self.late),
                    "retention": {
                        "time": str(self.retention),
                        "size": f"{int(self.storage.units * FILL_LIMIT) // 1_000_000}MB",
                    },
                }
            },
            "otlp": {"promote_resource_attributes": ["service.name", "service.namespace", "k8s.pod.name"]},
            "rule_files": [f"{CONFIG_PATH}/rules.json"],
            "alerting": {
                # The replicas' alerts are one alert.
                "alert_relabel_configs": [{"regex": "replica", "action": "labeldrop"}],
                "alertmanagers": [{"static_configs": [{"targets": list(self.alertmanagers)}]}],
            },
            "scrape_configs": list(self._jobs()),
        }

    def _jobs(self) -> Iterator[dict[str, Any]]:
        yield from (target.job(self.prober) for target in self.targets)
        yield kubelet_job(self.namespaces)
        if self.certificates:
            yield certificates_job(self.prober, self.certificates)

    def resources(self) -> Iterator[Resource]:
        """What they need first, then the replicas."""
        yield service_account(self.metadata())
        for namespace in self.namespaces:
            yield from pod_reader(self.metadata(), namespace)
        yield from self._kubelet_reader()
        yield config_files(self.metadata("config"), self.files)
        yield network_policy(self.metadata(), self.selector, self.ingress, self.egress)
        yield tcp_service(self.metadata(), self.selector, PORT)
        yield tcp_service(self.metadata("replicas"), self.selector, PORT, headless=True)
        servers = stateful_set(
            self.metadata(),
            self.selector,
            {"metadata": {"labels": self.labels}, "spec": self._pod()},
            replicas=self.replicas,
        )
        servers["spec"]["serviceName"] = f"{self.name}-replicas"
        servers["spec"]["podManagementPolicy"] = "Parallel"
        yield from with_volumes(servers, self.storage)
        if self.replicas > 1:
            yield disruption_budget(self.metadata(), self.selector)

    def _kubelet_reader(self) -> Iterator[ClusterRole | ClusterRoleBinding]:
        """Nodes are in no namespace, so the right to read their metrics cannot be either."""
        name = f"{self.namespace}-{self.name}-kubelets"
        yield {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name, "labels": self.labels},
            "rules": [{"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}],
        }
        yield {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name, "labels": self.labels},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": self.name, "namespace": self.namespace}],
        }

    def _pod(self) -> PodSpec:
        config: Any = {"name": "config", "configMap": {"name": f"{self.name}-config"}}
        return pod_spec(self.name, self._server(), [config, token_volume()], self.selector, STOP)

    def _server(self) -> Container:
        container = hardened_container(self.name, self.image, self.sizing)
        container["args"] = [
            f"--config.file={CONFIG_PATH}/prometheus.json",
            # A changed ConfigMap is read in place, rules included: no restart, and no sidecar that asks for a reload.
            "--config.auto-reload",
            f"--storage.tsdb.path={DATA_PATH}",
            "--web.enable-otlp-receiver",
            "--web.enable-remote-write-receiver",
            # A point of a metric leads to a trace that made it.
            "--enable-feature=exemplar-storage",
        ]
        container["env"] = [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
        container["ports"] = [{"name": "http", "containerPort": PORT}]
        mount(container, "config", CONFIG_PATH, read_only=True)
        mount(container, DATA_VOLUME, DATA_PATH)
        mount(container, TOKEN_VOLUME, TOKEN_PATH, read_only=True)
        # Replaying the write-ahead log of a full head takes minutes.
        budget = Duration("10m")
        HttpProbes(liveness_path="/-/healthy", readiness_path="/-/ready", startup_budget=budget).onto(container)
        container["lifecycle"] = pre_stop()
        return container
