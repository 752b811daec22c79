"""A Job that configures a server through its HTTP interface: curl sends the requests of a ConfigMap.

Jobs are immutable, so the name contains a hash of the requests and of the pod. Each request sets a whole object by
name, so a second run changes nothing. curl repeats a failed request at most 90 times, every 10 s.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from voice_policies import ClosedModel

from components.container import Container, Image
from components.files import file_text
from components.node import Sizing
from components.operation import Name
from components.secret_keys import SecretKeys

__all__ = ["Account"]

REQUESTS_PATH = "/etc/voice/requests"
LOGIN = "/tmp/login"  # noqa: S108 - the container's own emptyDir
BODY = "/tmp/body.json"  # noqa: S108 - the container's own emptyDir
SCRIPT = "send.sh"
SIZING = Sizing.of(cpu=("50m", "200m"), memory=("64Mi", "128Mi"))


class Account(ClosedModel):
    """The user that sends a request, or whose password the request sets."""

    user: str
    secret: SecretKeys
    """The secret whose key `password` holds the user's password."""

    @property
    def password_file(self) -> str:
        """Path of the mounted password."""
        return f"{self.secret.path}/password"


class Request(ClosedModel):
    """One request. Its body is a JSON object. With `account` the script adds the field `password`."""

    name: Name
    method: Literal["PUT", "POST"]
    path: str
    body: dict[str, Any]
    account: Account | None = None


def write_login(account: Account, file: str) -> str:
    """Lines for `sh`: they define `quoted`, which escapes text for double quotes, and write curl's login."""
    return f"""\
quoted() {{ tr -d '\\n' < "$1" | sed 's/[\\\\"]/\\\\&/g'; }}
printf 'user = "%s:%s"\\n' '{account.user}' "$(quoted {account.password_file})" > {file}
"""


def setup_files(server: str, login: Account, requests: Iterable[Request]) -> dict[str, str]:
    """The shell script, and the body of each request.

    No password appears in arguments, which `ps` shows, or in a ConfigMap.
    """
    sent = tuple(requests)
    lines = "".join(f"{_line(request)}\n" for request in sent)
    script = f"""\
set -eu
umask 077
{write_login(login, LOGIN)}send() {{
  curl --config {LOGIN} --silent --show-error --fail-with-body --max-time 60 \\
    --retry 90 --retry-delay 10 --retry-all-errors \\
    --header 'Content-Type: application/json' --header 'kbn-xsrf: true' \\
    --request "$1" --data-binary "@$3" "{server}$2"
  echo
}}
with_password() {{
  {{ printf '{{"password":"%s"' "$(quoted "$2")"; sed '1s/^{{}}$/}}/; 1s/^{{/,/' "$1"; }} > {BODY}
}}
{lines}"""
    return {SCRIPT: script, **{f"{request.name}.json": file_text(request.body) for request in sent}}


def _line(request: Request) -> str:
    body = f"{REQUESTS_PATH}/{request.name}.json"
    if request.account is None:
        return f"send {request.method} '{request.path}' {body}"
    return f"with_password {body} {request.account.password_file}; send {request.method} '{request.path}' {BODY}"


def sender(secrets: Iterable[SecretKeys], image: Image | None = None) -> Container:
    """A container that sends the requests of the volume `requests` once. `image` has sh, sed, tr and curl ≥ 7.76."""
    return Container(
        name="send",
        image=image,
        sizing=SIZING,
        command=("sh", f"{REQUESTS_PATH}/{SCRIPT}"),
        mounts={"requests": REQUESTS_PATH},
        secrets=tuple(secrets),
    )
