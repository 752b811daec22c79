"""Access to Valkey: each caller has an ACL user with the hash of its password."""

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
"""The user of probes, scripts and proxies. It may only check that the server lives and read its role, so it needs no
password."""
WRITE_ACL = f"""\
set -eu
umask 077
cp {CONFIG_PATH}/users.acl {ACL_FILE}
for secret in {SECRETS_PATH}/*; do
  digest=$(printf %s "$(cat "$secret/password")" | sha256sum | cut -d ' ' -f 1)
  sed -i "s/#$(basename "$secret")$/#$digest/" {ACL_FILE}
done
"""
"""A shell script that writes the hash of each mounted password into the ACL file. A new password needs a restart of the
pod."""


class AclUser(ClosedModel):
    """A caller of the server, and the caller's ACL rules. Valkey applies the rules from left to right."""

    name: Name
    secret: SecretKeys
    """The secret with the key `password`. The user's line ends with the secret's name. The script `WRITE_ACL` replaces
    this name by the hash of the password."""
    rules: str


def user_file(users: Iterable[AclUser]) -> str:
    """The ACL file, one line for each user. `default` is off, so a connection can do nothing before it logs in."""
    lines = ["user default off nopass -@all resetchannels", f"user {HEALTH_USER} on nopass resetchannels +ping +role"]
    lines += [f"user {user.name} on resetchannels {user.rules} #{user.secret.name}" for user in users]
    return "".join(f"{line}\n" for line in lines)
