"""The typed configuration of an environment, read from `Pulumi.<environment>.yaml` by this module only.

The Pulumi program and the offline commands read the same values with the same model and errors. The file also has the
encrypted values of secrets, which only the program reads; `Settings` holds none.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import Field, ValidationError
from typing_extensions import override
from voice_policies import (
    Bytes,
    ClosedModel,
    Cpu,
    DegradationLevel,
    Fault,
    InvalidInputError,
    TextPattern,
    faults_of,
    one_of,
)

from components.network_policy import Cidr, SingleAddress
from components.node import External, HostName, Replicas
from components.operation import Name
from components.postgresql.backups import Backups
from stack.model.prices import Prices
from stack.model.profile import AcceptedFinding, Defaults, Profile, ProfileName, Profiles
from stack.model.strict_yaml import read_with_faults

__all__ = [
    "CHANGED",
    "ROOT",
    "SECRETS",
    "Choices",
    "ReferenceImage",
    "Settings",
    "decoded",
    "environments",
    "file_of",
    "load_settings",
    "parse_settings",
    "path_of",
    "secret_line",
]

PROJECT = "voiceassistant"
SECRETS = f"{PROJECT}:secrets"
"""Configuration key of secret values: a mapping of each secret's name to its keys and their values."""
CHANGED = f"{PROJECT}:secrets_changed"
"""Configuration key of the dates on which `voice secrets` wrote the secrets."""
NAMESPACES = (PROJECT, "kubernetes", "pulumi")
"""Prefixes of configuration keys: ours, the provider's, and Pulumi's."""
PROVIDER_KEYS = ("clusterIdentifier", "context", "kubeconfig")
"""Keys of the provider's configuration that the program reads."""
PULUMI_KEYS = ("config", "encryptedkey", "encryptionsalt", "environment", "secretsprovider")
"""Top-level keys of a stack's file that Pulumi reads."""
ANY_SERVER = "any"
"""Key of the storage class for every server without its own entry."""
Repository = Annotated[str, TextPattern(r"^[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)+$", "registry.example.com/voice")]
"""A repository or a prefix of repositories: registry and path."""
ReferenceImage = Annotated[
    str,
    TextPattern(r"^[a-z0-9][a-z0-9.:/_-]*:[A-Za-z0-9_.-]+(@sha256:[0-9a-f]{64})?$", "registry.example.com/image:1.0"),
]
"""An image with its tag."""
RegistryName = Annotated[str, TextPattern(r"^[a-z0-9-]+(\.[a-z0-9-]+)+(:\d+)?$", "docker.io")]
"""Host name of a registry, as in image references."""
StorageClassName = Annotated[str, TextPattern(r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", "standard", 253)]
ROOT = Path(__file__).resolve().parents[2]


class NodePool(ClosedModel):
    """The capacity of the cluster for this platform."""

    nodes: Annotated[int, Field(ge=1, le=1000)]
    zones: Annotated[int, Field(ge=1, le=10)]
    cpu: Cpu
    """Allocatable CPU of one node."""
    memory: Bytes
    """Allocatable memory of one node."""

    @override
    def conflicts(self) -> Iterator[str]:
        if self.zones > self.nodes:
            yield f"zones {self.zones} is above nodes {self.nodes}: expected a node in each zone"
        if not self.cpu.units:
            yield f"cpu is '{self.cpu}': expected more than 0"
        if not self.memory.units:
            yield f"memory is '{self.memory}': expected more than 0"


class ApiServer(ClosedModel):
    """Address of the Kubernetes API server itself. NetworkPolicies do not match the address of its Service."""

    cidr: Cidr
    port: Annotated[int, Field(ge=1, le=65_535)] = 6443


class Notifications(ClosedModel):
    """Addresses of the webhooks that receive alerts, as NetworkPolicies need them."""

    network: Cidr


class Settings(Defaults):
    """The settings of one environment, without secrets. The profile supplies missing fields of `Defaults`."""

    environment: Name
    """The name of the environment, equal to the name in the file's name."""
    profile: ProfileName
    restart_on_policy_change: bool = False
    """True if a changed policy restarts the pods. Otherwise the pods reload the policy without a restart."""
    node_pool: NodePool
    api_server: ApiServer
    cluster_dns: Annotated[tuple[SingleAddress, ...], Field(strict=False, min_length=1)] = ("10.96.0.10/32",)
    """Addresses of the cluster's DNS Service, one for each IP version. The prober queries the first. The default is
    kubeadm's and kind's."""
    nodes: Cidr
    """Network of the nodes. Prometheus scrapes the kubelets there for the usage of volumes."""
    notifications: Notifications | None = None
    """The webhooks that receive alerts. Without this setting alerts are only shown, not sent."""
    backups: Backups | None = None
    """Bucket of PostgreSQL's backups. Without a bucket PostgreSQL is one server, and a job writes dumps to a volume."""
    trace_bucket: Annotated[str, TextPattern(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", "voice-traces")] | None = None
    """Bucket of Tempo's blocks, in the object store of the backups. Without a bucket Tempo uses a volume."""
    gateway_host: HostName | None = None
    """Host name of the gateway for clients. If the first label is `api`, the application's pages have the same name
    with `app` instead. Otherwise the pages have the gateway's own host name."""
    gateway_network: Cidr | None = None
    """Network of the addresses of the gateway's load balancer. With it the prober calls the gateway by its host name,
    as a client does; without it the prober only resolves the name."""
    replicas: Annotated[dict[Name, Replicas], Field(default_factory=dict)]
    """Replicas of single services, if they differ from the profile's rule."""
    without: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    """Nodes of the catalogue that are not deployed. Routes and soft calls to them are removed."""
    degraded: Annotated[dict[Name, DegradationLevel], Field(default_factory=dict)]
    """Service → its level of degradation, set by hand. Without an entry the level follows error ratio and latency."""
    external: Annotated[dict[Name, External], Field(default_factory=dict)]
    """Store of the catalogue → the address of an external server. The environment does not deploy these stores."""
    storage_classes: Annotated[dict[Name, StorageClassName], Field(default_factory=dict)]
    """Storage class for each server's volumes, by the server's name. `any` is for all other servers. Without an entry
    the cluster's default class applies."""
    registry_mirrors: Annotated[dict[RegistryName, Repository], Field(default_factory=dict)]
    """Registry of third-party images, such as `docker.io` → the repository prefix of its mirror."""
    image_pull_secret: Name | None = "registry"  # noqa: S105 - the name of a secret
    """Secret with which kubelet pulls images, in each namespace. Its value is `secrets.<name>.dockerconfigjson`. `null`
    pulls without credentials."""
    image_repository: Repository = "ghcr.io/voicehelper"
    prices: Prices | None = None
    """Prices that replace the tenant's price table, with their source and their day."""
    image_tag: Annotated[str, TextPattern(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$", "1.0.0")] = "1.0.0"
    reference_image: ReferenceImage | None = None
    """One image that stands in for every service until the services' own images exist."""
    secrets_changed: Annotated[dict[Name, Annotated[date, Field(strict=False)]], Field(default_factory=dict)]
    """The day on which `voice secrets` last wrote each secret."""
    accepted_findings: Annotated[tuple[AcceptedFinding, ...], Field(strict=False)] = ()
    """Accepted findings. Until the day `expires` they neither fail `voice check` nor stop the deployment."""


def file_of(environment: str) -> str:
    """The file that configures an environment."""
    return f"Pulumi.{environment}.yaml"


def path_of(setting: str) -> str:
    """The path of a setting in an environment's file."""
    return f"config.{PROJECT}:{setting}"


def environments(root: Path = ROOT) -> tuple[str, ...]:
    """The environments that have a file, in order of name."""
    return tuple(sorted(path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in root.glob(file_of("*"))))


class Choices(Protocol):
    """The names that an environment's file may use."""

    @property
    def profiles(self) -> Profiles:
        """The profiles, one of each name."""

    @property
    def services(self) -> Collection[str]:
        """The names of the services."""

    @property
    def nodes(self) -> Collection[str]:
        """The names of all nodes in the catalogue."""

    @property
    def degradable(self) -> Collection[str]:
        """The names of the services that have features to leave out."""

    @property
    def stores(self) -> Collection[str]:
        """The names of the stores that the platform deploys by itself."""

    def still_needed(self, without: Collection[str]) -> Mapping[str, Collection[str]]:
        """Node left out → the calls of remaining nodes that need it."""


def load_settings(environment: str, choices: Choices, root: Path = ROOT) -> Settings:
    """The settings of an environment; raises `InvalidInputError` with every fault of its file."""
    if environment not in (known := environments(root)):
        accepted = f"{one_of(environment, known)}, or a file {file_of(environment)}"
        raise InvalidInputError("environment", [Fault("ENV", f"is {environment!r}", accepted)])
    path = root / file_of(environment)
    document, faults = read_with_faults(path)
    faults += _top_level_key_faults(document)
    config = document.get("config") if isinstance(document, dict) else None
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        accepted = f"expected keys such as {PROJECT}:mesh"
        raise InvalidInputError(path.name, [*faults, Fault("config", "is not a mapping", accepted)])
    config = decoded(config)
    return parse_settings(config, environment, choices, [*faults, *_plain_secret_faults(config.get(SECRETS))])


def parse_settings(
    config: Mapping[str, Any], environment: str, choices: Choices, faults: Iterable[Fault] = ()
) -> Settings:
    """Settings from a stack's configuration values, keyed by project and name as in Pulumi.

    Raises `InvalidInputError` with every fault of the settings and with `faults`, which the reader of `config` found.
    """
    prefix = f"{PROJECT}:"
    given = {
        key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix) and key != SECRETS
    }
    profile = next((each for name, each in choices.profiles.items() if name == given.get("profile")), None)
    found = [
        *faults,
        *_key_faults(config),
        *_name_faults(given, choices),
        *(_profile_faults(given, profile) if profile else ()),
    ]
    values = _with_defaults(given, profile.defaults) if profile else given
    try:
        settings = Settings.model_validate({"environment": environment, **values})
    except ValidationError as error:
        # An unknown profile supplies no defaults. The file may rely on them, so missing values are no faults.
        implied = () if profile else Defaults.model_fields.keys() - given.keys()
        found += [
            replace(fault, path=path_of(fault.path).removesuffix(":"))
            for fault in faults_of(error, Settings)
            if fault.path not in implied
        ]
    else:
        if settings.environment != environment:
            found.append(Fault(path_of("environment"), f"is {settings.environment!r}", f"expected {environment!r}"))
        if not found:
            return settings
    raise InvalidInputError(file_of(environment), found)


def _top_level_key_faults(document: object) -> Iterator[Fault]:
    """Top-level keys that Pulumi does not read."""
    for key in document if isinstance(document, dict) else ():
        if key not in PULUMI_KEYS:
            yield Fault(str(key), "is not a known key", one_of(str(key), PULUMI_KEYS))


def _key_faults(config: Iterable[str]) -> Iterator[Fault]:
    """Keys that neither we nor the provider nor Pulumi read."""
    for key in config:
        namespace, colon, name = key.rpartition(":")
        if not colon:
            yield Fault(f"config.{key}", "has no namespace", f"write {PROJECT}:{key}")
        elif namespace not in NAMESPACES:
            yield Fault(f"config.{key}", f"is in namespace {namespace!r}", one_of(namespace, NAMESPACES))
        elif namespace == "kubernetes" and name not in PROVIDER_KEYS:
            yield Fault(f"config.{key}", "is not read", one_of(name, PROVIDER_KEYS))


def _name_faults(given: Mapping[str, Any], choices: Choices) -> Iterator[Fault]:
    """Faults of names: not in the catalogue, left out by `without`, or in `without` but still needed."""
    named = given.get("without")
    without = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    still_needed = choices.still_needed(without)
    for index, name in enumerate(without):
        path = path_of(f"without[{index}]")
        if name not in choices.nodes:
            yield Fault(path, f"is {name!r}", one_of(name, choices.nodes))
        elif calls := still_needed.get(name):
            yield Fault(path, f"is {name!r}", f"still needed by {', '.join(calls)}: leave those callers out, too")
    for setting, known, refusal in (
        ("replicas", choices.services, "is no service"),
        ("degraded", choices.degradable, "is no service with features to leave out"),
        ("external", choices.stores, "is no store that the platform deploys"),
    ):
        names = given.get(setting)
        accepted = sorted({*known} - {*without})
        for name in names if isinstance(names, dict) else ():
            if name not in accepted:
                yield Fault(path_of(f"{setting}.{name}"), refusal, one_of(str(name), accepted))


def _with_defaults(given: dict[str, Any], defaults: Defaults) -> dict[str, Any]:
    """The given settings, completed with the profile's defaults. Mappings are merged key by key."""
    values: dict[str, Any] = {**dict(defaults), **given}
    for name, default in defaults:
        if isinstance(default, ClosedModel) and isinstance(part := given.get(name), dict):
            values[name] = {**dict(default), **part}
    return values


def _profile_faults(given: Mapping[str, Any], profile: Profile) -> Iterator[Fault]:
    """Required settings that are missing, refused settings that are given, and servers that the profile lacks."""
    for name, reason in profile.required.items():
        if not given.get(name):
            yield Fault(path_of(name), "is missing", f"profile {profile.name} requires it: {reason}")
    servers = (ANY_SERVER, *profile.servers)
    classes = given.get("storage_classes")
    for name in classes if isinstance(classes, dict) else ():
        if name not in servers:
            yield Fault(path_of(f"storage_classes.{name}"), "is no server", one_of(str(name), servers))
    for name, reason in profile.refused.items():
        if value := given.get(name):
            yield Fault(path_of(name), f"is {value!r}", f"profile {profile.name} refuses it: {reason}")


def decoded(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with its JSON texts decoded.

    Pulumi passes lists and mappings to a program as JSON text, and writes `true` into the file as text.
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
    """The command that sets one key of one secret. The command asks for the value."""
    return f"pulumi config set --stack {environment} --secret --path secrets.{secret}.{key}"


def _plain_secret_faults(secrets: object) -> Iterator[Fault]:
    """A secret must be encrypted in the file. The message never repeats its value."""
    for path, _ in _leaves(SECRETS, secrets):
        yield Fault(f"config.{path}", "is not encrypted", "set it with `pulumi config set --secret --path`")


def _leaves(path: str, value: object) -> Iterator[tuple[str, object]]:
    """The leaves of `value` that are not encrypted, with their paths."""
    if isinstance(value, dict):
        if value.keys() != {"secure"}:
            for key, inner in value.items():
                yield from _leaves(f"{path}.{key}", inner)
    elif value is not None:
        yield path, value
