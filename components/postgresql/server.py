"""PostgreSQL for dev: one server without high availability. Three pods of a StatefulSet would be three primaries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from typing_extensions import override
from voice_policies import Bytes, Duration

from components.container import Container
from components.operation import Name
from components.postgresql.databases import SUPERUSER, ServerLimits, ServiceDatabase, access_rules, roles_sql
from components.postgresql.dumps import dump_jobs
from components.priority import Priority
from components.probes import READY, SLOW, Probe, Probes
from components.scrape import CONNECTS, Scrape
from components.secret_keys import SecretKeys
from components.server import Server, Workload
from components.services import tcp
from components.volumes import ConfigFiles, Scratch
from components.workloads import DATA_VOLUME, StatefulSet

__all__ = ["PostgresqlServer"]

PORT = 5432
CONFIG_PATH = "/etc/postgresql"
ROLES_PATH = "/docker-entrypoint-initdb.d"
"""Scripts in this directory run once, when the volume is empty."""
SOCKET_PATH = "/var/run/postgresql"
DATA_PATH = "/var/lib/postgresql"
"""Mount path of the volume. Since version 18 each major version has its own directory below it."""
SHARED_MEMORY = Bytes("128Mi")
SHUTDOWN = Duration("110s")
"""Longest time to end transactions and write a checkpoint. With the pre-stop sleep, the grace period is two minutes."""
SUPERUSER_SECRET = SecretKeys(name="postgresql-superuser", keys=("password",))
_ACCEPTS = ("pg_isready", "-h", "127.0.0.1")
PROBES = Probes(
    startup=Probe.exec(*_ACCEPTS, period=Duration("5s"), timeout=Duration("3s"), failures=60),
    readiness=Probe.exec(*_ACCEPTS, **READY),
    liveness=Probe.tcp("tcp", **SLOW),
)
"""The server accepts no connections while it recovers."""


class PostgresqlServer(Server):
    """One server. Its Service and pods have the name that the pooler has in other environments.

    The server creates roles and databases when its volume is empty. For a service or password added later, run
    `roles.sql` by hand (docs/deploy.md).
    """

    folder: ClassVar[str] = "20-data"
    priority: ClassVar[Priority] = "foundation"
    scrape: ClassVar[Scrape] = Scrape.probe(CONNECTS, PORT)
    service: Name
    store_label: str
    storage: Bytes
    limits: ServerLimits
    databases: tuple[ServiceDatabase, ...]

    @property
    def files(self) -> dict[str, str]:
        """Its configuration, as mounted."""
        return {"postgresql.conf": self._configuration(), "pg_hba.conf": self._access()}

    @override
    def workloads(self) -> Iterator[Workload]:
        """The server, and the jobs that dump and restore its databases."""
        yield StatefulSet(
            name=self.name,
            address={self.store_label: self.service},
            container=Container(
                args=("postgres", "-c", f"config_file={CONFIG_PATH}/postgresql.conf"),
                ports={"tcp": PORT},
                env={"POSTGRES_PASSWORD_FILE": f"{SUPERUSER_SECRET.path}/password"},
                mounts={
                    "config": CONFIG_PATH,
                    "roles": ROLES_PATH,
                    "socket": SOCKET_PATH,
                    "shared-memory": "/dev/shm",  # noqa: S108 - the container's own, in memory
                    DATA_VOLUME: DATA_PATH,
                },
                secrets=(SUPERUSER_SECRET, *(database.secret for database in self.databases)),
                probes=PROBES,
            ),
            volumes={
                "config": ConfigFiles(f"{self.name}-config", self.files),
                "roles": ConfigFiles(f"{self.name}-roles", {"roles.sql": roles_sql(self.databases)}, reloaded=True),
                "socket": Scratch(),
                "shared-memory": Scratch(SHARED_MEMORY, in_memory=True),
            },
            storage=self.storage,
            shutdown=SHUTDOWN,
            services={self.service: tcp(PORT)},
        )
        yield from dump_jobs(self.name, self.service, self.databases, self.storage)

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
