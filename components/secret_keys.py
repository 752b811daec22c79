"""The secrets that a component reads, by name and key. Values never appear here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field
from voice_policies import ClosedModel

from components.operation import Name, Sentence

__all__ = ["CERTIFICATE", "DOCKER_CONFIG", "SecretForm", "SecretKeys", "merged"]

DOCKER_CONFIG = "dockerconfigjson"
"""Key of a secret that only kubelet reads. In Kubernetes the key is `.dockerconfigjson`."""
SECRETS_PATH = "/etc/voice/secrets"


class SecretForm(ClosedModel):
    """The format and the meaning of one value of a secret."""

    kind: Literal[
        "password",
        "uuid",
        "gossip-key",
        "url",
        "credentials-file",
        "docker-config",
        "public-key",
        "certificate",
        "private-key",
        "authority",
    ]
    """The kind decides how `voice secrets` generates and checks a value. `voice secrets` generates certificate, private
    key and authority of one secret together."""
    meaning: Sentence
    """Description of the value, shown if the value is missing or must be entered."""
    external: bool = False
    """True if somebody outside the platform issues the value. `voice secrets` can generate only a stand-in."""
    host: str | None = None
    """Host name of a certificate. `None` if no client checks the name."""

    @property
    def is_file(self) -> bool:
        """True if the value has several lines, so `voice secrets` asks for a file."""
        return self.kind not in {"password", "uuid", "gossip-key", "url"}


PASSWORD = SecretForm(kind="password", meaning="a random password")
UUID = SecretForm(kind="uuid", meaning="a UUID")
CERTIFICATE: Mapping[str, SecretForm] = {
    "certificate": SecretForm(kind="certificate", meaning="the certificate with its chain, as PEM"),
    "private-key": SecretForm(kind="private-key", meaning="the certificate's private key without a password, as PEM"),
    "authority": SecretForm(
        kind="authority", meaning="the certificate of the authority that signed the certificate, as PEM"
    ),
}
OBJECT_STORE_KEYS: Mapping[str, SecretForm] = {
    "access-key-id": SecretForm(kind="password", external=True, meaning="the id of the object store's access key"),
    "secret-access-key": SecretForm(
        kind="password", external=True, meaning="the secret part of the object store's access key"
    ),
}


class SecretKeys(ClosedModel):
    """Keys of one secret. A program reads them as files, or as environment variables if it can read nothing else.

    The deployment provides the values. No rendered file contains a value. Secrets of the same name have the same
    values in every namespace, so both ends of a connection read the same password.
    """

    name: Name
    keys: tuple[Name, ...]
    forms: Mapping[Name, SecretForm] = Field(default_factory=dict)
    """The form of each key. A key without a form holds a random password."""
    username: str | None = None
    """A user name in clear text beside the keys. CloudNativePG needs it for a `kubernetes.io/basic-auth` secret."""

    @property
    def path(self) -> str:
        """Directory of the mounted keys, one file each."""
        return f"{SECRETS_PATH}/{self.name}"

    def form(self, key: str) -> SecretForm:
        """The form of one key."""
        return self.forms.get(key, PASSWORD)


def pull_secret(name: Name) -> SecretKeys:
    """The secret with which kubelet pulls images from private registries. Its value is a Docker `config.json`."""
    form = SecretForm(
        kind="docker-config", external=True, meaning="a Docker config.json with a login for each private registry"
    )
    return SecretKeys(name=name, keys=(DOCKER_CONFIG,), forms={DOCKER_CONFIG: form})


def merged(secrets: Iterable[SecretKeys]) -> tuple[SecretKeys, ...]:
    """Each secret once, with every key that any of its readers needs."""
    found: dict[str, SecretKeys] = {}
    for secret in secrets:
        known = found.get(secret.name, secret)
        joined = {"keys": tuple(dict.fromkeys((*known.keys, *secret.keys))), "forms": {**known.forms, **secret.forms}}
        found[secret.name] = secret.model_copy(update=joined)
    return tuple(found.values())
