"""Encrypted dumps of one server's databases, and the way back: for dev, whose server has no archive of its log.

Each database is dumped and restored by its own role: the job needs no superuser. A dump is consistent for its database;
what is written after the last one is lost with the server's volume.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from voice_policies import Duration

from components.container import Image, hardened_container
from components.network_policy import NAME_LABEL
from components.nightly_job import nightly_job
from components.node import Sizing
from components.operation import Name
from components.postgresql.databases import ServiceDatabase
from components.secret_keys import SECRETS_PATH, SecretKeys
from components.stateful_set import mount
from components.workload import pod_spec, secret_mounts, secret_volumes

if TYPE_CHECKING:
    from components.kubernetes.types import CronJob, ObjectMeta

Action = Literal["backup", "restore"]
ACTIONS: tuple[Action, ...] = ("backup", "restore")
SCRIPTS_PATH = "/etc/postgresql-backup"
DUMPS_PATH = "/var/backups/postgresql"
RETENTION_DAYS = 7
DUMP_KEY = SecretKeys(name="postgresql-backup-key", keys=("password",))
"""Encrypts the dumps: without it nobody, we included, reads them."""
SIZING = Sizing.of(cpu=("100m", "500m"), memory=("128Mi", "256Mi"))
CIPHER = f"openssl enc -aes-256-cbc -pbkdf2 -iter 600000 -pass file:{DUMP_KEY.path}/password"


def dump_scripts(host: Name, databases: Iterable[ServiceDatabase]) -> dict[str, str]:
    """`backup.sh` and `restore.sh`, for bash. A dump that breaks off never looks like a whole one."""
    names = " ".join(database.name for database in databases)
    password = f'PGPASSWORD=$(cat "{SECRETS_PATH}/$database-postgresql/password")'
    backup = f"""\
set -euo pipefail
export PGHOST=${{PGHOST:-{host}}}
umask 077
target={DUMPS_PATH}/$(date -u +%Y%m%dT%H%M%SZ)
mkdir "$target.partial"
for database in {names}; do
  {password} pg_dump --format=custom --username="$database" "$database" |
    {CIPHER} -out "$target.partial/$database.dump"
done
mv "$target.partial" "$target"
find {DUMPS_PATH} -mindepth 1 -maxdepth 1 -mtime +{RETENTION_DAYS} -exec rm -r {{}} +
echo "$target"
"""
    restore = f"""\
set -euo pipefail
export PGHOST=${{PGHOST:-{host}}}
newest=$(ls {DUMPS_PATH} | grep -v partial | sort | tail -n 1)
source={DUMPS_PATH}/${{BACKUP:-$newest}}
for database in {names}; do
  {CIPHER} -d -in "$source/$database.dump" |
    {password} pg_restore --clean --if-exists --no-owner --exit-on-error --single-transaction \\
      --username="$database" --dbname="$database"
done
echo "$source"
"""
    return {"backup.sh": backup, "restore.sh": restore}


def dump_labels(name: Name) -> dict[str, str]:
    """The label that picks the jobs' pods."""
    return {NAME_LABEL: name}


def dump_job(
    metadata: ObjectMeta,
    action: Action,
    name: Name,
    image: Image,
    secrets: Iterable[SecretKeys],
) -> CronJob:
    """A job every night, or (restore) never by itself: `kubectl create job --from=cronjob/postgresql-restore NAME`."""
    mounted = tuple(secrets)
    container = hardened_container(action, image, SIZING)
    container["command"] = ["bash", f"{SCRIPTS_PATH}/{action}.sh"]
    mount(container, "scripts", SCRIPTS_PATH, read_only=True)
    mount(container, "dumps", DUMPS_PATH)
    container["volumeMounts"] += secret_mounts(mounted)
    pod = pod_spec(
        name,
        container,
        [
            {"name": "scripts", "configMap": {"name": name}},
            {"name": "dumps", "persistentVolumeClaim": {"claimName": name}},
            *secret_volumes(mounted),
        ],
        dump_labels(name),
        Duration("30s"),
    )
    return nightly_job(metadata, dump_labels(name), pod, suspended=action == "restore")
