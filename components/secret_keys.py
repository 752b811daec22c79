"""The secrets that a component reads, by name and key. Values never appear here."""

from __future__ import annotations

from collections.abc import Iterable

from voice_policies import ClosedModel

from components.operation import Name

__all__ = ["DOCKER_CONFIG", "SecretKeys"]

DOCKER_CONFIG = "dockerconfigjson"
"""Key of a secret that the kubelet alone reads; Kubernetes wants a dot before it."""
SECRETS_PATH = "/etc/voice/secrets"


class SecretKeys(ClosedModel):
    """Keys of one secret, read as files.

    The deployment provides the values; no rendered file holds one. Secrets of the same name have the same values in
    every namespace, so both ends of a connection read the same password.
    """

    name: Name
    keys: tuple[Name, ...]
    username: str | None = None
    """A user name in clear text beside the keys. CloudNativePG needs it for a `kubernetes.io/basic-auth` secret."""

    @property
    def path(self) -> str:
        """Directory of the mounted keys, one file each."""
        return f"{SECRETS_PATH}/{self.name}"


def pull_secret(name: Name) -> SecretKeys:
    """Credentials of registries, which the kubelet pulls images with: the text of a Docker `config.json`."""
    return SecretKeys(name=name, keys=(DOCKER_CONFIG,))


def merged(secrets: Iterable[SecretKeys]) -> tuple[SecretKeys, ...]:
    """Each secret once, with every key that any of its readers needs."""
    found: dict[str, SecretKeys] = {}
    for secret in secrets:
        keys = found.get(secret.name, secret).keys
        found[secret.name] = secret.model_copy(update={"keys": tuple(dict.fromkeys((*keys, *secret.keys)))})
    return tuple(found.values())
