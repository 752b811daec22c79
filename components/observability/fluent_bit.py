"""Fluent Bit: on every node, reads what our containers print and sends it to the Collector.

A line is JSON: its message becomes the body of a log record and its other members attributes, which the Collector makes
one of each, masks and hands on. The names of namespace, pod and container come from the file's name, so that nothing is
asked of the API server and no token is needed. What cannot be sent waits on the node's disk, within a limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from voice_policies import Bytes, Duration

from components.access import service_account
from components.component import Component, Exemption
from components.container import Image, hardened_container
from components.network_policy import NetworkEnd, network_policy
from components.node import Sizing
from components.observability.collector_config import HTTP_PORT as COLLECTOR_PORT
from components.policy_config import CONFIG_DIGEST_ANNOTATION, config_files, digest_of, file_text
from components.scrape import Scrape
from components.stateful_set import mount
from components.workload import pod_spec, pre_stop

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import Container, DaemonSet, PodSpec, Probe, Volume

PORT = 2020
CONFIG_PATH = "/etc/fluent-bit"
LOGS_PATH = "/var/log"
STATE_PATH = "/var/lib/fluent-bit"
"""On the node: a replaced pod goes on where its predecessor stopped, and ships what that one had not."""
ROOT = 0
TAG = "kube."
RETRY_LIMIT = 60
"""Attempts for one chunk: about an hour of a Collector that refuses. The pauses are drawn at random from 5 seconds up
to `BACKOFF_CAP`, and half of it on average (`backoff_full_jitter` in src/flb_scheduler.c)."""
BACKOFF_CAP = 120
BATCH_RECORDS = 50_000
"""More than a chunk of 2 MB holds. A chunk that went in parts would be taken for sent when its last part is
(`otel_process_logs` in plugins/out_opentelemetry/opentelemetry_logs.c)."""
STOP = Duration("30s")


class FluentBit(Component):
    """One pod on each node."""

    kind: ClassVar[str] = "FluentBit"
    folder: ClassVar[str] = "30-observability"
    scrape: ClassVar[Scrape] = Scrape(port=PORT, path="/api/v2/metrics/prometheus")
    image: Image
    sizing: Sizing
    namespaces: str
    """Pattern of the namespaces whose containers are read."""
    collector: str
    """Host of the Collector."""
    buffer: Bytes
    """Of one node's disk; when it is full the oldest lines go first."""
    ingress: tuple[NetworkEnd, ...] = ()
    egress: tuple[NetworkEnd, ...] = ()

    @property
    def exemptions(self) -> tuple[Exemption, ...]:
        """What reading the node's files takes."""
        return (
            Exemption(rule="run_as_user", reason="containers' log files belong to root and are readable by it alone"),
            Exemption(rule="no_host_path", reason="it reads the node's /var/log, and keeps its state on the node"),
        )

    @property
    def files(self) -> dict[str, str]:
        """Its configuration, as mounted."""
        return {"fluent-bit.yaml": file_text(self._configuration())}

    def _configuration(self) -> dict[str, Any]:
        return {
            "service": {
                "flush": 1,
                "grace": STOP.whole_seconds(),
                "log_level": "info",
                "http_server": "on",
                "http_listen": "0.0.0.0",  # noqa: S104 - the pod's own; the network policy says who reaches it
                "http_port": PORT,
                "health_check": "on",
                "scheduler.cap": BACKOFF_CAP,
                "storage.path": f"{STATE_PATH}/buffer",
                "storage.sync": "normal",
                "storage.backlog.mem_limit": "16M",
            },
            "pipeline": {"inputs": [self._input()], "filters": self._filters(), "outputs": [self._output()]},
        }

    def _input(self) -> dict[str, Any]:
        return {
            "name": "tail",
            "tag": f"{TAG}*",
            "path": f"{LOGS_PATH}/containers/*_{self.namespaces}_*.log",
            "exclude_path": f"{LOGS_PATH}/containers/{self.name}-*_{self.namespace}_*.log",
            "multiline.parser": "cri",
            "db": f"{STATE_PATH}/positions.db",
            "db.locking": True,
            "read_from_head": True,
            "refresh_interval": 10,
            "buffer_max_size": "1M",
            "skip_long_lines": True,
            "storage.type": "filesystem",
        }

    def _filters(self) -> list[dict[str, Any]]:
        """Names from the file, members from the line; what is no JSON stays whole.

        The members are put beside what the parser found, which goes first: a line tells its time too, and a key that
        stood twice would stay so.
        """
        return [
            {"name": "modify", "match": f"{TAG}*", "remove": ["time", "_p"]},
            {
                "name": "kubernetes",
                "match": f"{TAG}*",
                "kube_tag_prefix": f"{TAG}{LOGS_PATH.strip('/').replace('/', '.')}.containers.",
                "use_tag_for_meta": "on",
                "merge_log": "on",
                "keep_log": "off",
            },
        ]

    def _output(self) -> dict[str, Any]:
        return {
            "name": "opentelemetry",
            "match": f"{TAG}*",
            "host": self.collector,
            "port": COLLECTOR_PORT,
            # The first that a record has: Python's and Elastic's programs, Go's, and what was no JSON.
            "logs_body_key": ["$message", "$msg", "$log"],
            "logs_body_key_attributes": "on",
            "batch_size": BATCH_RECORDS,
            "compress": "gzip",
            "retry_limit": RETRY_LIMIT,
            "storage.total_limit_size": f"{self.buffer.units // 1024**2}M",
        }

    def resources(self) -> Iterator[Resource]:
        """What it needs first, then a pod for each node."""
        yield service_account(self.metadata())
        yield config_files(self.metadata("config"), self.files)
        yield network_policy(self.metadata(), self.selector, self.ingress, self.egress)
        yield self._daemon_set()

    def _daemon_set(self) -> DaemonSet:
        annotations = {CONFIG_DIGEST_ANNOTATION: digest_of(self.files)}
        return {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": self.metadata(),
            "spec": {
                "minReadySeconds": 5,
                "revisionHistoryLimit": 5,
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
                "selector": {"matchLabels": self.selector},
                "template": {
                    "metadata": {"labels": self.labels, "annotations": annotations},
                    "spec": self._pod(),
                },
            },
        }

    def _pod(self) -> PodSpec:
        volumes: list[Volume] = [
            {"name": "config", "configMap": {"name": f"{self.name}-config"}},
            {"name": "logs", "hostPath": {"path": LOGS_PATH, "type": "Directory"}},
            {"name": "state", "hostPath": {"path": STATE_PATH, "type": "DirectoryOrCreate"}},
        ]
        pod = pod_spec(self.name, self._container(), volumes, self.selector, STOP)
        pod["securityContext"].update({"runAsNonRoot": False, "runAsUser": ROOT, "runAsGroup": ROOT})
        # One on each node is neither spread nor kept apart, and a tainted node prints too.
        del pod["topologySpreadConstraints"], pod["affinity"]
        pod["tolerations"] = [{"operator": "Exists"}]
        return pod

    def _container(self) -> Container:
        container = hardened_container(self.name, self.image, self.sizing)
        container["securityContext"].update({"runAsNonRoot": False, "runAsUser": ROOT, "runAsGroup": ROOT})
        container["args"] = ["--config", f"{CONFIG_PATH}/fluent-bit.yaml"]
        container["ports"] = [{"name": "http", "containerPort": PORT}]
        mount(container, "config", CONFIG_PATH, read_only=True)
        mount(container, "logs", LOGS_PATH, read_only=True)
        mount(container, "state", STATE_PATH)
        _probes_onto(container)
        return container


def _probes_onto(container: Container) -> None:
    """Ready while what it sends is taken; alive while it answers at all."""
    answers: Probe = {
        "httpGet": {"path": "/api/v1/uptime", "port": "http"},
        "periodSeconds": 10,
        "timeoutSeconds": 3,
        "failureThreshold": 3,
    }
    container["startupProbe"] = {**answers, "periodSeconds": 2, "timeoutSeconds": 1, "failureThreshold": 30}
    container["readinessProbe"] = {**answers, "httpGet": {"path": "/api/v1/health", "port": "http"}}
    container["livenessProbe"] = answers
    container["lifecycle"] = pre_stop()
