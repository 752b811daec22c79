"""Access to a Valkey: an ACL user for each caller, with the hash of its password."""

from __future__ import annotations

from collections.abc import Iterable

from voice_policies import ClosedModel

from components.operation import Name
from components.secret_keys import SECRETS_PATH, SecretKeys

__all__ = ["AclUser"]

CONFIG_PATH = "/etc/valkey"
RUN_PATH = "/run/valkey"
ACL_FILE = f"{RUN_PATH}/users.acl"
HEALTH_USER = "health"
"""May ask whether the server lives and which role it has; has no password, so that a probe needs none."""
WRITE_ACL = f"""\
set -eu
umask 077
cp {CONFIG_PATH}/users.acl {ACL_FILE}
for secret in {SECRETS_PATH}/*; do
  digest=$(printf %s "$(cat "$secret/password")" | sha256sum | cut -d ' ' -f 1)
  sed -i "s/#$(basename "$secret")$/#$digest/" {ACL_FILE}
done
"""
"""Puts the hash of each mounted password into the user file; a rotated password needs the pod to restart."""


class AclUser(ClosedModel):
    """One caller of the server and its rules, in the order that Valkey applies them."""

    name: Name
    secret: SecretKeys
    """Its key `password`; the name of a secret ends the user's line until its hash stands there."""
    rules: str


def user_file(users: Iterable[AclUser]) -> str:
    """The ACL file, a line for each user. `default` is off: an anonymous connection may do nothing."""
    lines = ["user default off nopass -@all resetchannels", f"user {HEALTH_USER} on nopass resetchannels +ping +role"]
    lines += [f"user {user.name} on resetchannels {user.rules} #{user.secret.name}" for user in users]
    return "".join(f"{line}\n" for line in lines)
