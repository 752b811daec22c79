"""The configuration of a stack, as Pulumi passes it to the program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
from voice_policies import Fault, InvalidInputError

from stack.model.settings import SECRETS, Choices, Settings, decoded, file_of, parse_settings

__all__ = ["read_configuration"]

SecretValues = Mapping[str, Mapping[str, str]]
"""Secret, then key, then value."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings of the stack's environment, and what no rendered file holds."""

    source: str
    """The file that it stands in, for messages."""
    settings: Settings
    secrets: SecretValues = field(repr=False)
    kubeconfig: str | None = field(repr=False)
    """Path or text; `None` is kubectl's own choice."""
    context: str | None
    """The kubeconfig's context that names the cluster."""
    cluster_identifier: str | None
    """The uid of the namespace `kube-system`, which tells the stack's cluster from any other."""


def read_configuration(choices: Choices) -> Configuration:
    """The configuration of the running stack; raises `InvalidInputError` with every fault of its settings."""
    # Set by the language host from PULUMI_CONFIG, and by the Automation API in this process.
    given = pulumi.runtime.config.CONFIG.get()
    config = decoded(given)
    encrypted = [key for key in given if pulumi.runtime.is_config_secret(key)]
    stack = pulumi.get_stack()
    source = file_of(stack)
    cluster = pulumi.Config("kubernetes")
    return Configuration(
        source=source,
        # What was encrypted is no setting; masked, it can be refused by name.
        settings=parse_settings({**config, **dict.fromkeys(encrypted, "[secret]")}, stack, choices),
        secrets=_secret_values(config.get(SECRETS, {}), source, encrypted=SECRETS in encrypted),
        kubeconfig=cluster.get("kubeconfig"),
        context=cluster.get("context"),
        cluster_identifier=cluster.get("clusterIdentifier"),
    )


def _secret_values(values: Any, source: str, *, encrypted: bool) -> SecretValues:
    """The decrypted values. A fault says nothing of what stands there: it may be a secret."""
    if not _is_nested_text(values) or (any(values.values()) and not encrypted):
        fault = Fault(
            f"config.{SECRETS}",
            "is refused",
            "expected encrypted values as `pulumi config set --secret --path secrets.<secret>.<key>` writes them",
        )
        raise InvalidInputError(source, [fault])
    return dict(values)


def _is_nested_text(values: object) -> bool:
    return isinstance(values, dict) and all(
        isinstance(keys, dict) and all(isinstance(value, str) for value in keys.values()) for keys in values.values()
    )
