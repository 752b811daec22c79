"""PostgreSQL for dev: one server without high availability. A second pod would be a primary without replication."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from typing_extensions import override
from voice_policies import Bytes, Duration

from components.component import PLAIN_TEXT, Exemption
from components.container import Container
from components.node import Sizing
from components.operation import Name
from components.postgresql.databases import (
    PROVISIONER,
    PROVISIONER_SECRET,
    SUPERUSER,
    ServerLimits,
    ServiceDatabase,
    access_rules,
    provisioner_sql,
    roles_sql,
)
from components.postgresql.dumps import dump_jobs
from components.priority import Priority
from components.probes import READY, SLOW, Probe, Probes
from components.scrape import CONNECTS, Scrape
from components.secret_keys import SecretKeys
from components.server import Server, Workload
from components.services import tcp
from components.volumes import ConfigFiles, Scratch
from components.workloads import DATA_VOLUME, Job, StatefulSet
from components.writes import StartWork, Write

__all__ = ["PostgresqlServer"]

PORT = 5432
CONFIG_PATH = "/etc/postgresql"
INIT_PATH = "/docker-entrypoint-initdb.d"
"""Scripts in this directory run once, when the volume is empty."""
ROLES_PATH = "/etc/roles"
RETRIES = 20
"""Retries of the Job. The pauses before 20 retries take over an hour in total, because kubelet doubles each pause up to
five minutes. So the Job's deadline of 30 min ends the retries."""
SOCKET_PATH = "/var/run/postgresql"
DATA_PATH = "/var/lib/postgresql"
"""Mount path of the volume. Since version 18 each major version has its own directory below it."""
ROLES_SIZING = Sizing.of(cpu=("50m", "200m"), memory=("32Mi", "128Mi"))
SHARED_MEMORY = Bytes("128Mi")
DATABASES = Bytes("2Gi")
"""Assumed size of all databases of a development environment."""
MAX_WAL = Bytes("1Gi")
TEMPORARY_FILES = Bytes("256Mi")
"""Largest size of the temporary files of one process. PostgreSQL's default is no limit."""
REPLAY_RATE = Bytes("16Mi")
"""Assumed bytes per second of the WAL replay, which is single-threaded."""
SHUTDOWN = Duration("110s")
"""Longest time to end transactions and write a checkpoint. The grace period of the pod is 10 s longer: a
pre-stop sleep of 5 s, and a margin of 5 s."""
SUPERUSER_SECRET = SecretKeys(name="postgresql-superuser", keys=("password",))
_PG_ISREADY = ("pg_isready", "-h", "127.0.0.1")
PROBES = Probes(
    startup=Probe.exec(*_PG_ISREADY, period=Duration("5s"), timeout=Duration("3s"), failures=60),
    readiness=Probe.exec(*_PG_ISREADY, **READY),
    liveness=Probe.tcp("tcp", **SLOW),
)
"""The liveness probe opens a TCP connection, because `pg_isready` fails while the server recovers."""


class PostgresqlServer(Server):
    """One server without a standby.

    Clients use the same address in every environment: the Service and the pod label have the names of the pooler.
    A Job creates roles and databases. If a service is added, Pulumi runs a new Job and does not restart the server.
    """

    folder: ClassVar[str] = "20-data"
    priority: ClassVar[Priority] = "foundation"
    exemptions: ClassVar[tuple[Exemption, ...]] = (PLAIN_TEXT,)
    scrape: ClassVar[Scrape] = Scrape.probe(CONNECTS, PORT)
    service: Name
    store_label: str
    storage: Bytes
    limits: ServerLimits
    databases: tuple[ServiceDatabase, ...]

    @property
    def files(self) -> dict[str, str]:
        """Names and texts of the configuration files, as mounted."""
        return {"postgresql.conf": self._configuration(), "pg_hba.conf": self._access()}

    @override
    def workloads(self) -> Iterator[Workload]:
        yield StatefulSet(
            name=self.name,
            address={self.store_label: self.service},
            container=Container(
                args=("postgres", "-c", f"config_file={CONFIG_PATH}/postgresql.conf"),
                ports={"tcp": PORT},
                env={"POSTGRES_PASSWORD_FILE": f"{SUPERUSER_SECRET.path}/password"},
                mounts={
                    "config": CONFIG_PATH,
                    "init": INIT_PATH,
                    "socket": SOCKET_PATH,
                    "shared-memory": "/dev/shm",  # noqa: S108 - a volume in memory
                    DATA_VOLUME: DATA_PATH,
                },
                secrets=(SUPERUSER_SECRET, PROVISIONER_SECRET),
                probes=PROBES,
            ),
            volumes={
                "config": ConfigFiles(f"{self.name}-config", self.files),
                "init": ConfigFiles(f"{self.name}-init", {"provisioner.sql": provisioner_sql()}),
                "socket": Scratch(),
                "shared-memory": Scratch(SHARED_MEMORY, in_memory=True),
            },
            storage=self.storage,
            writes=(
                Write(DATA_VOLUME, DATABASES, "databases"),
                Write(DATA_VOLUME, MAX_WAL, "write-ahead log between two checkpoints"),
                Write(DATA_VOLUME, TEMPORARY_FILES * 4, f"temporary files of four queries, {TEMPORARY_FILES} each"),
                Write("socket", Bytes("1Mi"), "a socket and its lock"),
                Write(
                    "shared-memory", SHARED_MEMORY, "shared memory of parallel queries; a query that needs more fails"
                ),
            ),
            start_work=StartWork(MAX_WAL, REPLAY_RATE, "replay of the write-ahead log since the last checkpoint"),
            shutdown=SHUTDOWN,
            services={self.service: tcp(PORT)},
        )
        yield self._roles()
        yield from dump_jobs(self.name, self.service, self.databases, self.storage, DATABASES)

    def _roles(self) -> Job:
        name = f"{self.name}-roles"
        files = {"apply.sh": self._roles_script(), "roles.sql": roles_sql(self.databases)}
        return Job(
            name=name,
            container=Container(
                name="apply",
                sizing=ROLES_SIZING,
                command=("sh", f"{ROLES_PATH}/apply.sh"),
                mounts={"roles": ROLES_PATH},
                secrets=(PROVISIONER_SECRET, *(database.secret for database in self.databases)),
            ),
            volumes={"roles": ConfigFiles(name, files)},
            retries=RETRIES,
        )

    def _roles_script(self) -> str:
        """The script fails until the server answers. Kubernetes retries the script."""
        return (
            "set -eu\n"
            f"PGPASSWORD=$(cat {PROVISIONER_SECRET.path}/password)\n"
            "export PGPASSWORD\n"
            f"exec psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --host {self.service} \\\n"
            f"  --username {PROVISIONER} --dbname postgres --file {ROLES_PATH}/roles.sql\n"
        )

    def _configuration(self) -> str:
        memory = self.sizing.memory_limit
        parameters = {
            **self.limits.parameters(),
            "listen_addresses": "*",
            "unix_socket_directories": SOCKET_PATH,
            "hba_file": f"{CONFIG_PATH}/pg_hba.conf",
            "shared_buffers": f"{memory.units // 4 // 1024**2}MB",
            "log_connections": "authorization",
            "max_wal_size": f"{MAX_WAL.units >> 20}MB",
            "temp_file_limit": f"{TEMPORARY_FILES.units >> 20}MB",
        }
        return "".join(f"{name} = '{value}'\n" for name, value in parameters.items())

    def _access(self) -> str:
        provisioner = f"host postgres {PROVISIONER} all scram-sha-256"
        rules = [f"local all {SUPERUSER} scram-sha-256", provisioner, *access_rules("host")]
        return "".join(f"{rule}\n" for rule in rules)
