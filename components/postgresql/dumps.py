"""Encrypted dumps of one server's databases, and a restore. Only dev uses them, because dev has no WAL archive.

Each role dumps and restores its own database, so the job needs no superuser. The dump of one database is consistent.
Dumps of two databases are not consistent with each other. If the server's volume is lost,
all writes after the last dump are lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from voice_policies import Bytes

from components.container import Container
from components.node import Sizing
from components.operation import Name
from components.postgresql.databases import ServiceDatabase
from components.secret_keys import SECRETS_PATH, SecretKeys
from components.volumes import Claim, ConfigFiles
from components.workloads import CronJob
from components.writes import Write

SCRIPTS_PATH = "/etc/postgresql-backup"
DUMPS_PATH = "/var/backups/postgresql"
RETENTION_DAYS = 7
LONGEST_MINUTES = RETENTION_DAYS * 24 * 60 + 12 * 60
"""The job deletes dumps that are older than 7.5 days: it keeps the dump of seven days ago and deletes the dump of eight
days ago. The half day allows for dumps that start or end some minutes earlier or later."""
DUMPS = RETENTION_DAYS + 2
"""Largest number of dumps on the volume: one of each of the last eight nights, and the new dump.

The job deletes the oldest dump only when the new dump is complete.
"""
DUMP_SHARE = 0.2
"""Assumed size of a compressed dump, relative to its database. A dump contains no indexes."""
NAMES = "[0-9]*Z"
"""Pattern of the dumps' names, such as `20261130T000000Z`. A volume may have other folders, such as `lost+found`."""
DUMP_KEY = SecretKeys(name="postgresql-backup-key", keys=("password",))
"""Key that encrypts the dumps. Nobody can read a dump without it."""
SIZING = Sizing.of(cpu=("100m", "500m"), memory=("128Mi", "256Mi"))
CIPHER = f"openssl enc -aes-256-cbc -pbkdf2 -iter 600000 -pass file:{DUMP_KEY.path}/password"


def dump_scripts(host: Name, databases: Iterable[ServiceDatabase]) -> dict[str, str]:
    """`backup.sh` and `restore.sh`, for bash. An interrupted dump cannot be mistaken for a complete dump."""
    names = " ".join(database.name for database in databases)
    password = f'PGPASSWORD=$(cat "{SECRETS_PATH}/$database-postgresql/password")'
    backup = f"""\
set -euo pipefail
export PGHOST=${{PGHOST:-{host}}}
umask 077
target={DUMPS_PATH}/$(date -u +%Y%m%dT%H%M%SZ)
trap 'rm -rf "$target.partial"' EXIT
mkdir "$target.partial"
for database in {names}; do
  {password} pg_dump --format=custom --username="$database" "$database" |
    {CIPHER} -out "$target.partial/$database.dump"
done
mv "$target.partial" "$target"
find {DUMPS_PATH} -mindepth 1 -maxdepth 1 -name '{NAMES}*' -mmin +{LONGEST_MINUTES} -exec rm -r {{}} +
echo "$target"
"""
    restore = f"""\
set -euo pipefail
export PGHOST=${{PGHOST:-{host}}}
shopt -s nullglob
newest=
for dump in {DUMPS_PATH}/{NAMES}; do newest=$dump; done
source=${{BACKUP:+{DUMPS_PATH}/$BACKUP}}
source=${{source:-$newest}}
if [ ! -d "$source" ]; then
  echo "restore: ${{source:-{DUMPS_PATH}}} is no dump; expected BACKUP to name a folder in {DUMPS_PATH}" >&2
  exit 1
fi
for database in {names}; do
  {CIPHER} -d -in "$source/$database.dump" |
    {password} pg_restore --clean --if-exists --no-owner --exit-on-error --single-transaction \\
      --username="$database" --dbname="$database"
done
echo "$source"
"""
    return {"backup.sh": backup, "restore.sh": restore}


def dump_jobs(
    server: Name, host: Name, databases: tuple[ServiceDatabase, ...], size: Bytes, data: Bytes
) -> Iterator[CronJob]:
    """A job that writes a backup every night to a volume of `size`, and a job that restores on demand."""
    name = f"{server}-backup"
    for action in ("backup", "restore"):
        yield CronJob(
            name=name,
            job=f"{server}-{action}",
            container=Container(
                name=action,
                sizing=SIZING,
                command=("bash", f"{SCRIPTS_PATH}/{action}.sh"),
                mounts={"scripts": SCRIPTS_PATH, "dumps": DUMPS_PATH},
                secrets=(DUMP_KEY, *(database.secret for database in databases)),
            ),
            volumes={"scripts": ConfigFiles(name, dump_scripts(host, databases)), "dumps": Claim(name, size)},
            writes=(
                Write("dumps", data * DUMP_SHARE * DUMPS, f"{DUMPS} dumps, {DUMP_SHARE:.0%} of the databases each"),
            ),
            suspended=action == "restore",
        )
