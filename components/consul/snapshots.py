"""Snapshots of Consul's data in the bucket of the backups, and the script that restores a snapshot.

A snapshot is consistent and complete, tokens included. TLS encrypts the snapshot on the way to the object store, which
encrypts it at rest. Each snapshot has two names: the day of the month, and `newest`. A new
snapshot overwrites the older snapshots of the same names, so no job needs the right to delete.
"""

from __future__ import annotations

from collections.abc import Iterator

from voice_policies import Bytes

from components.consul.access import SECRET
from components.container import Container
from components.node import Sizing
from components.operation import Name
from components.secret_keys import OBJECT_STORE_KEYS, UUID, SecretKeys
from components.volumes import ConfigFiles, Scratch
from components.workloads import CronJob
from components.writes import Write

SCRIPTS_PATH = "/etc/consul-snapshot"
WORK_PATH = "/var/consul-snapshot"
STATE = Bytes("128Mi")
"""Assumed size of one snapshot: Consul's service catalogue and key-value store."""
WORK_SIZE = Bytes("256Mi")
SIZING = Sizing.of(cpu=("100m", "500m"), memory=("128Mi", "256Mi"))
TOKEN = SecretKeys(name=SECRET.name, keys=("management-token",), forms={"management-token": UUID})
CREDENTIALS = SecretKeys(name="consul-backup", keys=tuple(OBJECT_STORE_KEYS), forms=OBJECT_STORE_KEYS)
REGION = "us-east-1"
"""Region in the signature of requests. S3-compatible stores accept it unless their own configuration sets another."""
STORE = f"""\
set -eu
umask 077
cd {WORK_PATH}
store() {{
  printf 'user = "%s:%s"\\n' "$(cat {CREDENTIALS.path}/access-key-id)" "$(cat {CREDENTIALS.path}/secret-access-key)" |
    curl --config - --fail --silent --show-error --retry 3 --max-time 900 --aws-sigv4 aws:amz:{REGION}:s3 "$@"
}}
"""
"""curl reads the keys from a pipe, so that no process list shows them. S3 requires a header with the payload's digest.
Not every version of curl adds this header, so the script does."""


def snapshot_scripts(bucket_url: str) -> dict[str, str]:
    """`snapshot.sh` and `restore.sh`. Consul verifies each snapshot, both at saving and at restoring."""
    url = f"{bucket_url}/consul"
    snapshot = f"""\
{STORE}day=$(date -u +%d)
consul snapshot save state.snap
digest=$(sha256sum state.snap | cut -d ' ' -f 1)
for name in "$day" newest; do
  store --header "x-amz-content-sha256: $digest" --header 'x-amz-server-side-encryption: AES256' \\
    --upload-file state.snap "{url}/$name.snap"
done
echo "$day"
"""
    restore = f"""\
{STORE}name=${{SNAPSHOT:-newest}}
store --header 'x-amz-content-sha256: UNSIGNED-PAYLOAD' --output state.snap "{url}/$name.snap"
consul snapshot restore state.snap
echo "$name"
"""
    return {"snapshot.sh": snapshot, "restore.sh": restore}


def snapshot_jobs(server: Name, server_url: str, bucket_url: str) -> Iterator[CronJob]:
    """A job that takes a snapshot every night, and a job that restores on demand. Both need the management token."""
    name = f"{server}-snapshot"
    for action in ("snapshot", "restore"):
        yield CronJob(
            name=name,
            job=f"{server}-{action}",
            container=Container(
                name=action,
                sizing=SIZING,
                command=("sh", f"{SCRIPTS_PATH}/{action}.sh"),
                env={"CONSUL_HTTP_ADDR": server_url, "CONSUL_HTTP_TOKEN_FILE": f"{TOKEN.path}/management-token"},
                mounts={"scripts": SCRIPTS_PATH, "work": WORK_PATH},
                secrets=(TOKEN, CREDENTIALS),
            ),
            volumes={"scripts": ConfigFiles(name, snapshot_scripts(bucket_url)), "work": Scratch(WORK_SIZE)},
            writes=(Write("work", STATE, "one snapshot"),),
            suspended=action == "restore",
        )
