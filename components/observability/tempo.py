"""Tempo 3: keeps every trace that arrives, and makes metrics of spans and a graph of services from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field
from voice_policies import Bytes, ClosedModel, Duration

from components.access import service_account
from components.component import Component, Exemption
from components.container import Image, hardened_container
from components.network_policy import NetworkEnd, network_policy
from components.node import Sizing
from components.observability.retention import Stream, disk_conflicts
from components.policy_config import CONFIG_DIGEST_ANNOTATION, config_files, digest_of, file_text
from components.scrape import Scrape
from components.secret_keys import SecretKeys
from components.stateful_set import DATA_VOLUME, mount, stateful_set, with_volumes
from components.workload import pod_spec, pre_stop, secret_mounts, secret_volumes

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import Container, Probe, Service, Volume

OTLP_PORT, HTTP_PORT = 4317, 3200
CONFIG_PATH = "/etc/tempo"
DATA_PATH = "/var/tempo"
STOP = Duration("110s")
"""Longest time to write what is in memory; with the pre-stop sleep, a grace of two minutes."""
CREDENTIALS = SecretKeys(name="tempo-object-storage", keys=("credentials",))
"""A shared credentials file of AWS' form, which every client of S3 reads: profile `default`, key id and secret key."""
PROCESSORS = ("service-graphs", "span-metrics")
METRICS = (
    "traces_spanmetrics_calls_total",
    "traces_spanmetrics_latency_bucket",
    "traces_spanmetrics_latency_count",
    "traces_spanmetrics_latency_sum",
    "traces_service_graph_request_total",
    "traces_service_graph_request_failed_total",
    "traces_service_graph_request_server_seconds_bucket",
    "traces_service_graph_request_client_seconds_bucket",
)
"""What `PROCESSORS` write to Prometheus: Tempo's documents on span metrics and on service graphs."""
SPAN_LABELS = ("service", "span_name", "span_kind", "status_code")
EDGE_LABELS = ("client", "server", "connection_type")
EXEMPLAR_LABEL = "traceID"
"""What its exemplars call the trace they come from; over OTLP it is `trace_id`."""


class Bucket(ClosedModel):
    """Where blocks are kept: an S3-compatible object store, encrypted at rest by the store."""

    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    endpoint: Annotated[str, Field(pattern=r"^[a-z0-9.-]+:\d+$")]
    """`host:port`, over TLS."""


class Tempo(Component):
    """One process that does it all.

    Two of them would need Kafka between them; while the one restarts, the Collector keeps on its own disk what arrives.
    """

    kind: ClassVar[str] = "Tempo"
    folder: ClassVar[str] = "30-observability"
    scrape: ClassVar[Scrape] = Scrape(port=HTTP_PORT)
    image: Image
    sizing: Sizing
    storage: Bytes
    """Of the volume: what is not in a block yet, and without a bucket the blocks too."""
    stream: Stream
    bucket: Bucket | None = None
    remote_write: Annotated[tuple[str, ...], Field(min_length=1)]
    """Where metrics are written to: each replica of Prometheus by itself, so that all of them have the series."""
    ingress: tuple[NetworkEnd, ...] = ()
    egress: tuple[NetworkEnd, ...] = ()

    def conflicts(self) -> Iterator[str]:
        """Settings that cannot hold together, a sentence each."""
        if self.bucket is None:
            yield from disk_conflicts([self.stream], self.storage)

    @property
    def files(self) -> dict[str, str]:
        """Its configuration, as mounted."""
        return {"tempo.json": file_text(self._configuration())}

    def _configuration(self) -> dict[str, Any]:
        retention = {"block_retention": f"{self.stream.retention.whole_seconds()}s"}
        return {
            "server": {"http_listen_port": HTTP_PORT, "log_format": "json", "log_level": "info"},
            "distributor": {"receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"0.0.0.0:{OTLP_PORT}"}}}}},
            "backend_scheduler": {
                "provider": {"compaction": {"compaction": retention}},
                "local_work_path": f"{DATA_PATH}/scheduler",
            },
            "backend_worker": {"compaction": retention},
            "live_store": {
                "wal": {"path": f"{DATA_PATH}/live-store/traces"},
                "shutdown_marker_dir": f"{DATA_PATH}/live-store/shutdown-marker",
            },
            "metrics_generator": {
                "registry": {"external_labels": {"source": self.name}},
                "storage": {
                    "path": f"{DATA_PATH}/generator/wal",
                    "remote_write": [{"url": url, "send_exemplars": True} for url in self.remote_write],
                },
            },
            "storage": {"trace": {"wal": {"path": f"{DATA_PATH}/wal"}, **self._backend()}},
            "overrides": {"defaults": {"metrics_generator": {"processors": list(PROCESSORS)}}},
            "usage_report": {"reporting_enabled": False},
        }

    def _backend(self) -> dict[str, Any]:
        if self.bucket is None:
            return {"backend": "local", "local": {"path": f"{DATA_PATH}/blocks"}}
        return {"backend": "s3", "s3": {"bucket": self.bucket.bucket, "endpoint": self.bucket.endpoint}}

    @property
    def exemptions(self) -> tuple[Exemption, ...]:
        """Every hardening default it gives up."""
        return (
            Exemption(rule="headless_service", reason="one pod, reached by its Service: nobody needs its own name"),
        )

    def resources(self) -> Iterator[Resource]:
        """What it needs first, then itself."""
        yield service_account(self.metadata())
        yield config_files(self.metadata("config"), self.files)
        yield network_policy(self.metadata(), self.selector, self.ingress, self.egress)
        yield self._service()
        volumes: list[Volume] = [
            {"name": "config", "configMap": {"name": f"{self.name}-config"}},
            *secret_volumes(self.secrets),
        ]
        annotations = {CONFIG_DIGEST_ANNOTATION: digest_of(self.files)}
        server = stateful_set(
            self.metadata(),
            self.selector,
            {
                "metadata": {"labels": self.labels, "annotations": annotations},
                "spec": pod_spec(self.name, self._container(), volumes, self.selector, STOP),
            },
        )
        yield from with_volumes(server, self.storage)

    def _service(self) -> Service:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata(),
            "spec": {
                "type": "ClusterIP",
                "selector": self.selector,
                "ports": [
                    {"name": "otlp", "port": OTLP_PORT, "targetPort": "otlp"},
                    {"name": "http", "port": HTTP_PORT, "targetPort": "http"},
                ],
            },
        }

    def _container(self) -> Container:
        container = hardened_container(self.name, self.image, self.sizing)
        container["args"] = [f"-config.file={CONFIG_PATH}/tempo.json", "-target=all"]
        limit = int(self.sizing.memory_limit.units * 0.8) // 1024**2
        container["env"] = [{"name": "GOMEMLIMIT", "value": f"{limit}MiB"}]
        if self.bucket is not None:
            file = f"{CREDENTIALS.path}/{CREDENTIALS.keys[0]}"
            container["env"].append({"name": "AWS_SHARED_CREDENTIALS_FILE", "value": file})
        container["ports"] = [
            {"name": "otlp", "containerPort": OTLP_PORT},
            {"name": "http", "containerPort": HTTP_PORT},
        ]
        mount(container, "config", CONFIG_PATH, read_only=True)
        mount(container, DATA_VOLUME, DATA_PATH)
        container["volumeMounts"] += secret_mounts(self.secrets)
        _probes_onto(container)
        return container


def _probes_onto(container: Container) -> None:
    """Ready when it takes spans and answers; alive while HTTP opens."""
    port: Probe = {"tcpSocket": {"port": "http"}, "periodSeconds": 10, "timeoutSeconds": 3, "failureThreshold": 3}
    container["startupProbe"] = {**port, "periodSeconds": 2, "timeoutSeconds": 1, "failureThreshold": 60}
    container["readinessProbe"] = {
        "httpGet": {"path": "/ready", "port": "http"},
        "periodSeconds": 5,
        "timeoutSeconds": 3,
        "failureThreshold": 3,
    }
    container["livenessProbe"] = port
    container["lifecycle"] = pre_stop()
