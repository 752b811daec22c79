"""Prometheus: finds what is declared, asks it for metrics, evaluates rules and tells Alertmanager."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field
from typing_extensions import override
from voice_policies import Bytes, Conflict, Duration

from components.access import node_metrics_reader, pod_reader
from components.component import Exemption
from components.container import POD_NAME, Container
from components.files import file_text
from components.observability.retention import FILL_LIMIT, Stream, disk_conflict
from components.observability.rules import RuleGroup
from components.observability.scrape_jobs import ProbedHosts, ScrapeTarget, duplicates, kubelet_job
from components.operation import Name
from components.probes import Probes
from components.scrape import Scrape
from components.server import Server
from components.services import each_pod, tcp
from components.volumes import ConfigFiles
from components.workloads import DATA_VOLUME, StatefulSet

if TYPE_CHECKING:
    from components.component import Resource

__all__ = ["PORT", "Prometheus"]

PORT = 9090
CONFIG_PATH = "/etc/prometheus"
DATA_PATH = "/prometheus"
SHUTDOWN = Duration("120s")
"""Longest time to end queries and write the head's chunks."""
SAMPLE_BYTES = 2
"""On disk: Prometheus' documentation of its storage gives 1 to 2 bytes for an average sample."""
DAY_SECONDS = 86_400
LOCAL_SERIES = 20_000
"""Room for what comes over OTLP and remote write, and for what rules record: as much as ten services expose."""


class Prometheus(Server):
    """Replicas that each ask and keep everything, so that either may be lost; Alertmanager tells no alert twice."""

    folder: ClassVar[str] = "30-observability"
    exemptions: ClassVar[tuple[Exemption, ...]] = (
        Exemption(
            rule="no_api_token",
            reason="finds its targets among the pods of our namespaces, and reads the kubelets' volume statistics",
        ),
    )
    scrape: ClassVar[Scrape] = Scrape(port=PORT)
    replicas: Annotated[int, Field(ge=1, le=5)]
    storage: Bytes
    """Volume of each replica."""
    retention: Duration
    interval: Duration = Duration("30s")
    """Between two scrapes of a target, and two evaluations of a rule."""
    late: Duration
    """How late a sample may come over OTLP: as long as the Collector may have to hold it."""
    cluster: Name
    """Names this platform on every alert."""
    targets: tuple[ScrapeTarget, ...]
    probed_hosts: tuple[ProbedHosts, ...] = ()
    """Hosts that the blackbox exporter probes in addition to the targets."""
    prober: str
    """`host:port` of the blackbox exporter."""
    alertmanagers: tuple[str, ...]
    """`host:port` of each replica: every one is told."""
    groups: tuple[RuleGroup, ...]

    @override
    def conflicts(self) -> Iterator[str | Conflict]:
        yield from duplicates([*self.targets, *self.probed_hosts])
        keys = [rule.key for group in self.groups for rule in group.rules]
        for key in sorted({key for key in keys if keys.count(key) > 1}, key=str):
            yield f"groups: {' '.join(map(str, key))} stands twice"
        yield from disk_conflict("retention", self.stream, self.storage)

    @property
    def samples_per_second(self) -> float:
        """The declared rate: every series of every pod, once an interval."""
        series = LOCAL_SERIES + sum(target.pods * target.scrape.series for target in self.targets)
        return series / self.interval.seconds

    @property
    def stream(self) -> Stream:
        """The samples that it keeps, to compare with its disk."""
        daily = Bytes.of_units(round(self.samples_per_second * DAY_SECONDS * SAMPLE_BYTES))
        return Stream(name="metrics", daily=daily, retention=self.retention)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Namespaces in which it finds pods."""
        return tuple(sorted({target.namespace for target in self.targets}))

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
        yield from (hosts.job(self.prober) for hosts in self.probed_hosts)

    @override
    def workloads(self) -> Iterator[StatefulSet]:
        """The replicas. To replay the write-ahead log of a full head takes minutes."""
        yield StatefulSet(
            name=self.name,
            rights=tuple(self._rights()),
            container=Container(
                args=(
                    f"--config.file={CONFIG_PATH}/prometheus.json",
                    # Prometheus reads a changed ConfigMap in place, rules included: no restart, and no sidecar.
                    "--config.auto-reload",
                    f"--storage.tsdb.path={DATA_PATH}",
                    "--web.enable-otlp-receiver",
                    "--web.enable-remote-write-receiver",
                    # A point of a metric leads to a trace that made it.
                    "--enable-feature=exemplar-storage",
                ),
                ports={"http": PORT},
                env={"POD_NAME": POD_NAME},
                mounts={"config": CONFIG_PATH, DATA_VOLUME: DATA_PATH},
                probes=Probes.http("/-/healthy", "/-/ready", startup=Duration("10m")),
            ),
            volumes={"config": ConfigFiles(f"{self.name}-config", self.files, reloaded=True)},
            replicas=self.replicas,
            storage=self.storage,
            governing_service=f"{self.name}-replicas",
            parallel=True,
            shutdown=SHUTDOWN,
            services={self.name: tcp(PORT), f"{self.name}-replicas": each_pod(PORT)},
        )

    def _rights(self) -> Iterator[Resource]:
        for namespace in self.namespaces:
            yield from pod_reader(self.metadata(), namespace)
        yield from node_metrics_reader(self.metadata())
