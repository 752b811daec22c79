"""Tables that several services need, such as the journal of sagas. A Job creates them in each service's database.

Each Job mounts only the password of the role that owns the database. Applying the files twice changes nothing, so an
interrupted Job starts over. Jobs are immutable, so new files create a new Job. One CronJob deletes expired rows in all
databases every night, with the role of each database.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from typing_extensions import override

from components.container import Container
from components.node import Sizing
from components.postgresql.databases import ServiceDatabase
from components.secret_keys import SECRETS_PATH
from components.server import Server, Workload
from components.volumes import ConfigFiles
from components.workloads import CronJob, Job

__all__ = ["DatabaseSchemas"]

FILES_PATH = "/etc/schemas"
SCRIPT = "apply.sh"
NIGHTLY_SCRIPT = "nightly.sh"
NIGHTLY_FILE = "nightly.sql"
AUTHORITIES_FILE = "authorities.pem"
LIBPQ_PORT = 5432
"""The default port of libpq."""
RETRIES = 20
"""Retries of a Job. Kubelet doubles the pause between retries up to five minutes. So the Job's deadline of 30 min
passes before the last retry."""
SIZING = Sizing.of(cpu=("50m", "200m"), memory=("64Mi", "128Mi"))


class DatabaseSchemas(Server):
    """The SQL files, a Job for each database that applies the files to it, and the nightly CronJob."""

    folder: ClassVar[str] = "25-schemas"
    host: str
    """Host of the databases."""
    port: int = LIBPQ_PORT
    tls: bool = False
    """True: the jobs refuse a server without TLS, and verify its certificate and its name."""
    certificate_authorities: str | None = None
    """Certificates, as PEM, of the authorities that the jobs trust. `None`: the image's authorities."""
    sizing: Sizing = SIZING
    databases: tuple[ServiceDatabase, ...]
    files: dict[str, str]
    """SQL text by file name. The Job applies the files in alphabetical order."""
    nightly: str
    """SQL that deletes expired rows."""

    @override
    def workloads(self) -> Iterator[Workload]:
        scripts = {SCRIPT: self.script, NIGHTLY_SCRIPT: self.nightly_script, NIGHTLY_FILE: self.nightly}
        authorities = {AUTHORITIES_FILE: self.certificate_authorities} if self.certificate_authorities else {}
        volumes = {"files": ConfigFiles(self.name, {**self.files, **scripts, **authorities})}
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
        port = {} if self.port == LIBPQ_PORT else {"PGPORT": str(self.port)}
        roots = f"{FILES_PATH}/{AUTHORITIES_FILE}" if self.certificate_authorities else "system"
        tls = {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": roots} if self.tls else {}
        return {"PGHOST": self.host, **port, **tls}

    @property
    def script(self) -> str:
        """Script that applies all files in one transaction.

        An advisory lock serializes jobs of one database, because concurrent `CREATE … IF NOT EXISTS` can fail.
        """
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
        """Script that cleans one database after the other. After a failure it cleans the rest, then the job fails."""
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
