"""Jaeger 2: receives traces over OTLP, stores them in memory or in Elasticsearch, and shows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from typing_extensions import override
from voice_policies import Bytes, ClosedModel, Duration

from components.component import Exemption
from components.container import Container, Image, go_runtime
from components.files import file_text
from components.node import Replicas
from components.observability.elasticsearch_setup import user_secret
from components.observability.setup_job import Account, Request, sender, setup_files
from components.probes import Probes
from components.retention import Stream
from components.scrape import Scrape
from components.server import Server, Workload
from components.services import each_ready_pod, to_port
from components.volumes import ConfigFiles
from components.workloads import CronJob, Deployment

__all__ = ["ACCOUNT", "INDICES", "OTLP_PORT", "QUERY_PORT", "TRACES", "InElasticsearch", "InMemory", "Jaeger"]

OTLP_PORT, QUERY_PORT, METRICS_PORT, HEALTH_PORT = 4317, 16686, 8888, 13133
CONFIG_PATH = "/etc/jaeger"
ACCOUNT = Account(user="jaeger", secret=user_secret("jaeger"))
INDICES = "jaeger-*"
TRACES = "voice-traces"
"""Name of the trace stream in Elasticsearch and of its lifecycle policy."""
STORE = "traces"
SHUTDOWN = Duration("30s")
HOURLY = "17 * * * *"
MEMORY_SHARE = 0.5
"""Share of the memory limit for traces. The limiter refuses traces while the heap is above 60 % of the limit."""
TRACE_SIZE = Bytes("128Ki")
"""Assumed size of one trace in memory: 128 spans of 1 KiB. The calls of the largest flow make about 120 spans."""


class InMemory(ClosedModel):
    """Traces in the pod's memory. Jaeger drops the oldest traces first. When the pod ends, all traces are lost."""

    max_traces: int


class InElasticsearch(ClosedModel):
    """Traces in daily indices. A lifecycle policy deletes the indices."""

    url: str
    stream: Stream
    image: Image
    """An image with curl, for the CronJob that attaches the lifecycle policy."""


class Jaeger(Server):
    """Receiver, store and user interface in one process. With Elasticsearch several stateless replicas can run."""

    kind: ClassVar[str] = "Jaeger"
    folder: ClassVar[str] = "30-observability"
    exemptions: ClassVar[tuple[Exemption, ...]] = (
        Exemption(rule="own_readiness", reason="Jaeger has one health endpoint, for liveness and readiness"),
    )
    scrape: ClassVar[Scrape] = Scrape(port=METRICS_PORT)
    replicas: int
    storage: InMemory | InElasticsearch

    @override
    def conflicts(self) -> Iterator[str]:
        if isinstance(self.storage, InElasticsearch):
            return
        if self.replicas > 1:
            yield f"replicas is {self.replicas}: expected 1, because replicas do not share traces in memory"
        memory = self.sizing.memory_limit
        most = int(memory.units * MEMORY_SHARE / TRACE_SIZE.units)
        if self.storage.max_traces > most:
            yield f"max_traces is {self.storage.max_traces}: expected at most {most} in {memory} of memory"

    @property
    def files(self) -> dict[str, str]:
        """Names and texts of the configuration files, as mounted."""
        return {"jaeger.json": file_text(self._configuration())}

    def _configuration(self) -> dict[str, Any]:
        return {
            "service": {
                "extensions": ["healthcheckv2", "jaeger_storage", "jaeger_query"],
                "pipelines": {
                    "traces": {
                        "receivers": ["otlp"],
                        "processors": ["memory_limiter"],
                        "exporters": ["jaeger_storage_exporter"],
                    }
                },
                "telemetry": {
                    "resource": {"service.name": self.name},
                    "metrics": {
                        "level": "normal",
                        "readers": [{"pull": {"exporter": {"prometheus": {"host": "0.0.0.0", "port": METRICS_PORT}}}}],  # noqa: S104 - the NetworkPolicy admits only declared callers
                    },
                    "logs": {"level": "info", "encoding": "json"},
                },
            },
            "extensions": {
                "healthcheckv2": {"use_v2": True, "http": {"endpoint": _everywhere(HEALTH_PORT)}},
                "jaeger_storage": {"backends": {STORE: self._backend()}},
                "jaeger_query": {"storage": {"traces": STORE}, "http": {"endpoint": _everywhere(QUERY_PORT)}},
            },
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": _everywhere(OTLP_PORT)}}}},
            "processors": {
                "memory_limiter": {"check_interval": "1s", "limit_percentage": 80, "spike_limit_percentage": 20}
            },
            "exporters": {"jaeger_storage_exporter": {"trace_storage": STORE}},
        }

    def _backend(self) -> dict[str, Any]:
        if isinstance(self.storage, InMemory):
            return {"memory": {"max_traces": self.storage.max_traces}}
        stream = self.storage.stream
        daily = {
            "shards": 1,
            "replicas": stream.copies - 1,
            "rotation": {"periodic": {"date_layout": "2006-01-02", "rollover_frequency": "day"}},
        }
        kinds = ("spans", "services", "dependencies", "sampling")
        return {
            "elasticsearch": {
                "server_urls": [self.storage.url],
                "auth": {
                    "basic": {
                        "username": ACCOUNT.user,
                        "password_file": ACCOUNT.password_file,
                        "reload_interval": "1m",
                    }
                },
                "max_span_age": f"{stream.retention.whole_seconds()}s",
                "indices": dict.fromkeys(kinds, daily),
            }
        }

    @override
    def workloads(self) -> Iterator[Workload]:
        """The server. With Elasticsearch also the CronJob that attaches the lifecycle policy to Jaeger's indices."""
        yield Deployment(
            name=self.name,
            container=Container(
                args=("--config", f"{CONFIG_PATH}/jaeger.json"),
                ports={"otlp": OTLP_PORT, "query": QUERY_PORT, "metrics": METRICS_PORT, "health": HEALTH_PORT},
                env=go_runtime(self.sizing),
                mounts={"config": CONFIG_PATH},
                secrets=(ACCOUNT.secret,) if isinstance(self.storage, InElasticsearch) else (),
                probes=Probes.http("/status", "/status", port="health"),
            ),
            volumes={"config": ConfigFiles(f"{self.name}-config", self.files)},
            replicas=Replicas.exactly(self.replicas),
            shutdown=SHUTDOWN,
            services={self.name: each_ready_pod(to_port("otlp", OTLP_PORT), to_port("query", QUERY_PORT))},
        )
        if isinstance(self.storage, InElasticsearch):
            yield self._retention(self.storage)

    def _retention(self, storage: InElasticsearch) -> CronJob:
        """Attach the lifecycle policy to every index of Jaeger. Jaeger's own templates cannot name a policy.

        Before the first trace there is no index. Without `allow_no_indices` Elasticsearch would then answer 404.
        """
        body = {"index.lifecycle.name": storage.stream.name}
        request = Request(name="lifecycle", method="PUT", path=f"/{INDICES}/_settings?allow_no_indices=true", body=body)
        name = f"{self.name}-retention"
        return CronJob(
            name=name,
            schedule=HOURLY,
            container=sender([ACCOUNT.secret], storage.image),
            volumes={"requests": ConfigFiles(name, setup_files(storage.url, ACCOUNT, [request]))},
            deadline=Duration("30m"),
        )


def _everywhere(port: int) -> str:
    """The address `0.0.0.0` with a port. The NetworkPolicy decides who may connect."""
    return f"0.0.0.0:{port}"
