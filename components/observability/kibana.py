"""Kibana: shows what Elasticsearch holds, with the data view of the logs made for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from voice_policies import Duration

from components.access import service_account
from components.component import Component
from components.container import Image, hardened_container
from components.disruption_budget import disruption_budget
from components.network_policy import NetworkEnd, network_policy
from components.node import Replicas, Sizing
from components.observability.elasticsearch_setup import LOGS_PATTERN, IndexUser, user, user_secret
from components.observability.setup_job import (
    Account,
    Request,
    setup_files,
    setup_job,
    setup_labels,
    setup_pod,
)
from components.operation import Name
from components.policy_config import CONFIG_DIGEST_ANNOTATION, config_files, digest_of, file_text
from components.scrape import ANSWERS, Scrape
from components.secret_keys import SecretKeys
from components.stateful_set import configuration_writer, mount, scratch, tcp_service
from components.workload import deployment, pod_spec, pre_stop, secret_volumes

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import Container, PodSpec, Probe, Volume

PORT = 5601
CONFIG_PATH = "/etc/kibana"
RUN_PATH = "/run/kibana"
HOME = "/usr/share/kibana"
STOP = Duration("30s")
ACCOUNT = Account(user="kibana_system", secret=user_secret("kibana"))
"""Elasticsearch's own user for Kibana, with the rights that its version needs."""
SETUP_USER: IndexUser = user(
    "kibana-setup",
    indices=(LOGS_PATTERN,),
    privileges=("read", "view_index_metadata"),
    kibana=("feature_indexPatterns.all",),
)
USERS = (IndexUser(account=ACCOUNT, reserved=True), SETUP_USER)
"""What Elasticsearch has to know."""
ENCRYPTION = SecretKeys(name="kibana-encryption", keys=("saved-objects", "reporting", "sessions"))
"""At least 32 characters each, the same in every replica."""
DATA_VIEW = Request(
    name="data-view",
    method="POST",
    path="/api/data_views/data_view",
    body={
        "override": True,
        "data_view": {
            "id": "voice-logs",
            "name": "VoiceAssistant logs",
            "title": LOGS_PATTERN,
            "timeFieldName": "@timestamp",
        },
    },
)
WRITE_SECRETS = f"""\
set -eu
umask 077
quoted() {{ printf '"'; tr -d '\\n' < "$1" | sed 's/[\\\\"]/\\\\&/g'; printf '"'; }}
cat > {RUN_PATH}/secrets.yml <<END
elasticsearch.password: $(quoted {ACCOUNT.password_file})
xpack.encryptedSavedObjects.encryptionKey: $(quoted {ENCRYPTION.path}/saved-objects)
xpack.reporting.encryptionKey: $(quoted {ENCRYPTION.path}/reporting)
xpack.security.encryptionKey: $(quoted {ENCRYPTION.path}/sessions)
END
"""


class Kibana(Component):
    """Processes without state: what they keep is in Elasticsearch."""

    kind: ClassVar[str] = "Kibana"
    folder: ClassVar[str] = "30-observability"
    scrape: ClassVar[Scrape] = Scrape.probe(ANSWERS, PORT, "/api/status")
    image: Image
    setup_image: Image
    """Has curl, which Kibana's own image does not promise."""
    sizing: Sizing
    replicas: int
    elasticsearch: str
    """Address of Elasticsearch."""
    ingress: tuple[NetworkEnd, ...] = ()
    egress: tuple[NetworkEnd, ...] = ()
    setup_egress: tuple[NetworkEnd, ...] = ()

    @property
    def setup_name(self) -> Name:
        """Of the Job that makes the data view."""
        return f"{self.name}-setup"

    @property
    def pods(self) -> tuple[dict[str, str], ...]:
        """Itself, and the Job that sets it up."""
        return self.selector, setup_labels(self.setup_name)

    @property
    def files(self) -> dict[str, str]:
        """Its configuration, as mounted."""
        settings = {
            "server.name": self.name,
            "server.host": "0.0.0.0",  # noqa: S104 - the pod's own; the network policy says who reaches it
            "server.port": PORT,
            "elasticsearch.hosts": [self.elasticsearch],
            "elasticsearch.username": ACCOUNT.user,
            "path.data": f"{HOME}/data",
            "telemetry.optIn": False,
            "newsfeed.enabled": False,
            "logging.root.level": "info",
            "logging.appenders.json": {"type": "console", "layout": {"type": "json"}},
            "logging.root.appenders": ["json"],
        }
        return {"kibana.yml": file_text(settings), "write-secrets.sh": WRITE_SECRETS}

    @property
    def setup(self) -> dict[str, str]:
        """What the Job sends."""
        return setup_files(f"http://{self.name}:{PORT}", SETUP_USER.account, [DATA_VIEW])

    def resources(self) -> Iterator[Resource]:
        """What it needs first, then itself and what sets it up."""
        yield service_account(self.metadata())
        yield config_files(self.metadata("config"), self.files)
        yield network_policy(self.metadata(), self.selector, self.ingress, self.egress)
        yield tcp_service(self.metadata(), self.selector, PORT)
        yield deployment(
            self.metadata(),
            {"labels": self.labels, "annotations": {CONFIG_DIGEST_ANNOTATION: digest_of(self.files)}},
            self.selector,
            self._pod(),
            Replicas(min=self.replicas, max=self.replicas),
        )
        if self.replicas > 1:
            yield disruption_budget(self.metadata(), self.selector)
        metadata = self.metadata("setup")
        yield service_account(metadata)
        yield config_files(metadata, self.setup)
        yield network_policy(metadata, setup_labels(self.setup_name), (), self.setup_egress)
        pod = setup_pod(self.setup_name, self.setup_image, [SETUP_USER.account.secret])
        yield setup_job(metadata, pod, self.setup)

    def _pod(self) -> PodSpec:
        secrets = (ACCOUNT.secret, ENCRYPTION)
        volumes: list[Volume] = [
            {"name": "config", "configMap": {"name": f"{self.name}-config"}},
            scratch("run"),
            scratch("data", "256Mi"),
            *secret_volumes(secrets),
        ]
        pod = pod_spec(self.name, self._container(), volumes, self.selector, STOP)
        writer = hardened_container("write-secrets", self.image, self.sizing)
        pod["initContainers"] = [configuration_writer(writer, CONFIG_PATH, RUN_PATH, secrets)]
        return pod

    def _container(self) -> Container:
        container = hardened_container(self.name, self.image, self.sizing)
        container["command"] = [
            f"{HOME}/bin/kibana",
            "-c",
            f"{CONFIG_PATH}/kibana.yml",
            "-c",
            f"{RUN_PATH}/secrets.yml",
        ]
        heap = self.sizing.memory_limit.units * 3 // 4 // 1024**2
        container["env"] = [{"name": "NODE_OPTIONS", "value": f"--max-old-space-size={heap}"}]
        container["ports"] = [{"name": "http", "containerPort": PORT}]
        mount(container, "config", CONFIG_PATH, read_only=True)
        mount(container, "run", RUN_PATH)
        mount(container, "data", f"{HOME}/data")
        _probes_onto(container)
        return container


def _probes_onto(container: Container) -> None:
    """Ready when it reaches Elasticsearch, says its status; alive while its port opens."""
    port: Probe = {"tcpSocket": {"port": "http"}, "periodSeconds": 10, "timeoutSeconds": 3, "failureThreshold": 3}
    container["startupProbe"] = {**port, "periodSeconds": 5, "failureThreshold": 60}
    container["readinessProbe"] = {
        "httpGet": {"path": "/api/status", "port": "http"},
        "periodSeconds": 10,
        "timeoutSeconds": 5,
        "failureThreshold": 3,
    }
    container["livenessProbe"] = port
    container["lifecycle"] = pre_stop()
