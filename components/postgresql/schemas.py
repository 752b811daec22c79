"""Tables that services share the form of, such as the journal of sagas: made in each one's database by its own role.

A job for each database, with that role's password alone. Applying the files again changes nothing, so a job that was
interrupted, or whose server was not there yet, starts over. Another content is another job: a job cannot be changed.
Every night one more forgets in all of them, as each one's own role, what is long over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from typing_extensions import override

from components.container import Container
from components.node import Sizing
from components.postgresql.databases import ServiceDatabase
from components.secret_keys import SECRETS_PATH, SecretKeys
from components.server import Server, Workload
from components.volumes import ConfigFiles
from components.workloads import CronJob, Job

__all__ = ["DatabaseSchemas"]

FILES_PATH = "/etc/schemas"
SCRIPT = "apply.sh"
NIGHTLY_SCRIPT = "nightly.sh"
NIGHTLY_FILE = "nightly.sql"
LIBPQ_PORT = 5432
"""The port that libpq connects to where none is named."""
RETRIES = 20
"""Kubernetes waits longer before each, six minutes at most: the deadline comes first."""
SIZING = Sizing.of(cpu=("50m", "200m"), memory=("64Mi", "128Mi"))


class DatabaseSchemas(Server):
    """The files, and a job for each database that they are applied to."""

    folder: ClassVar[str] = "25-schemas"
    host: str
    """Host of the databases."""
    port: int = LIBPQ_PORT
    tls: bool = False
    """The jobs refuse a server without TLS. They verify no certificate, because the image holds no certificate
    authorities."""
    sizing: Sizing = SIZING
    databases: tuple[ServiceDatabase, ...]
    files: dict[str, str]
    """Plain SQL, applied in the order of the names."""
    nightly: str
    """Plain SQL that deletes what is long over."""

    @property
    @override
    def secrets(self) -> tuple[SecretKeys, ...]:
        """None of its own: the server's are in the same namespace."""
        return ()

    @override
    def workloads(self) -> Iterator[Workload]:
        scripts = {SCRIPT: self.script, NIGHTLY_SCRIPT: self.nightly_script, NIGHTLY_FILE: self.nightly}
        volumes = {"files": ConfigFiles(self.name, {**self.files, **scripts})}
        for database in self.databases:
            yield Job(
                name=self.name,
                job=f"{self.name}-{database.name}",
                container=Container(
                    name="apply",
                    command=("sh", f"{FILES_PATH}/{SCRIPT}"),
                    env={
                        **self._server,
                        "PGUSER": database.name,
                        "PGDATABASE": database.name,
                        "PASSWORD_FILE": f"{database.secret.path}/password",
                    },
                    mounts={"files": FILES_PATH},
                    secrets=(database.secret,),
                ),
                volumes=volumes,
                retries=RETRIES,
            )
        yield CronJob(
            name=self.name,
            job=f"{self.name}-nightly",
            container=Container(
                name="nightly",
                command=("sh", f"{FILES_PATH}/{NIGHTLY_SCRIPT}"),
                env=self._server,
                mounts={"files": FILES_PATH},
                secrets=tuple(database.secret for database in self.databases),
            ),
            volumes=volumes,
        )

    @property
    def _server(self) -> dict[str, str]:
        """The server in libpq's variables."""
        port = {} if self.port == LIBPQ_PORT else {"PGPORT": str(self.port)}
        return {"PGHOST": self.host, **port, **({"PGSSLMODE": "require"} if self.tls else {})}

    @property
    def script(self) -> str:
        """All files in one transaction, one job at a time: `CREATE … IF NOT EXISTS` alone does not wait for others."""
        names = sorted(self.files)
        return (
            "set -eu\n"
            'PGPASSWORD=$(cat "$PASSWORD_FILE")\n'
            "export PGPASSWORD\n"
            "exec psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --single-transaction \\\n"
            f"  --command \"SELECT pg_advisory_xact_lock(hashtext('{self.name}'))\" --output /dev/null \\\n"
            + " \\\n".join(f"  --file {FILES_PATH}/{name}" for name in names)
            + "\n"
        )

    @property
    def nightly_script(self) -> str:
        """One database after the other; one that fails fails the job, once the others are done."""
        databases = " ".join(database.name for database in self.databases)
        return (
            "set -u\nfailed=0\n"
            f"for database in {databases}; do\n"
            f'  PGPASSWORD=$(cat "{SECRETS_PATH}/$database-postgresql/password") \\\n'
            "    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --single-transaction \\\n"
            f'    --username "$database" --dbname "$database" --file {FILES_PATH}/{NIGHTLY_FILE} || failed=1\n'
            "done\n"
            'exit "$failed"\n'
        )
