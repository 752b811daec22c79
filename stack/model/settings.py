"""The typed configuration of an environment: `Pulumi.<environment>.yaml`, read here and nowhere else.

The Pulumi program and every offline command read the same values with the same model and the same errors. The values
of secrets stand beside them, encrypted, and are the program's alone: `Settings` holds none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from voice_policies import Bytes, ClosedModel, Cpu, Duration, Fault, InvalidInputError, Ratio, faults_of

from components.network_policy import Cidr
from components.node import Replicas
from components.operation import Name, Sentence
from components.postgresql.backups import Backups
from stack.model.strict_yaml import read_yaml

PROJECT = "voiceassistant"
SECRETS = f"{PROJECT}:secrets"
"""Configuration key of the secrets' values: secret, then key, then value."""
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ("dev", "staging", "prod")
EnvironmentName = Literal["dev", "staging", "prod"]


class NodePool(ClosedModel):
    """The cluster's capacity for this platform."""

    nodes: Annotated[int, Field(ge=1, le=1000)]
    zones: Annotated[int, Field(ge=1, le=10)]
    cpu: Cpu
    """Allocatable CPU of one node."""
    memory: Bytes
    """Allocatable memory of one node."""


class ApiServer(ClosedModel):
    """Where pods that must read the Kubernetes API find it, as NetworkPolicies see it: behind its Service's address."""

    cidr: Cidr
    port: Annotated[int, Field(ge=1, le=65_535)] = 6443


class MetricsStorage(ClosedModel):
    """What Prometheus keeps."""

    retention: Duration = Duration("15d")
    storage: Bytes = Bytes("100Gi")
    """Of each replica."""


class Notifications(ClosedModel):
    """Where the web addresses are that alerts are sent to, as NetworkPolicies see them."""

    network: Cidr


class AcceptedFinding(ClosedModel):
    """A finding of the audit that prod is deployed with, and why."""

    rule: Annotated[str, Field(pattern=r"^[A-Z]\d\d$")]
    path: str
    """Where `voice check` reports it."""
    reason: Sentence


class Settings(ClosedModel):
    """What differs between environments and is nobody's secret."""

    environment: EnvironmentName
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    trace_sample_ratio: Ratio
    """Share of traces that are kept."""
    mesh: bool
    """Whether a service mesh enforces what gRPC cannot express for the Go services."""
    restart_on_policy_change: bool = False
    """Whether a changed policy rolls the pods; otherwise they reload it in place."""
    node_pool: NodePool
    api_server: ApiServer
    nodes: Cidr
    """Network of the nodes, whose kubelets Prometheus asks how full the volumes are."""
    metrics: MetricsStorage = MetricsStorage()
    notifications: Notifications | None = None
    """Without it alerts are only shown."""
    backups: Backups | None = None
    """Where PostgreSQL's backups go. dev keeps its own beside the server."""
    trace_bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] | None = None
    """Bucket of Tempo's blocks, in the object store of the backups. dev keeps them on a volume."""
    replicas: Annotated[dict[Name, Replicas], Field(default_factory=dict)]
    """Counts of single services that differ from the environment's rule."""
    image_repository: Annotated[str, Field(pattern=r"^[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)+$")] = "ghcr.io/voicehelper"
    image_tag: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")] = "1.0.0"
    reference_image: (
        Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.:/_-]*:[A-Za-z0-9_.-]+(@sha256:[0-9a-f]{64})?$")] | None
    ) = None
    """One image that stands in for every service, so that dev runs before the services' own images exist."""
    accepted_findings: Annotated[tuple[AcceptedFinding, ...], Field(strict=False)] = ()
    """Findings of severity error or critical that prod is deployed with."""

    def conflicts(self) -> Iterator[str]:
        """Settings that cannot hold together, a sentence each."""
        if self.reference_image and self.environment != "dev":
            yield f"reference_image is for dev alone: {self.environment} runs each service's own image"
        if self.backups is None and self.environment != "dev":
            yield f"backups is missing: {self.environment} needs a bucket, and the network it is in, to keep its data"
        if self.notifications is None and self.environment == "prod":
            yield "notifications is missing: prod needs a network to send alerts to, or nobody is told of any"
        if self.backups and self.environment == "dev":
            yield "backups is for staging and prod: dev dumps to a volume of its own"
        if self.trace_bucket is None and self.environment != "dev":
            yield f"trace_bucket is missing: {self.environment} keeps its traces in an object store"
        if self.trace_bucket and self.environment == "dev":
            yield "trace_bucket is for staging and prod: dev keeps its traces on a volume"
        if self.accepted_findings and self.environment != "prod":
            yield f"accepted_findings is for prod alone: {self.environment} is deployed with any finding"


def file_of(environment: str) -> str:
    """The file that configures an environment."""
    return f"Pulumi.{environment}.yaml"


def path_of(setting: str) -> str:
    """Where a setting stands in that file."""
    return f"config.{PROJECT}:{setting}"


def load_settings(environment: str, root: Path = ROOT) -> Settings:
    """The settings of an environment; raises `InvalidInputError` with every fault of its file."""
    if environment not in ENVIRONMENTS:
        accepted = f"expected one of {', '.join(ENVIRONMENTS)}"
        raise InvalidInputError("environment", [Fault("ENV", f"is {environment!r}", accepted)])
    path = root / file_of(environment)
    config = decoded(_config(path))
    _refuse_plain_secrets(config.get(SECRETS), path.name)
    return parse_settings(config, environment, path.name)


def parse_settings(config: dict[str, Any], environment: str, source: str) -> Settings:
    """Settings from a stack's configuration values, keyed by project and name as Pulumi keys them."""
    prefix = f"{PROJECT}:"
    values = {
        key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix) and key != SECRETS
    }
    try:
        settings = Settings.model_validate({"environment": environment, **values})
    except ValidationError as error:
        found = faults_of(error, Settings)
        faults = [replace(fault, path=path_of(fault.path).removesuffix(":")) for fault in found]
        raise InvalidInputError(source, faults) from None
    if settings.environment != environment:
        fault = Fault(path_of("environment"), f"is {settings.environment!r}", f"expected {environment!r}")
        raise InvalidInputError(source, [fault])
    return settings


def decoded(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values as the model takes them.

    Pulumi hands all but text to a program as JSON, and writes `true` into the file as text.
    """
    return {key: _decoded(value) for key, value in config.items()}


def _decoded(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    if text not in {"true", "false"} and not text.startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def secret_line(environment: str, secret: str, key: str) -> str:
    """The command that sets one key of one secret; it asks for the value."""
    return f"pulumi config set --stack {environment} --secret --path secrets.{secret}.{key}"


def _refuse_plain_secrets(secrets: object, source: str) -> None:
    """A secret's value stands in the file encrypted or not at all; the message never repeats it."""
    faults = [
        Fault(f"config.{path}", "is not encrypted", "set it with `pulumi config set --secret --path`")
        for path, value in _leaves(SECRETS, secrets)
    ]
    if faults:
        raise InvalidInputError(source, faults)


def _leaves(path: str, value: object) -> Iterator[tuple[str, object]]:
    """What stands in `value` that is neither a mapping nor encrypted."""
    if isinstance(value, dict):
        if value.keys() != {"secure"}:
            for key, inner in value.items():
                yield from _leaves(f"{path}.{key}", inner)
    elif value is not None:
        yield path, value


def _config(path: Path) -> dict[str, Any]:
    document = read_yaml(path)
    config = document.get("config") if isinstance(document, dict) else None
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise InvalidInputError(
            path.name, [Fault("config", "is not a mapping", f"expected keys such as {PROJECT}:mesh")]
        )
    return config
