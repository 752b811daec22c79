"""Snapshots of what Consul holds, in the bucket of the backups, and the way back.

A snapshot is consistent and whole, tokens included: the store encrypts it at rest, TLS on the way. The day of the month
names it, so the newest replaces the one of a month ago, and nothing needs a right to delete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from voice_policies import Duration

from components.consul.access import SECRET
from components.container import Image, hardened_container
from components.network_policy import NAME_LABEL
from components.nightly_job import nightly_job
from components.node import Sizing
from components.operation import Name
from components.secret_keys import SecretKeys
from components.stateful_set import mount, scratch
from components.workload import pod_spec, secret_mounts, secret_volumes

if TYPE_CHECKING:
    from components.kubernetes.types import CronJob, ObjectMeta

Action = Literal["snapshot", "restore"]
ACTIONS: tuple[Action, ...] = ("snapshot", "restore")
SCRIPTS_PATH = "/etc/consul-snapshot"
WORK_PATH = "/var/consul-snapshot"
WORK_SIZE = "256Mi"
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


def snapshot_labels(name: Name) -> dict[str, str]:
    """The label that picks the jobs' pods."""
    return {NAME_LABEL: name}


def snapshot_job(metadata: ObjectMeta, action: Action, name: Name, image: Image, server_url: str) -> CronJob:
    """A snapshot every night, or (restore) on demand alone. Both take the management token: Consul asks for no less."""
    secrets = (TOKEN, CREDENTIALS)
    container = hardened_container(action, image, SIZING)
    container["command"] = ["sh", f"{SCRIPTS_PATH}/{action}.sh"]
    container["env"] = [
        {"name": "CONSUL_HTTP_ADDR", "value": server_url},
        {"name": "CONSUL_HTTP_TOKEN_FILE", "value": f"{TOKEN.path}/management-token"},
    ]
    mount(container, "scripts", SCRIPTS_PATH, read_only=True)
    mount(container, "work", WORK_PATH)
    container["volumeMounts"] += secret_mounts(secrets)
    pod = pod_spec(
        name,
        container,
        [{"name": "scripts", "configMap": {"name": name}}, scratch("work", WORK_SIZE), *secret_volumes(secrets)],
        snapshot_labels(name),
        Duration("30s"),
    )
    return nightly_job(metadata, snapshot_labels(name), pod, suspended=action == "restore")
