"""Tables that services share the form of, such as the journal of sagas: made in each one's database by its own role.

A job for each database, with that role's password alone. Applying the files again changes nothing, so a job that was
interrupted, or whose server was not there yet, starts over. Another content is another job: a job cannot be changed.
Every night one more forgets in all of them, as each one's own role, what is long over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from voice_policies import Duration

from components.access import service_account
from components.component import Component
from components.container import Image, hardened_container
from components.network_policy import NetworkEnd, network_policy
from components.nightly_job import nightly_job
from components.node import Sizing
from components.policy_config import config_files, digest_of
from components.postgresql.databases import ServiceDatabase
from components.secret_keys import SECRETS_PATH
from components.stateful_set import mount
from components.workload import pod_spec, secret_mounts, secret_volumes

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import Container, Job, PodSpec, Volume

FILES_PATH = "/etc/schemas"
SCRIPT = "apply.sh"
NIGHTLY_SCRIPT = "nightly.sh"
NIGHTLY_FILE = "nightly.sql"
DEADLINE_SECONDS = 1800
"""For a first start, in which the server is made too."""
RETRIES = 20
"""Kubernetes waits longer before each, six minutes at most: the deadline comes first."""
STOP = Duration("30s")
SIZING = Sizing.of(cpu=("50m", "200m"), memory=("64Mi", "128Mi"))


class DatabaseSchemas(Component):
    """The files, and a job for each database that they are applied to."""

    kind: ClassVar[str] = "DatabaseSchemas"
    folder: ClassVar[str] = "25-schemas"
    host: str
    """Where the databases are reached."""
    image: Image
    databases: tuple[ServiceDatabase, ...]
    files: dict[str, str]
    """Plain SQL, applied in the order of the names."""
    nightly: str
    """Plain SQL that deletes what is long over."""
    egress: tuple[NetworkEnd, ...] = ()

    def resources(self) -> Iterator[Resource]:
        """What the jobs need first."""
        yield service_account(self.metadata())
        scripts = {SCRIPT: self.script, NIGHTLY_SCRIPT: self.nightly_script, NIGHTLY_FILE: self.nightly}
        yield config_files(self.metadata(), {**self.files, **scripts})
        yield network_policy(self.metadata(), self.selector, (), self.egress)
        for database in self.databases:
            yield self._job(database)
        yield nightly_job(self.metadata("nightly"), self.labels, self._nightly_pod(), suspended=False)

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

    def _job(self, database: ServiceDatabase) -> Job:
        pod = self._pod(database)
        digest = digest_of({**self.files, SCRIPT: self.script, "pod": repr(pod)})
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": self.metadata(f"{database.name}-{digest[:8]}"),
            "spec": {
                "backoffLimit": RETRIES,
                "activeDeadlineSeconds": DEADLINE_SECONDS,
                "template": {"metadata": {"labels": self.labels}, "spec": pod},
            },
        }

    def _pod(self, database: ServiceDatabase) -> PodSpec:
        container = hardened_container("apply", self.image, SIZING)
        container["command"] = ["sh", f"{FILES_PATH}/{SCRIPT}"]
        container["env"] = [
            {"name": "PGHOST", "value": self.host},
            {"name": "PGUSER", "value": database.name},
            {"name": "PGDATABASE", "value": database.name},
            {"name": "PASSWORD_FILE", "value": f"{database.secret.path}/password"},
        ]
        pod = self._pod_of(container, database)
        pod["restartPolicy"] = "OnFailure"
        return pod

    def _nightly_pod(self) -> PodSpec:
        container = hardened_container("nightly", self.image, SIZING)
        container["command"] = ["sh", f"{FILES_PATH}/{NIGHTLY_SCRIPT}"]
        container["env"] = [{"name": "PGHOST", "value": self.host}]
        return self._pod_of(container, *self.databases)

    def _pod_of(self, container: Container, *databases: ServiceDatabase) -> PodSpec:
        """With the files, and the passwords of these databases."""
        secrets = tuple(database.secret for database in databases)
        mount(container, "files", FILES_PATH, read_only=True)
        container["volumeMounts"] += secret_mounts(secrets)
        volumes: list[Volume] = [{"name": "files", "configMap": {"name": self.name}}, *secret_volumes(secrets)]
        return pod_spec(self.name, container, volumes, self.selector, STOP)
