"""Snapshots of what Consul holds, in the bucket of the backups, and the way back.

A snapshot is consistent and whole, tokens included: the store encrypts it at rest, TLS on the way. The day of the month
names it, so the newest replaces the one of a month ago, and nothing needs a right to delete.
"""

from __future__ import annotations

from collections.abc import Iterator

from voice_policies import Bytes

from components.consul.access import SECRET
from components.container import Container
from components.node import Sizing
from components.operation import Name
from components.secret_keys import SecretKeys
from components.volumes import ConfigFiles, Scratch
from components.workloads import CronJob

SCRIPTS_PATH = "/etc/consul-snapshot"
WORK_PATH = "/var/consul-snapshot"
WORK_SIZE = Bytes("256Mi")
"""Holds one snapshot: the catalogue and key-value store are far below it, and the pod's ephemeral storage above."""
SIZING = Sizing.of(cpu=("100m", "500m"), memory=("128Mi", "256Mi"))
TOKEN = SecretKeys(name=SECRET.name, keys=("management-token",))
CREDENTIALS = SecretKeys(name="consul-backup", keys=("access-key-id", "secret-access-key"))
REGION = "us-east-1"
"""In whose name requests are signed: what S3-compatible stores take where none is configured."""
STORE = f"""\
set -eu
umask 077
cd {WORK_PATH}
store() {{
  printf 'user = "%s:%s"\\n' "$(cat {CREDENTIALS.path}/access-key-id)" "$(cat {CREDENTIALS.path}/secret-access-key)" |
    curl --config - --fail --silent --show-error --retry 3 --max-time 900 --aws-sigv4 aws:amz:{REGION}:s3 "$@"
}}
"""
"""The keys reach curl by a pipe: no process list shows them. S3 wants the payload's digest in a header that not every
curl adds by itself."""


def snapshot_scripts(bucket_url: str) -> dict[str, str]:
    """`snapshot.sh` and `restore.sh`, for sh. Consul verifies a snapshot when it saves one and when it restores one."""
    url = f"{bucket_url}/consul"
    snapshot = f"""\
{STORE}day=$(date -u +%d)
consul snapshot save state.snap
digest=$(sha256sum state.snap | cut -d ' ' -f 1)
store --header "x-amz-content-sha256: $digest" --header 'x-amz-server-side-encryption: AES256' \\
  --upload-file state.snap "{url}/$day.snap"
echo "$day"
"""
    restore = f"""\
{STORE}day=${{SNAPSHOT:-$(date -u +%d)}}
store --header 'x-amz-content-sha256: UNSIGNED-PAYLOAD' --output state.snap "{url}/$day.snap"
consul snapshot restore state.snap
echo "$day"
"""
    return {"snapshot.sh": snapshot, "restore.sh": restore}


def snapshot_jobs(server: Name, server_url: str, bucket_url: str) -> Iterator[CronJob]:
    """A snapshot every night, and a restore on demand alone. Consul demands the management token for both."""
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
            suspended=action == "restore",
        )
