"""Jaeger 2: takes traces over OTLP, keeps them in memory or in Elasticsearch, and shows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from voice_policies import Bytes, ClosedModel, Duration

from components.access import service_account
from components.component import PART_OF, Component, Exemption
from components.container import Image, hardened_container
from components.disruption_budget import disruption_budget
from components.network_policy import NetworkEnd, network_policy
from components.node import Replicas, Sizing
from components.observability.elasticsearch_setup import user_secret
from components.observability.retention import Stream
from components.observability.setup_job import Account, Request, setup_files, setup_labels, setup_pod
from components.operation import Name
from components.policy_config import CONFIG_DIGEST_ANNOTATION, config_files, digest_of, file_text
from components.probes import HttpProbes
from components.scrape import Scrape
from components.stateful_set import mount
from components.workload import deployment, pod_spec, pre_stop, secret_mounts, secret_volumes

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import Container, CronJob, Service, Volume

OTLP_PORT, QUERY_PORT, METRICS_PORT, HEALTH_PORT = 4317, 16686, 8888, 13133
CONFIG_PATH = "/etc/jaeger"
ACCOUNT = Account(user="jaeger", secret=user_secret("jaeger"))
INDICES = "jaeger-*"
TRACES = "voice-traces"
"""Name of its stream in Elasticsearch, and of the lifecycle policy."""
STORE = "traces"
STOP = Duration("30s")
HOURLY = "17 * * * *"
MEMORY_SHARE = 0.5
"""Of the memory limit that traces may take; the limiter refuses more above 80 % of it."""
TRACE_SIZE = Bytes("20Ki")
"""Assumed of one trace in memory: some twenty spans of 1 KiB, as the longest declared flow makes."""


class InMemory(ClosedModel):
    """Traces that go with the pod, the oldest first."""

    max_traces: int


class InElasticsearch(ClosedModel):
    """A day's index each of spans and services, deleted by a lifecycle policy."""

    url: str
    stream: Stream
    image: Image
    """Has curl: sends what attaches the policy."""


class Jaeger(Component):
    """Receiver, store and view in one process. With Elasticsearch it keeps no state and may have replicas."""

    kind: ClassVar[str] = "Jaeger"
    folder: ClassVar[str] = "30-observability"
    scrape: ClassVar[Scrape] = Scrape(port=METRICS_PORT)
    image: Image
    sizing: Sizing
    replicas: int
    storage: InMemory | InElasticsearch
    ingress: tuple[NetworkEnd, ...] = ()
    egress: tuple[NetworkEnd, ...] = ()
    retention_egress: tuple[NetworkEnd, ...] = ()

    def conflicts(self) -> Iterator[str]:
        """Settings that cannot hold together, a sentence each."""
        if isinstance(self.storage, InElasticsearch):
            return
        if self.replicas > 1:
            yield f"replicas is {self.replicas}: in memory each would hold other traces, expected 1"
        most = int(self.sizing.memory_limit.units * MEMORY_SHARE / TRACE_SIZE.units)
        if self.storage.max_traces > most:
            yield f"max_traces is {self.storage.max_traces}: {self.sizing.memory_limit} of memory hold {most}"

    @property
    def pods(self) -> tuple[dict[str, str], ...]:
        """Itself, and the job that attaches the lifecycle policy."""
        return (self.selector, setup_labels(self.retention_name)) if self.secrets else (self.selector,)

    @property
    def retention_name(self) -> Name:
        """Of that job."""
        return f"{self.name}-retention"

    @property
    def files(self) -> dict[str, str]:
        """Its configuration, as mounted."""
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
                        "readers": [{"pull": {"exporter": {"prometheus": {"host": "0.0.0.0", "port": METRICS_PORT}}}}],  # noqa: S104 - the pod's own; the network policy says who reaches it
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

    @property
    def exemptions(self) -> tuple[Exemption, ...]:
        """Every hardening default it gives up."""
        return (Exemption(rule="own_readiness", reason="the program tells one thing of itself: that it answers"),)

    def resources(self) -> Iterator[Resource]:
        """What it needs first, then itself, and what limits how long its traces are kept."""
        yield service_account(self.metadata())
        yield config_files(self.metadata("config"), self.files)
        yield network_policy(self.metadata(), self.selector, self.ingress, self.egress)
        yield self._service()
        volumes: list[Volume] = [
            {"name": "config", "configMap": {"name": f"{self.name}-config"}},
            *secret_volumes(self.secrets),
        ]
        yield deployment(
            self.metadata(),
            {"labels": self.labels, "annotations": {CONFIG_DIGEST_ANNOTATION: digest_of(self.files)}},
            self.selector,
            pod_spec(self.name, self._container(), volumes, self.selector, STOP),
            Replicas(min=self.replicas, max=self.replicas),
        )
        if self.replicas > 1:
            yield disruption_budget(self.metadata(), self.selector)
        if isinstance(self.storage, InElasticsearch):
            yield from self._retention(self.storage)

    def _retention(self, storage: InElasticsearch) -> Iterator[Resource]:
        """Every index that Jaeger makes gets the lifecycle policy: its own templates have no place for one."""
        metadata = self.metadata("retention")
        body = {"index.lifecycle.name": storage.stream.name}
        request = Request(name="lifecycle", method="PUT", path=f"/{INDICES}/_settings", body=body)
        yield service_account(metadata)
        yield config_files(metadata, setup_files(storage.url, ACCOUNT, [request]))
        yield network_policy(metadata, setup_labels(self.retention_name), (), self.retention_egress)
        yield self._retention_job(storage)

    def _retention_job(self, storage: InElasticsearch) -> CronJob:
        labels = {**setup_labels(self.retention_name), "app.kubernetes.io/part-of": PART_OF}
        return {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": self.metadata("retention"),
            "spec": {
                "schedule": HOURLY,
                "timeZone": "Etc/UTC",
                "concurrencyPolicy": "Forbid",
                "startingDeadlineSeconds": 1800,
                "jobTemplate": {
                    "spec": {
                        "backoffLimit": 2,
                        "activeDeadlineSeconds": 1800,
                        "template": {
                            "metadata": {"labels": labels},
                            "spec": setup_pod(self.retention_name, storage.image, self.secrets),
                        },
                    }
                },
            },
        }

    def _service(self) -> Service:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata(),
            "spec": {
                "type": "ClusterIP",
                # Without one address for all, the Collector's gRPC spreads over the replicas.
                "clusterIP": "None",
                "selector": self.selector,
                "ports": [
                    {"name": "otlp", "port": OTLP_PORT, "targetPort": "otlp"},
                    {"name": "query", "port": QUERY_PORT, "targetPort": "query"},
                ],
            },
        }

    def _container(self) -> Container:
        container = hardened_container(self.name, self.image, self.sizing)
        container["args"] = ["--config", f"{CONFIG_PATH}/jaeger.json"]
        limit = int(self.sizing.memory_limit.units * 0.8) // 1024**2
        container["env"] = [{"name": "GOMEMLIMIT", "value": f"{limit}MiB"}]
        container["ports"] = [
            {"name": "otlp", "containerPort": OTLP_PORT},
            {"name": "query", "containerPort": QUERY_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
            {"name": "health", "containerPort": HEALTH_PORT},
        ]
        mount(container, "config", CONFIG_PATH, read_only=True)
        container["volumeMounts"] += secret_mounts(self.secrets)
        HttpProbes(port="health", liveness_path="/status", readiness_path="/status").onto(container)
        container["lifecycle"] = pre_stop()
        return container


def _everywhere(port: int) -> str:
    """The pod's own address, whatever it is; the network policy says who reaches it."""
    return f"0.0.0.0:{port}"
