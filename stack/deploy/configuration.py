"""The configuration of a stack, as Pulumi passes it to the program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
from voice_policies import Fault

from stack.model.settings import SECRETS, Choices, Settings, decoded, file_of, parse_settings

SecretValues = Mapping[str, Mapping[str, str]]
"""Name of a secret → key → value."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings of the stack's environment, its secrets, and its cluster."""

    source: str
    """Name of the settings file, for messages."""
    settings: Settings
    secrets: SecretValues = field(repr=False)
    kubeconfig: str | None = field(repr=False)
    """Path or text. `None` means kubectl's default."""
    context: str | None
    """Name of the kubeconfig's context for the cluster. `None` if the setting is missing."""
    cluster_identifier: str | None
    """The uid of the namespace `kube-system` in the stack's cluster. `None` if the setting is missing."""


def read_configuration(choices: Choices) -> Configuration:
    """The configuration of the running stack; raises `InvalidInputError` with every fault of its settings."""
    # The language host sets CONFIG from PULUMI_CONFIG; the Automation API sets CONFIG in this process.
    given = pulumi.runtime.config.CONFIG.get()
    config = decoded(given)
    encrypted = [key for key in given if pulumi.runtime.is_config_secret(key)]
    stack = pulumi.get_stack()
    source = file_of(stack)
    cluster = pulumi.Config("kubernetes")
    secrets = config.get(SECRETS, {})
    faults = _secret_faults(secrets, encrypted=SECRETS in encrypted)
    return Configuration(
        source=source,
        # No setting may be encrypted. The parser refuses an encrypted setting, and shows the mask, not the value.
        settings=parse_settings({**config, **dict.fromkeys(encrypted, "[secret]")}, stack, choices, faults),
        secrets=secrets,
        kubeconfig=cluster.get("kubeconfig"),
        context=cluster.get("context"),
        cluster_identifier=cluster.get("clusterIdentifier"),
    )


def _secret_faults(values: Any, *, encrypted: bool) -> Iterator[Fault]:
    """A message never repeats a value, because the value may be a secret."""
    if not _is_nested_text(values) or (any(values.values()) and not encrypted):
        yield Fault(
            f"config.{SECRETS}",
            "is refused",
            "expected encrypted values as `pulumi config set --secret --path secrets.<secret>.<key>` writes them",
        )


def _is_nested_text(values: object) -> bool:
    return isinstance(values, dict) and all(
        isinstance(keys, dict) and all(isinstance(value, str) for value in keys.values()) for keys in values.values()
    )
