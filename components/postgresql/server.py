"""PostgreSQL for dev: one server without high availability. A StatefulSet of three would be three primaries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from voice_policies import Bytes, Duration

from components.access import service_account
from components.component import Component
from components.container import Image, hardened_container
from components.network_policy import NetworkEnd, network_policy
from components.node import Sizing
from components.operation import Name
from components.policy_config import CONFIG_DIGEST_ANNOTATION, config_files, digest_of
from components.postgresql.databases import SUPERUSER, ServerLimits, ServiceDatabase, access_rules, roles_sql
from components.postgresql.dumps import ACTIONS, DUMP_KEY, dump_job, dump_labels, dump_scripts
from components.scrape import CONNECTS, Scrape
from components.secret_keys import SecretKeys
from components.stateful_set import DATA_VOLUME, mount, scratch, stateful_set, tcp_service, volume_claim, with_volumes
from components.workload import pod_spec, pre_stop, secret_mounts, secret_volumes

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import Container, Probe, Volume

PORT = 5432
CONFIG_PATH = "/etc/postgresql"
ROLES_PATH = "/docker-entrypoint-initdb.d"
"""Where the image looks for what to run once, on an empty volume."""
SOCKET_PATH = "/var/run/postgresql"
DATA_PATH = "/var/lib/postgresql"
"""From 18 on the volume stands here: each major version keeps a directory of its own below it."""
SHARED_MEMORY = "128Mi"
STOP = Duration("110s")
"""Longest time to end transactions and write a checkpoint; with the pre-stop sleep, a grace of two minutes."""
SUPERUSER_SECRET = SecretKeys(name="postgresql-superuser", keys=("password",))


class PostgresqlServer(Component):
    """One server. Its Service and its pods carry the name under which callers elsewhere find the pooler.

    Roles and databases are made when the volume is empty. A new service or password later: `roles.sql` by hand, as
    docs/deploy.md says.
    """

    kind: ClassVar[str] = "PostgresqlServer"
    folder: ClassVar[str] = "20-data"
    scrape: ClassVar[Scrape] = Scrape.probe(CONNECTS, PORT)
    service: Name
    store_label: str
    image: Image
    sizing: Sizing
    storage: Bytes
    limits: ServerLimits
    databases: tuple[ServiceDatabase, ...]
    ingress: tuple[NetworkEnd, ...] = ()
    egress: tuple[NetworkEnd, ...] = ()
    dump_egress: tuple[NetworkEnd, ...] = ()

    @property
    def pods(self) -> tuple[dict[str, str], ...]:
        """Under the name that callers know."""
        return {self.store_label: self.service}, dump_labels(self.dump_name)

    @property
    def dump_name(self) -> Name:
        """Of what dumps and restores."""
        return f"{self.name}-backup"

    @property
    def files(self) -> dict[str, str]:
        """Its configuration, as mounted."""
        return {"postgresql.conf": self._configuration(), "pg_hba.conf": self._access()}

    def resources(self) -> Iterator[Resource]:
        """What it needs first, then the server."""
        labels = self.pods[0]
        yield service_account(self.metadata())
        yield config_files(self.metadata("config"), self.files)
        yield config_files(self.metadata("roles"), {"roles.sql": roles_sql(self.databases)})
        yield network_policy(self.metadata(), labels, self.ingress, self.egress)
        service = tcp_service(self.metadata(), labels, PORT)
        service["metadata"]["name"] = self.service
        yield service
        server = stateful_set(
            self.metadata(),
            self.selector,
            {
                "metadata": {
                    "labels": {**self.labels, **labels},
                    "annotations": {CONFIG_DIGEST_ANNOTATION: digest_of(self.files)},
                },
                "spec": pod_spec(self.name, self._container(), self._volumes(), self.selector, STOP),
            },
        )
        yield from with_volumes(server, self.storage)
        yield from self._dumps()

    def _dumps(self) -> Iterator[Resource]:
        metadata = self.metadata("backup")
        yield service_account(metadata)
        yield config_files(metadata, dump_scripts(self.service, self.databases))
        yield network_policy(metadata, dump_labels(self.dump_name), (), self.dump_egress)
        yield volume_claim(metadata, self.storage)
        secrets = (DUMP_KEY, *(database.secret for database in self.databases))
        for action in ACTIONS:
            yield dump_job(self.metadata(action), action, self.dump_name, self.image, secrets)

    def _configuration(self) -> str:
        memory = self.sizing.memory_limit
        parameters = {
            **self.limits.parameters(),
            "listen_addresses": "*",
            "unix_socket_directories": SOCKET_PATH,
            "hba_file": f"{CONFIG_PATH}/pg_hba.conf",
            "shared_buffers": f"{memory.units // 4 // 1024**2}MB",
            "log_connections": "authorization",
        }
        return "".join(f"{name} = '{value}'\n" for name, value in parameters.items())

    def _access(self) -> str:
        rules = [f"local all {SUPERUSER} scram-sha-256", *access_rules(self.databases, "host")]
        return "".join(f"{rule}\n" for rule in rules)

    def _container(self) -> Container:
        container = hardened_container(self.name, self.image, self.sizing)
        container["args"] = ["postgres", "-c", f"config_file={CONFIG_PATH}/postgresql.conf"]
        container["ports"] = [{"name": "tcp", "containerPort": PORT}]
        container["env"] = [{"name": "POSTGRES_PASSWORD_FILE", "value": f"{SUPERUSER_SECRET.path}/password"}]
        mount(container, "config", CONFIG_PATH, read_only=True)
        mount(container, "roles", ROLES_PATH, read_only=True)
        mount(container, "socket", SOCKET_PATH)
        mount(container, "shared-memory", "/dev/shm")  # noqa: S108 - the container's own, in memory
        mount(container, DATA_VOLUME, DATA_PATH)
        container["volumeMounts"] += secret_mounts(self.secrets)
        _probes_onto(container)
        return container

    def _volumes(self) -> list[Volume]:
        return [
            {"name": "config", "configMap": {"name": f"{self.name}-config"}},
            {"name": "roles", "configMap": {"name": f"{self.name}-roles"}},
            scratch("socket"),
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}},
            *secret_volumes(self.secrets),
        ]


def _probes_onto(container: Container) -> None:
    """Ready when it accepts connections, which it does not while it recovers; alive while the port opens."""
    accepts: Probe = {"exec": {"command": ["pg_isready", "-h", "127.0.0.1"]}, "periodSeconds": 5, "timeoutSeconds": 3}
    container["startupProbe"] = {**accepts, "failureThreshold": 60}
    container["readinessProbe"] = {**accepts, "failureThreshold": 3}
    container["livenessProbe"] = {
        "tcpSocket": {"port": "tcp"},
        "periodSeconds": 10,
        "timeoutSeconds": 3,
        "failureThreshold": 3,
    }
    container["lifecycle"] = pre_stop()
