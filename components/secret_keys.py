"""Which secret a component reads, and which of its keys: never a value."""

from __future__ import annotations

from collections.abc import Iterable

from voice_policies import ClosedModel

from components.operation import Name

__all__ = ["SecretKeys"]

SECRETS_PATH = "/etc/voice/secrets"


class SecretKeys(ClosedModel):
    """Keys of one secret, read as files. The values are the deployment's own: a rendered file holds none.

    A secret of one name has the same values in every namespace: both ends of a connection read the same password.
    """

    name: Name
    keys: tuple[Name, ...]
    username: str | None = None
    """Stands in clear beside the keys, for CloudNativePG, which wants a `kubernetes.io/basic-auth` pair."""

    @property
    def path(self) -> str:
        """The directory that the keys are mounted in, a file each."""
        return f"{SECRETS_PATH}/{self.name}"


def merged(secrets: Iterable[SecretKeys]) -> tuple[SecretKeys, ...]:
    """Each secret once, with every key that somebody reads of it."""
    found: dict[str, SecretKeys] = {}
    for secret in secrets:
        keys = found.get(secret.name, secret).keys
        found[secret.name] = secret.model_copy(update={"keys": tuple(dict.fromkeys((*keys, *secret.keys)))})
    return tuple(found.values())
