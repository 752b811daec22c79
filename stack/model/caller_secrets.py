"""Secrets of callers: each caller authenticates at its dependencies with its own keys."""

from __future__ import annotations

from components.models import ModelDependency
from components.node import Dependency, InCluster, Node
from components.secret_keys import SecretForm, SecretKeys

__all__ = ["caller_secret"]


def caller_secret(caller: Node, dependency: Dependency, username: str | None = None) -> SecretKeys:
    """The secret of one caller for one dependency. A dependency in the cluster reads the same secret."""
    return SecretKeys(
        name=f"{caller.name}-{dependency.name}",
        keys=dependency.credentials,
        forms={} if _is_deployed(dependency) else {key: _issued(dependency, key) for key in dependency.credentials},
        username=username,
    )


def _is_deployed(dependency: Dependency) -> bool:
    return any(isinstance(address, InCluster) for address in dependency.addresses)


def _issued(dependency: Dependency, key: str) -> SecretForm:
    issuer = key if isinstance(dependency, ModelDependency) else dependency.name
    return SecretForm(kind="password", external=True, meaning=f"the key that {issuer} issues ({dependency.purpose})")
