"""Tempo 3: stores every trace, and computes span metrics and the service graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import Field
from typing_extensions import override
from voice_policies import Bytes, ClosedModel, Conflict, Duration, TextPattern

from components.component import Exemption
from components.container import Container, Image, go_runtime
from components.files import file_text
from components.observability.setup_job import SIZING
from components.probes import READY, Probe, Probes
from components.retention import Stream, disk_conflict
from components.scrape import Scrape
from components.secret_keys import SecretForm, SecretKeys
from components.server import Server
from components.services import to_port
from components.volumes import ConfigFiles
from components.workloads import DATA_VOLUME, StatefulSet
from components.writes import StartWork, Write

__all__ = ["HTTP_PORT", "METRICS", "OTLP_PORT", "Bucket", "Tempo"]

OTLP_PORT, HTTP_PORT = 4317, 3200
CONFIG_PATH = "/etc/tempo"
DATA_PATH = "/var/tempo"
SHUTDOWN = Duration("110s")
"""Longest time to write out the data that is in memory. With the pre-stop sleep and
`SHUTDOWN_MARGIN`, the grace period is two minutes."""
CREDENTIALS = SecretKeys(
    name="tempo-object-storage",
    keys=("credentials",),
    forms={
        "credentials": SecretForm(
            kind="credentials-file",
            external=True,
            meaning="a credentials file as AWS defines it: aws_access_key_id and aws_secret_access_key of [default]",
        )
    },
)
RAW_SHARE = 10
"""Assumed ratio: size of a span that arrives ÷ size of the span in a block."""
GENERATOR_LOG = Bytes("256Mi")
"""Assumed size of the metrics generator's write-ahead log: two hours of the metrics of sixteen services."""
REPLAY_RATE = Bytes("50Mi")
"""Assumed bytes of spans that Tempo replays in one second when it starts."""
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
"""Metrics of `PROCESSORS` that queries may use. Source: Tempo's documentation of span metrics and service graphs."""
SPAN_LABELS = ("service", "span_name", "span_kind", "status_code")
EDGE_LABELS = ("client", "server", "connection_type")
EXEMPLAR_LABEL = "traceID"
"""The exemplar label that contains the trace id. Exemplars that arrive over OTLP have `trace_id` instead."""


class Bucket(ClosedModel):
    """An S3-compatible bucket for blocks. The object store encrypts the blocks at rest."""

    bucket: Annotated[str, TextPattern(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", "voice-traces")]
    endpoint: Annotated[str, TextPattern(r"^[a-z0-9.-]+:\d+$", "s3.example.com:443")]
    """`host:port`, over TLS."""
    image: Image
    """Image with curl, for the container that waits for the object store."""

    def wait(self) -> Container:
        """The init container that waits for any answer of the object store. Tempo exits if the object store is down."""
        url = f"https://{self.endpoint}/"
        script = f"until curl --silent --output /dev/null --max-time 5 {url}; do echo waiting for {url}; sleep 5; done"
        return Container(name="wait-for-bucket", image=self.image, sizing=SIZING, command=("sh", "-c", script))


class Tempo(Server):
    """One process for all parts of Tempo.

    Two processes would need Kafka between them. During a restart the Collector queues spans on disk.
    """

    kind: ClassVar[str] = "Tempo"
    folder: ClassVar[str] = "30-observability"
    exemptions: ClassVar[tuple[Exemption, ...]] = (
        Exemption(
            rule="headless_service",
            reason="the only pod needs no DNS name: callers use the Service",
        ),
    )
    scrape: ClassVar[Scrape] = Scrape(port=HTTP_PORT)
    storage: Bytes
    """Size of the volume for new spans and the metrics generator's log. Without a bucket it also holds blocks."""
    stream: Stream
    bucket: Bucket | None = None
    remote_write: Annotated[tuple[str, ...], Field(min_length=1)]
    """URLs for metrics, one for each replica of Prometheus, so that all replicas have the series."""

    @override
    def conflicts(self) -> Iterator[str | Conflict]:
        if self.bucket is None:
            yield from disk_conflict("stream", self.stream, self.storage)

    @override
    def streams_kept(self) -> Iterator[Stream]:
        yield self.stream

    @property
    def files(self) -> dict[str, str]:
        """Names and texts of the configuration files, as mounted."""
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
    def _unflushed(self) -> Bytes:
        """Size of the spans of the last hour, which are in no block yet."""
        return self.stream.daily * (RAW_SHARE / 24)

    def _writes(self) -> Iterator[Write]:
        yield Write(DATA_VOLUME, self._unflushed, f"an hour of spans, {RAW_SHARE} × their size in a block")
        yield Write(DATA_VOLUME, GENERATOR_LOG, "write-ahead log of the metrics generator")
        if self.bucket is None:
            yield Write(DATA_VOLUME, self.stream.kept, f"blocks of {self.stream.retention} and the current day")

    @override
    def workloads(self) -> Iterator[StatefulSet]:
        """The pod. It is ready when Tempo accepts spans and answers queries."""
        file = f"{CREDENTIALS.path}/{CREDENTIALS.keys[0]}"
        credentials = {"AWS_SHARED_CREDENTIALS_FILE": file} if self.bucket else {}
        yield StatefulSet(
            name=self.name,
            init=self.bucket.wait() if self.bucket else None,
            container=Container(
                args=(f"-config.file={CONFIG_PATH}/tempo.json", "-target=all"),
                ports={"otlp": OTLP_PORT, "http": HTTP_PORT},
                env={**go_runtime(self.sizing), **credentials},
                mounts={"config": CONFIG_PATH, DATA_VOLUME: DATA_PATH},
                secrets=(CREDENTIALS,) if self.bucket else (),
                probes=Probes.tcp(readiness=Probe.http("/ready", **READY), startup=Duration("10m")),
            ),
            volumes={"config": ConfigFiles(f"{self.name}-config", self.files)},
            storage=self.storage,
            writes=tuple(self._writes()),
            start_work=StartWork(self._unflushed, REPLAY_RATE, "replay of spans that are in no block yet"),
            shutdown=SHUTDOWN,
            services={self.name: {"ports": [to_port("otlp", OTLP_PORT), to_port("http", HTTP_PORT)]}},
        )
