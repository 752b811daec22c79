"""Kibana: shows Elasticsearch's data. A Job creates the data view of the logs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from typing_extensions import override
from voice_policies import Bytes, Duration

from components.container import Container, Image
from components.files import file_text
from components.node import Replicas
from components.observability.elasticsearch_setup import LOGS_PATTERN, IndexUser, user, user_secret
from components.observability.setup_job import Account, Request, sender, setup_files
from components.probes import SLOW, Probe, Probes
from components.scrape import ANSWERS, Scrape
from components.secret_keys import SecretKeys
from components.server import Server, Workload
from components.services import tcp
from components.volumes import ConfigFiles, Scratch
from components.workloads import Deployment, Job
from components.writes import Write

__all__ = ["PORT", "USERS", "Kibana"]

PORT = 5601
CONFIG_PATH = "/etc/kibana"
RUN_PATH = "/run/kibana"
HOME = "/usr/share/kibana"
SHUTDOWN = Duration("30s")
ACCOUNT = Account(user="kibana_system", secret=user_secret("kibana"))
"""Elasticsearch's built-in user for Kibana. It has the rights that Kibana's version needs."""
SETUP_USER: IndexUser = user(
    "kibana-setup",
    indices=(LOGS_PATTERN,),
    privileges=("read", "view_index_metadata"),
    kibana=("feature_indexPatterns.all",),
)
USERS = (IndexUser(account=ACCOUNT, reserved=True), SETUP_USER)
"""The users that Kibana and its Job need in Elasticsearch."""
ENCRYPTION = SecretKeys(name="kibana-encryption", keys=("saved-objects", "reporting", "sessions"))
"""Encryption keys of at least 32 characters, the same in every replica."""
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
PROBES = Probes(
    startup=Probe.tcp(period=Duration("5s"), timeout=Duration("3s"), failures=60),
    readiness=Probe.http("/api/status", timeout=Duration("5s")),
    liveness=Probe.tcp(**SLOW),
)
"""Kibana is ready when its status says that it reaches Elasticsearch."""


class Kibana(Server):
    """Stateless processes: Kibana stores everything in Elasticsearch."""

    folder: ClassVar[str] = "30-observability"
    scrape: ClassVar[Scrape] = Scrape.probe(ANSWERS, PORT, "/api/status")
    setup_image: Image
    """An image with curl, for the setup Job. Kibana's own image may lack curl."""
    replicas: int
    elasticsearch: str
    """Address of Elasticsearch."""

    @property
    def files(self) -> dict[str, str]:
        """Names and texts of the configuration files, as mounted."""
        settings = {
            "server.name": self.name,
            "server.host": "0.0.0.0",  # noqa: S104 - the NetworkPolicy admits only declared callers
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
        """The files of the Job that creates the data view."""
        return setup_files(f"http://{self.name}:{PORT}", SETUP_USER.account, [DATA_VIEW])

    @override
    def workloads(self) -> Iterator[Workload]:
        yield Deployment(
            name=self.name,
            init=Container(
                name="write-secrets",
                command=("sh", f"{CONFIG_PATH}/write-secrets.sh"),
                mounts={"config": CONFIG_PATH, "run": RUN_PATH},
                secrets=(ACCOUNT.secret, ENCRYPTION),
            ),
            container=Container(
                command=(f"{HOME}/bin/kibana", "-c", f"{CONFIG_PATH}/kibana.yml", "-c", f"{RUN_PATH}/secrets.yml"),
                ports={"http": PORT},
                env={"NODE_OPTIONS": f"--max-old-space-size={self.sizing.memory_limit.units * 3 // 4 >> 20}"},
                mounts={"config": CONFIG_PATH, "run": RUN_PATH, "data": f"{HOME}/data"},
                probes=PROBES,
            ),
            volumes={
                "config": ConfigFiles(f"{self.name}-config", self.files),
                "run": Scratch(),
                "data": Scratch(Bytes("256Mi")),
            },
            writes=(
                Write("run", Bytes("1Mi"), "the file of the password and the keys"),
                Write("data", Bytes("128Mi"), "browser profile and file of one report at a time"),
            ),
            replicas=Replicas.exactly(self.replicas),
            shutdown=SHUTDOWN,
            services={self.name: tcp(PORT)},
        )
        yield Job(
            name=f"{self.name}-setup",
            container=sender([SETUP_USER.account.secret], self.setup_image),
            volumes={"requests": ConfigFiles(f"{self.name}-setup", self.setup)},
        )
