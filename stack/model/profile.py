"""A profile: one typed record with everything that follows from the kind of an environment.

An environment names its profile and lists its differences. No other module of the engine contains the names of
the kinds. The tenant defines one profile for each kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Literal

from pydantic import Field
from voice_policies import Bytes, ClosedModel, Duration, Ratio

from components.namespace import Quota
from components.node import Replicas, Sizing
from components.operation import Name, Sentence

__all__ = [
    "N_PLUS_ONE",
    "AcceptedFinding",
    "DatabaseLimits",
    "Defaults",
    "MetricsStorage",
    "Profile",
    "ProfileName",
    "ServerSize",
]

ProfileName = Literal["dev", "staging", "prod"]
N_PLUS_ONE = 2
"""Smallest number of replicas that survives the loss of one replica."""


class MetricsStorage(ClosedModel):
    """The retention of Prometheus, and the volume of each replica."""

    retention: Duration
    storage: Bytes


class Defaults(ClosedModel):
    """Settings that the profile decides if the environment's file does not."""

    log_level: Literal["debug", "info", "warning", "error"]
    trace_sample_ratio: Ratio
    """Share of traces that are kept."""
    mesh: bool
    """True if a service mesh enforces those policies of Go services that neither gRPC nor a driver can enforce."""
    metrics: MetricsStorage
    ingress_grace: Duration
    """Longest time for which the load balancer still sends new connections to a stopping pod of the gateway: interval ×
    failures of its health checks. The pod accepts connections for this long."""


class DatabaseLimits(ClosedModel):
    """Connection limits of PostgreSQL and its pooler."""

    max_connections: int = 200
    reserved: int = 13
    """Connections that the services cannot use: 3 for superusers, and 10 for superusers and for members of the role
    `pg_use_reserved_connections`."""
    poolers: int
    """Number of poolers. 0 if the services connect to the server itself."""
    pool_size: int
    """Server connections of one pooler for each database. Without a pooler: the connection limit of one role."""
    max_client_connections: int = 0
    """Client connections of one pooler. With N+1 poolers one pooler must be able to take all clients."""

    @property
    def role_limit(self) -> int:
        """Maximum connections of one role."""
        return self.pool_size * max(1, self.poolers)

    @property
    def room(self) -> int:
        """Maximum number of connections to the server: the sum over all services, or over all poolers."""
        return self.max_connections - self.reserved

    @property
    def room_text(self) -> str:
        """The arithmetic of `room`."""
        return f"{self.max_connections} − {self.reserved} reserved = {self.room}"


class ServerSize(ClosedModel):
    """The size of one of the platform's own servers: a store, a proxy, or a part of telemetry."""

    replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas: int | None = None
    """Largest number of replicas that the autoscaler may set. For proxies only. `None` means a fixed number."""
    sizing: Sizing
    """Resources of each replica."""
    storage: Bytes | None = None
    """Volume of each replica. `None` if the server stores nothing, or if a setting gives the size."""
    storage_class: Name | None = None
    """Storage class of the volume, from a setting. `None` means the cluster's default."""

    @property
    def scale(self) -> Replicas:
        """The range of replicas."""
        return Replicas(min=self.replicas, max=self.max_replicas or self.replicas)

    @property
    def volume(self) -> Bytes:
        """The volume of a server that stores data. Raises `ValueError` if the profile gives it none."""
        if self.storage is None:
            raise ValueError("the server stores data, but its profile gives it no storage")
        return self.storage


class AcceptedFinding(ClosedModel):
    """An accepted finding of the audit, with the reason."""

    rule: Annotated[str, Field(pattern=r"^[A-Z]\d\d$")]
    path: str
    """The path in the output of `voice check`."""
    reason: Sentence
    expires: Annotated[date, Field(strict=False)]
    """Last day of the acceptance, such as `"2027-03-31"`. Afterwards the finding counts again."""


class Profile(ClosedModel):
    """One kind of environment."""

    name: ProfileName
    defaults: Defaults
    required: dict[str, Sentence] = Field(default_factory=dict)
    """Settings that the environment's file must have, each with the reason."""
    accepted_findings: tuple[AcceptedFinding, ...] = ()
    """Findings of the audit that follow from the kind of environment. The environment's file may accept more."""
    refused: dict[str, Sentence] = Field(default_factory=dict)
    """Settings that the environment's file must not have, each with the reason."""
    service_replicas: Literal["one", "half", "declared"]
    """Replicas of each service. `half`: at least N+1, and at most half of the declared maximum.
    `declared`: the declared range."""
    cpu_share: float = 1
    memory_share: float = 1
    """Share of a service's declared requests that each replica requests. Limits stay as declared."""
    load_share: float
    """Share of the declared load that arrives in this environment."""
    quotas: dict[Name, Quota]
    """Namespace of the platform → its quota."""
    database: DatabaseLimits
    servers: dict[Name, ServerSize]
    """Server → its size. A server that is missing here is not deployed."""
    retentions: dict[Name, Duration] = Field(default_factory=dict)
    """Stream of telemetry, such as the logs → its retention."""
    load_balancer: bool
    """True if a load balancer exposes the gateway. Otherwise a port of every node exposes it."""
    protects_data: bool
    """True if Pulumi protects resources that hold data, and retains them when they leave the stack."""
    stand_in_secrets: bool
    """True if `voice secrets` generates a substitute for each value that somebody outside the platform issues."""
    strict: bool
    """True if these prevent a deployment:

    - a cluster without metrics-server;
    - an image without a digest;
    - a finding of severity error or critical without a valid acceptance;
    - an acceptance that matches no finding.

    The audit then also reports images without a digest, and routes that capture prompts.
    """

    def replicas(self, declared: Replicas) -> Replicas:
        """The range of a service's replicas in this kind of environment."""
        if self.service_replicas == "declared":
            return declared
        if self.service_replicas == "one":
            return Replicas(min=1, max=1)
        return Replicas(min=N_PLUS_ONE, max=max(N_PLUS_ONE, declared.max // 2))

    def sizing(self, declared: Sizing) -> Sizing:
        """The resources that one replica of a service requests, and its limits."""
        return declared.model_copy(
            update={
                "cpu_request": declared.cpu_request * self.cpu_share,
                "memory_request": declared.memory_request * self.memory_share,
            }
        )


Profiles = Mapping[ProfileName, Profile]
