"""The typed configuration of an environment: `Pulumi.<environment>.yaml`, read here and nowhere else.

The Pulumi program and every offline command read the same files with the same model and the same errors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from voice_policies import Bytes, ClosedModel, Cpu, Fault, InvalidInputError, Ratio, faults_of

from components.node import Replicas
from components.operation import Name
from stack.strict_yaml import read_yaml

PROJECT = "voiceassistant"
ROOT = Path(__file__).resolve().parent.parent
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
    replicas: Annotated[dict[Name, Replicas], Field(default_factory=dict)]
    """Counts of single services that differ from the environment's rule."""
    image_repository: Annotated[str, Field(pattern=r"^[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)+$")] = "ghcr.io/voicehelper"
    image_tag: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")] = "1.0.0"


def load_settings(environment: str, root: Path = ROOT) -> Settings:
    """The settings of an environment; raises `InvalidInputError` with every fault of its file."""
    if environment not in ENVIRONMENTS:
        accepted = f"expected one of {', '.join(ENVIRONMENTS)}"
        raise InvalidInputError("environment", [Fault("ENV", f"is {environment!r}", accepted)])
    path = root / f"Pulumi.{environment}.yaml"
    return parse_settings(_config(path), environment, path.name)


def parse_settings(config: dict[str, Any], environment: str, source: str) -> Settings:
    """Settings from a stack's configuration values, keyed by project and name as Pulumi keys them."""
    prefix = f"{PROJECT}:"
    values = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
    plain = {key: value for key, value in values.items() if not _is_secret(value)}
    try:
        settings = Settings.model_validate({"environment": environment, **plain})
    except ValidationError as error:
        raise InvalidInputError(source, faults_of(error, Settings, f"config.{PROJECT}:")) from None
    if settings.environment != environment:
        fault = Fault(f"config.{prefix}environment", f"is {settings.environment!r}", f"expected {environment!r}")
        raise InvalidInputError(source, [fault])
    return settings


def _is_secret(value: object) -> bool:
    """Encrypted values are the program's alone: nothing rendered may hold one."""
    return isinstance(value, dict) and value.keys() == {"secure"}


def _config(path: Path) -> dict[str, Any]:
    document = read_yaml(path)
    config = document.get("config") if isinstance(document, dict) else None
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise InvalidInputError(
            path.name, [Fault("config", "is not a mapping", f"expected keys such as {PROJECT}:mesh")]
        )
    return config
