"""A Job that sets a server up through its HTTP interface: requests of a ConfigMap, sent by curl.

Its name changes with what it sends and what it runs: a Job never changes, and another one is a new one. Each request
sets a whole object by name, so a second run changes nothing; a server that does not answer yet is asked again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from pydantic_core import to_json
from voice_policies import ClosedModel, Duration

from components.component import PART_OF
from components.container import Image, hardened_container
from components.network_policy import NAME_LABEL
from components.node import Sizing
from components.operation import Name
from components.policy_config import digest_of, file_text
from components.secret_keys import SecretKeys
from components.stateful_set import mount
from components.workload import pod_spec, secret_mounts, secret_volumes

if TYPE_CHECKING:
    from components.kubernetes.types import Container, Job, ObjectMeta, PodSpec

REQUESTS_PATH = "/etc/voice/requests"
LOGIN = "/tmp/login"  # noqa: S108 - the container's own emptyDir
BODY = "/tmp/body.json"  # noqa: S108 - likewise
SCRIPT = "send.sh"
SIZING = Sizing.of(cpu=("50m", "200m"), memory=("64Mi", "128Mi"))
DEADLINE_SECONDS = 1800
"""Longest time that a cluster may take to come up on empty disks."""


class Account(ClosedModel):
    """Who a request is sent by, or whose password it sets."""

    user: str
    secret: SecretKeys
    """Its key `password`."""

    @property
    def password_file(self) -> str:
        """Where the password is mounted."""
        return f"{self.secret.path}/password"


class Request(ClosedModel):
    """One request. Its body is a JSON object, to which `account` adds the member `password`."""

    name: Name
    method: Literal["PUT", "POST"]
    path: str
    body: dict[str, Any]
    account: Account | None = None


def setup_files(server: str, login: Account, requests: Iterable[Request]) -> dict[str, str]:
    """The script for `sh`, and the body of each request. No password is an argument that `ps` shows, or in a file."""
    sent = tuple(requests)
    lines = "".join(f"{_line(request)}\n" for request in sent)
    script = f"""\
set -eu
umask 077
quoted() {{ tr -d '\\n' < "$1" | sed 's/[\\\\"]/\\\\&/g'; }}
send() {{
  curl --config {LOGIN} --silent --show-error --fail-with-body --max-time 60 \\
    --retry 90 --retry-delay 10 --retry-all-errors \\
    --header 'Content-Type: application/json' --header 'kbn-xsrf: true' \\
    --request "$1" --data-binary "@$3" "{server}$2"
  echo
}}
with_password() {{
  {{ printf '{{"password":"%s"' "$(quoted "$2")"; sed '1s/^{{}}$/}}/; 1s/^{{/,/' "$1"; }} > {BODY}
}}
printf 'user = "%s:%s"\\n' '{login.user}' "$(quoted {login.password_file})" > {LOGIN}
{lines}"""
    return {SCRIPT: script, **{f"{request.name}.json": file_text(request.body) for request in sent}}


def _line(request: Request) -> str:
    body = f"{REQUESTS_PATH}/{request.name}.json"
    if request.account is None:
        return f"send {request.method} '{request.path}' {body}"
    return f"with_password {body} {request.account.password_file}; send {request.method} '{request.path}' {BODY}"


def setup_labels(name: Name) -> dict[str, str]:
    """The label that picks the Job's pods."""
    return {NAME_LABEL: name}


def setup_pod(name: Name, image: Image, secrets: Iterable[SecretKeys]) -> PodSpec:
    """A pod that sends the requests of the ConfigMap `name` once. `image` has sh, sed and curl 7.76 or later."""
    mounted = tuple(secrets)
    container: Container = hardened_container("send", image, SIZING)
    container["command"] = ["sh", f"{REQUESTS_PATH}/{SCRIPT}"]
    mount(container, "requests", REQUESTS_PATH, read_only=True)
    container["volumeMounts"] += secret_mounts(mounted)
    pod = pod_spec(
        name,
        container,
        [{"name": "requests", "configMap": {"name": name}}, *secret_volumes(mounted)],
        setup_labels(name),
        Duration("30s"),
    )
    pod["restartPolicy"] = "OnFailure"
    return pod


def setup_job(metadata: ObjectMeta, pod: PodSpec, files: dict[str, str]) -> Job:
    """The Job for these files. A changed password is set by deleting the Job and deploying again."""
    name = metadata["name"]
    digest = digest_of({**files, "pod": to_json(pod).decode()})
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**metadata, "name": f"{name}-{digest[:8]}"},
        "spec": {
            "backoffLimit": 10,
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "template": {
                "metadata": {"labels": {**setup_labels(name), "app.kubernetes.io/part-of": PART_OF}},
                "spec": pod,
            },
        },
    }
