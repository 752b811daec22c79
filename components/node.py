"""The nodes of the call graph: services, gateways and dependencies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import override
from voice_policies import (
    Bytes,
    ClosedModel,
    Cpu,
    DegradedFeature,
    Duration,
    Protocol,
    Rate,
    Ratio,
    TextPattern,
)

from components.declaration import Declaration
from components.network_policy import NAME_LABEL, Cidr
from components.operation import Name, Operation, Sentence

__all__ = [
    "Caller",
    "Client",
    "Dependency",
    "External",
    "Gateway",
    "Host",
    "HostName",
    "InCluster",
    "Node",
    "Replicas",
    "Service",
    "Sizing",
    "Tier",
]

Tier = Literal["core", "standard", "batch"]
Port = Annotated[int, Field(ge=1024, le=65_535)]
"""A port that a process without privileges can open."""


class Node(Declaration):
    """Anything that offers operations or makes calls."""

    name: Name
    operations: tuple[Operation, ...]
    restart: Duration = Duration("15s")
    """Time from a restart, or from the start of a failover, to the first good answer (rule C04).

    The default fits a service: 8 s for a Python process, a startup probe every 2 s, a readiness probe every 5 s.
    """

    @property
    @override
    def label(self) -> str:
        return self.name

    def offers(self, name: str) -> bool:
        """True if the node has an operation of that name."""
        return any(operation.name == name for operation in self.operations)

    def operation(self, name: str) -> Operation:
        """The operation of that name. Raises `KeyError` if the node does not offer it."""
        for operation in self.operations:
            if operation.name == name:
                return operation
        raise KeyError(f"{self.name}.{name}")

    @override
    def conflicts(self) -> Iterator[str]:
        names = [operation.name for operation in self.operations]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"operation {name} is declared twice"


class Sizing(ClosedModel):
    """CPU and memory of one replica: request and limit."""

    cpu_request: Cpu
    cpu_limit: Cpu
    memory_request: Bytes
    memory_limit: Bytes

    @classmethod
    def of(cls, cpu: tuple[str, str], memory: tuple[str, str]) -> Sizing:
        """A sizing from `(request, limit)` pairs in the text form of quantities.

        Raises `ValueError` if `cpu` or `memory` is a text, because Python unpacks a text of two characters like a pair.
        """
        pairs = {"cpu": cpu, "memory": memory}
        # The check is for catalogues that mypy has not checked yet.
        if wrong := [f"{name} is {pair!r}" for name, pair in pairs.items() if isinstance(pair, str)]:  # type: ignore[redundant-expr] # see above
            raise ValueError(f"{' and '.join(wrong)}: expected (request, limit), such as ('100m', '500m')")
        return cls.model_validate(
            {
                f"{name}_{part}": value
                for name, pair in pairs.items()
                for part, value in zip(("request", "limit"), pair, strict=True)
            }
        )

    @override
    def conflicts(self) -> Iterator[str]:
        if self.cpu_limit < self.cpu_request:
            yield f"cpu_limit {self.cpu_limit} is below cpu_request {self.cpu_request}"
        if self.memory_limit < self.memory_request:
            yield f"memory_limit {self.memory_limit} is below memory_request {self.memory_request}"


class Replicas(ClosedModel):
    """Number of replicas. `min` equal to `max` is a fixed count without autoscaling."""

    min: Annotated[int, Field(ge=1, le=1000)]
    max: Annotated[int, Field(ge=1, le=1000)]

    @classmethod
    def exactly(cls, count: int) -> Replicas:
        """A fixed count."""
        return cls(min=count, max=count)

    @property
    def fixed(self) -> bool:
        """True if the replica count never changes."""
        return self.min == self.max

    @override
    def conflicts(self) -> Iterator[str]:
        if self.max < self.min:
            yield f"min {self.min} is above max {self.max}"


class Caller(Node):
    """A node that makes calls, from pods in a namespace."""

    namespace: Name


class Service(Caller):
    """One of our own services."""

    language: Literal["go", "python"]
    tier: Tier
    purpose: Sentence
    grpc_port: Port
    http_port: Port
    sizing: Sizing
    replicas: Replicas
    capacity: Rate
    """Rate of requests that one replica serves within the latency objectives."""
    startup: Duration = Duration("60s")
    """Longest time from the start of the process until it answers. Raise it for a service that loads a model."""
    connection_pool: Annotated[int, Field(ge=0, le=500)] = 0
    """Database connections of one replica, overflow included. 0 for a service without a database."""
    resident_memory: Bytes | None = None
    """Memory that a replica uses without load. `None` if nobody has measured it."""
    features: tuple[DegradedFeature, ...] = ()
    without_features: Sentence | None = None
    """Reason why the service has nothing to degrade, if it has no `features`."""

    @override
    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if not self.operations:
            yield "it offers no operation: declare one, or leave the service out"
        if self.features and self.without_features:
            yield "it declares features and without_features: keep one of them"
        if self.grpc_port == self.http_port:
            yield f"grpc_port and http_port are both {self.grpc_port}"


class Gateway(Caller):
    """The gateway. Each operation is a route, with the load that arrives from clients."""

    availability: Ratio

    @override
    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        paths: dict[str, list[str]] = {}
        for operation in self.operations:
            if operation.http:
                paths.setdefault(operation.http.path, []).append(operation.name)
        for path, names in paths.items():
            if len(names) > 1:
                yield f"path {path} is the route of {' and '.join(names)}: give each route another path"


HostName = Annotated[str, TextPattern(r"^[a-z0-9-]+(\.[a-z0-9-]+)+$", "api.example.com", 253)]


class Host(ClosedModel):
    """A host outside the cluster, reached through an egress proxy."""

    host: HostName
    port: Annotated[int, Field(ge=1, le=65_535)]
    egress: Name


Certificates = Annotated[
    str,
    TextPattern(
        r"^(-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n*)+$",
        "-----BEGIN CERTIFICATE-----, lines of Base64, -----END CERTIFICATE-----",
        250_000,
    ),
]
"""Certificates as PEM. The jobs of `DatabaseSchemas` read them from a ConfigMap, which holds at most 1 MiB. The
limit of 250,000 characters leaves room for the other files of this ConfigMap."""


class InCluster(ClosedModel):
    """A Service in the cluster. A label of the Service's pods contains its name."""

    namespace: Name
    service: Name
    port: Port
    label: str = NAME_LABEL
    """The label of the pods that contains the Service's name."""


class External(ClosedModel):
    """A host outside the cluster to which callers connect directly, such as a managed store.

    An egress proxy reads the name of the host (SNI) from the first message of TLS. PostgreSQL's protocol does not begin
    with TLS, so a NetworkPolicy permits the callers to connect to the host's network instead.
    """

    host: HostName
    port: Annotated[int, Field(ge=1, le=65_535)]
    tls: bool = True
    """True: clients connect over TLS. They verify the host's certificate with the authorities in their own image."""
    certificate_authorities: Certificates | None = None
    """The authorities with which the jobs of `DatabaseSchemas` verify the certificate. `None`: the public ones."""
    network: Cidr
    """Address block of the host. Callers can reach every address of the block on `port`, so keep the block small."""

    @override
    def conflicts(self) -> Iterator[str]:
        if self.certificate_authorities and not self.tls:
            yield "certificate_authorities without tls has no effect: set tls to true, or leave out the authorities"


class Client(ClosedModel):
    """The library with which callers reach a dependency, and the retries that the callers set in it."""

    library: Name
    """The library's name in the audit's table of library defaults."""
    language: Literal["go", "python"] | None = None
    """Language of the callers that use the library. `None`: all callers."""
    retries: Annotated[int, Field(ge=0, le=100)] | None = None
    """Retries that the callers set. `None` leaves the default of the library (rule R09)."""

    def used_by(self, caller: Node) -> bool:
        """True if the caller reaches the dependency with this library."""
        return self.language is None or (isinstance(caller, Service) and caller.language == self.language)


class Dependency(Node):
    """A datastore, provider or external system that we call and did not write. Its operations call nothing."""

    kind: Literal["datastore", "provider", "infrastructure"]
    purpose: Sentence
    protocol: Protocol
    addresses: Annotated[tuple[Host | InCluster | External, ...], Field(min_length=1)]
    """Several addresses mean that any one of them suffices."""
    availability: Ratio
    """Availability of each address."""
    credentials: tuple[Name, ...] = ()
    """Keys of the secret. Each caller has its own secret for the dependency."""
    clients: tuple[Client, ...] = ()
    """Libraries that may retry by themselves, in addition to the declared policies of a call."""
    evicts: bool = False
    """True if the store drops entries when its memory is full."""
    database: bool = False
    """True if callers hold connections that count against the server's connection limit."""

    @override
    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.protocol == "postgresql" and any(isinstance(address, Host) for address in self.addresses):
            yield (
                "a Host cannot speak postgresql: the egress proxy needs TLS from the first byte,"
                " and PostgreSQL begins in clear text; declare the address as External"
            )
