"""Prometheus: discovers the declared targets, scrapes them, evaluates rules and sends alerts to Alertmanager."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field
from typing_extensions import override
from voice_policies import Bytes, Conflict, Duration

from components.access import node_metrics_reader, pod_reader
from components.component import Exemption
from components.container import POD_NAME, Container, go_runtime
from components.files import file_text
from components.observability.rules import RuleGroup
from components.observability.scrape_jobs import ProbedHosts, ScrapeTarget, duplicates, kubelet_job, mesh_proxy_job
from components.operation import Name
from components.priority import Priority
from components.probes import Probes
from components.retention import Stream, disk_conflict
from components.scrape import Scrape
from components.secret_keys import merged
from components.server import Server
from components.services import each_pod, tcp
from components.volumes import ConfigFiles
from components.workloads import DATA_VOLUME, StatefulSet
from components.writes import FILL_LIMIT, StartWork, Write

if TYPE_CHECKING:
    from components.component import Resource

__all__ = ["PORT", "Prometheus"]

PORT = 9090
CONFIG_PATH = "/etc/prometheus"
DATA_PATH = "/prometheus"
SHUTDOWN = Duration("120s")
"""Longest time to finish queries and write the chunks of the head block."""
SAMPLE_BYTES = 2
"""Bytes on disk for a sample. Prometheus's documentation gives 1 to 2 on average."""
DAY_SECONDS = 86_400
HEAD_SECONDS = 3 * 3600
"""Longest span of the head, in seconds: Prometheus cuts a block of 2 h when the head is 3 h long."""
LOGGED_SAMPLE_BYTES = 16
"""Assumed size of a sample in the write-ahead log: 8 bytes for the value, and at most 8 for reference and time."""
LARGEST_BLOCK = 0.1
"""Largest share of the retention that one compacted block spans. Source: Prometheus's documentation of its storage."""
REPLAY_RATE = Bytes("20Mi")
"""Assumed bytes per second of the replay: one core decodes the log and builds the head's index."""
LOCAL_SERIES = 20_000
"""Assumed number of series that arrive over OTLP and remote write, and of recorded series. Ten pods export about as
many series (`SERIES` in `components/scrape.py`)."""


class Prometheus(Server):
    """Replicas that each scrape and store everything, so that one may fail. Alertmanager removes duplicate alerts."""

    folder: ClassVar[str] = "30-observability"
    priority: ClassVar[Priority] = "core"
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
    """Time between two scrapes of a target, and between two evaluations of a group that declares no `interval`."""
    late: Duration
    """Largest delay of a sample over OTLP: the longest time that the Collector may queue it."""
    cluster: str
    """Label `cluster` on every alert, to tell platforms apart."""
    targets: tuple[ScrapeTarget, ...]
    probed_hosts: tuple[ProbedHosts, ...] = ()
    """Hosts that the blackbox exporter or a store's exporter connects to, in addition to the targets."""
    proxied: tuple[Name, ...] = ()
    """Namespaces whose pods have a proxy of the mesh."""
    prober: str
    """`host:port` of the blackbox exporter."""
    alertmanagers: tuple[str, ...]
    """`host:port` of each replica. Prometheus sends every alert to all of them."""
    groups: tuple[RuleGroup, ...]
    runbook: str
    """Address of the runbook page. It has a section for each alert's name."""

    @override
    def conflicts(self) -> Iterator[str | Conflict]:
        yield from duplicates([*self.targets, *self.probed_hosts])
        keys = [rule.key for group in self.groups for rule in group.rules]
        for key in sorted({key for key in keys if keys.count(key) > 1}, key=str):
            yield f"groups: {' '.join(map(str, key))} appears twice"
        yield from disk_conflict("retention", self.stream, self.storage)

    @property
    def samples_per_second(self) -> float:
        """The expected rate of samples: `LOCAL_SERIES` and the declared series of every pod, once in an interval."""
        series = LOCAL_SERIES + sum(target.pods * target.scrape.series for target in self.targets)
        return series / self.interval.seconds

    @property
    def stream(self) -> Stream:
        """The stored samples as a stream, to compare them with the disk."""
        daily = Bytes.of_units(round(self.samples_per_second * DAY_SECONDS * SAMPLE_BYTES))
        return Stream(name="metrics", daily=daily, retention=self.retention)

    @override
    def streams_kept(self) -> Iterator[Stream]:
        yield self.stream.model_copy(update={"copies": self.replicas})

    @property
    def _log(self) -> Bytes:
        """Largest size of the write-ahead log, which holds the samples of the head (`HEAD_SECONDS`)."""
        return Bytes.of_units(round(self.samples_per_second * HEAD_SECONDS * LOGGED_SAMPLE_BYTES))

    def _writes(self) -> tuple[Write, ...]:
        kept = self.stream.kept
        return (
            Write(DATA_VOLUME, kept, f"blocks of {self.retention} and the current day"),
            Write(
                DATA_VOLUME,
                kept * LARGEST_BLOCK,
                f"the block that a compaction writes, {LARGEST_BLOCK:.0%} of all blocks",
            ),
            Write(DATA_VOLUME, self._log, "write-ahead log of three hours"),
        )

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Namespaces in which Prometheus discovers pods."""
        return tuple(sorted({target.namespace for target in self.targets}))

    @property
    def files(self) -> dict[str, str]:
        """Names and texts of the configuration files, as mounted."""
        groups = [group.document(self.runbook) for group in self.groups]
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
                        # Prometheus reads MB as 1024² bytes.
                        "size": f"{int(self.storage.units * FILL_LIMIT) // 2**20}MB",
                    },
                }
            },
            "otlp": {"promote_resource_attributes": ["service.name", "service.namespace", "k8s.pod.name"]},
            "rule_files": [f"{CONFIG_PATH}/rules.json"],
            "alerting": {
                # Drop the label `replica`, so that Alertmanager treats the same alert from two replicas as one.
                "alert_relabel_configs": [{"regex": "replica", "action": "labeldrop"}],
                "alertmanagers": [{"static_configs": [{"targets": list(self.alertmanagers)}]}],
            },
            "scrape_configs": list(self._jobs()),
        }

    def _jobs(self) -> Iterator[dict[str, Any]]:
        yield from (target.job(self.prober) for target in self.targets)
        yield kubelet_job(self.namespaces)
        if self.proxied:
            yield mesh_proxy_job(self.proxied)
        yield from (hosts.job(self.prober) for hosts in self.probed_hosts)

    @override
    def workloads(self) -> Iterator[StatefulSet]:
        """The replicas. A start may take minutes, because Prometheus replays the write-ahead log."""
        yield StatefulSet(
            name=self.name,
            rights=tuple(self._rights()),
            container=Container(
                args=(
                    f"--config.file={CONFIG_PATH}/prometheus.json",
                    # Prometheus reloads a changed ConfigMap itself, rules included: no restart, no sidecar.
                    "--config.auto-reload",
                    f"--storage.tsdb.path={DATA_PATH}",
                    "--web.enable-otlp-receiver",
                    "--web.enable-remote-write-receiver",
                    # Exemplars link a point of a metric to a trace.
                    "--enable-feature=exemplar-storage",
                ),
                ports={"http": PORT},
                env={"POD_NAME": POD_NAME, **go_runtime(self.sizing)},
                mounts={"config": CONFIG_PATH, DATA_VOLUME: DATA_PATH},
                probes=Probes.http("/-/healthy", "/-/ready", startup=Duration("10m")),
                secrets=merged(target.scrape.token for target in self.targets if target.scrape.token),
            ),
            volumes={"config": ConfigFiles(f"{self.name}-config", self.files, reloaded=True)},
            replicas=self.replicas,
            storage=self.storage,
            writes=self._writes(),
            start_work=StartWork(self._log, REPLAY_RATE, "replay of the write-ahead log"),
            governing_service=f"{self.name}-replicas",
            shutdown=SHUTDOWN,
            services={self.name: tcp(PORT), f"{self.name}-replicas": each_pod(PORT)},
        )

    def _rights(self) -> Iterator[Resource]:
        for namespace in self.namespaces:
            yield from pod_reader(self.metadata(), namespace)
        yield from node_metrics_reader(self.metadata())
