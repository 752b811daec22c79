"""Fluent Bit: on every node, reads what our containers print and ships it to Elasticsearch.

A line is JSON, and its members become fields; the names of namespace, pod and container come from the file's name, so
that nothing is asked of the API server and no token is needed. What cannot be shipped waits on the node's disk, within
a limit.
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
from components.observability.elasticsearch_setup import PRINTED, user_secret
from components.observability.setup_job import Account
from components.policy_config import CONFIG_DIGEST_ANNOTATION, config_files, digest_of, file_text
from components.stateful_set import mount
from components.workload import pod_spec, pre_stop, secret_mounts, secret_volumes

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
"""Attempts for one chunk, at most `BACKOFF_CAP` seconds apart: about two hours of Elasticsearch being away."""
BACKOFF_CAP = 120
PASSWORD_REFRESH = 60
"""Seconds until a rotated password is read."""
STOP = Duration("30s")
ACCOUNT = Account(user="fluent-bit", secret=user_secret("fluent-bit"))


class FluentBit(Component):
    """One pod on each node."""

    kind: ClassVar[str] = "FluentBit"
    folder: ClassVar[str] = "30-observability"
    image: Image
    sizing: Sizing
    namespaces: str
    """Pattern of the namespaces whose containers are read."""
    elasticsearch: str
    """Host of Elasticsearch."""
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
            "env": [
                {
                    "name": "ELASTICSEARCH_PASSWORD",
                    "uri": f"file://{ACCOUNT.password_file}",
                    "refresh_interval": PASSWORD_REFRESH,
                }
            ],
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
        """Names from the file, members from the line; what is no JSON stays whole, as the message."""
        return [
            {
                "name": "kubernetes",
                "match": f"{TAG}*",
                "kube_tag_prefix": f"{TAG}{LOGS_PATH.strip('/').replace('/', '.')}.containers.",
                "use_tag_for_meta": "on",
                "merge_log": "on",
                "keep_log": "off",
            },
            {"name": "modify", "match": f"{TAG}*", "rename": ["log message"]},
        ]

    def _output(self) -> dict[str, Any]:
        return {
            "name": "es",
            "match": f"{TAG}*",
            "host": self.elasticsearch,
            "port": 9200,
            "http_user": ACCOUNT.user,
            "http_passwd": "${ELASTICSEARCH_PASSWORD}",
            "index": PRINTED,
            "write_operation": "create",
            "generate_id": "on",
            "suppress_type_name": "on",
            "replace_dots": "on",
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
            *secret_volumes([ACCOUNT.secret]),
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
        container["volumeMounts"] += secret_mounts([ACCOUNT.secret])
        _probes_onto(container)
        return container


def _probes_onto(container: Container) -> None:
    """Ready while what it ships arrives; alive while it answers at all."""
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
