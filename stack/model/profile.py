"""A profile: everything that follows from the kind of an environment, in one typed record.

An environment names its profile and says what differs; no other module knows the kinds by name. The tenant fills in
the profiles, one of each name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from voice_policies import Bytes, ClosedModel, Duration, Ratio

from components.namespace import Quota
from components.node import Replicas, Sizing
from components.operation import Name, Sentence

__all__ = ["N_PLUS_ONE", "DatabaseLimits", "Defaults", "MetricsStorage", "Profile", "ProfileName", "ServerSize"]

ProfileName = Literal["dev", "staging", "prod"]
N_PLUS_ONE = 2
"""Replicas of which one may be lost."""


class MetricsStorage(ClosedModel):
    """Retention and volume of each replica of Prometheus."""

    retention: Duration
    storage: Bytes


class Defaults(ClosedModel):
    """The settings that a profile decides where the environment's file does not."""

    log_level: Literal["debug", "info", "warning", "error"]
    trace_sample_ratio: Ratio
    """Share of traces that are kept."""
    mesh: bool
    """A service mesh enforces the policies that gRPC cannot express for the Go services."""
    metrics: MetricsStorage
    ingress_grace: Duration
    """Longest time in which the load balancer still sends new connections to a gateway that is stopping: its health
    checks' interval × failures. The gateway goes on for as long."""


class DatabaseLimits(ClosedModel):
    """Connection limits of PostgreSQL and its pooler."""

    max_connections: int = 200
    reserved: int = 13
    """Superuser (3) and the operator's, exporter's and replication's own (10)."""
    poolers: int
    """0 where the services connect to the server itself."""
    pool_size: int
    """Server connections of one pooler for each database; without a pooler, of all that connect as its role."""
    max_client_connections: int = 0
    """Clients of one pooler; with N+1 poolers one of them must hold all."""

    @property
    def role_limit(self) -> int:
        """Most connections of one role."""
        return self.pool_size * max(1, self.poolers)


class ServerSize(ClosedModel):
    """How large a server of the platform itself is: a store, a proxy, a part of the telemetry."""

    replicas: Annotated[int, Field(ge=1)] = 1
    sizing: Sizing
    """Of each replica."""
    storage: Bytes | None = None
    """Volume of each replica; `None` where it keeps nothing, or a setting says how much."""
    storage_class: Name | None = None
    """Class of the volume, as a setting names it; `None` is the cluster's default."""

    @property
    def volume(self) -> Bytes:
        """The volume of a server that keeps something; raises `ValueError` where the profile gives it none."""
        if self.storage is None:
            raise ValueError("the server keeps data, and its profile gives it no storage")
        return self.storage


class Profile(ClosedModel):
    """One kind of environment."""

    name: ProfileName
    defaults: Defaults
    required: dict[str, Sentence] = Field(default_factory=dict)
    """Settings that the environment's file must give, each with the reason."""
    refused: dict[str, Sentence] = Field(default_factory=dict)
    """Settings that it may not give, each with the reason."""
    service_replicas: Literal["one", "half", "declared"]
    """Of each service: one; N+1 up to half of the declared maximum; or as the catalogue declares."""
    cpu_share: float = 1
    memory_share: float = 1
    """Share of a service's declared requests that its replica requests here; limits stay."""
    load_share: float
    """Share of the declared load that arrives here."""
    quotas: dict[Name, Quota]
    """Of each namespace that is ours."""
    database: DatabaseLimits
    servers: dict[Name, ServerSize]
    """By the server's name. One that is missing is not deployed."""
    retentions: dict[Name, Duration] = Field(default_factory=dict)
    """How long telemetry is kept, by the name of its stream."""
    load_balancer: bool
    """A load balancer exposes the gateway. Otherwise a port of every node does."""
    protects_data: bool
    """Pulumi protects resources that hold data, and retains them when they leave the stack."""
    stand_in_secrets: bool
    """`voice secrets` makes a stand-in for a value that somebody outside the platform issues."""
    strict: bool
    """An image without a digest, or an error of the audit that nobody accepted, stops the deployment."""

    def replicas(self, declared: Replicas) -> Replicas:
        """How many replicas of a service run."""
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
