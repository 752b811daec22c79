"""The mesh's policies for one workload: its callers, its callees, and the policies of its calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override
from voice_policies import Bulkhead, CircuitBreaker, ClosedModel, Duration

from components.component import Component
from components.grpc_service_config import protobuf_duration
from components.kubernetes.istio import NETWORKING_VERSION, SECURITY_VERSION
from components.network_policy import NAME_LABEL, Cidr
from components.operation import Name

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.istio import (
        AuthorizationPolicy,
        AuthorizationRule,
        ConnectionPool,
        DestinationRule,
        HttpRoute,
        OutlierDetection,
        PeerAuthentication,
        ServiceEntry,
        Sidecar,
        TrafficPolicy,
        VirtualService,
    )

__all__ = [
    "AttemptTimeout",
    "ExternalHost",
    "MeshCaller",
    "MeshDefaults",
    "MeshDestination",
    "MeshPolicy",
    "MeshServer",
]

METRICS_PATH = "/metrics"
TRUST_DOMAIN = "cluster.local"


class MeshCaller(ClosedModel):
    """A member of the mesh that calls, by its service account."""

    namespace: Name
    name: Name
    port: int


class AttemptTimeout(ClosedModel):
    """How long an attempt of one caller may take, where the layer that repeats the call bounds them all together."""

    host: str
    caller: Name
    path: str
    """Of the gRPC method: `/SERVICE/METHOD`."""
    timeout: Duration


class MeshServer(ClosedModel):
    """How a workload is called."""

    hosts: tuple[str, ...]
    callers: tuple[MeshCaller, ...]
    attempt_timeouts: tuple[AttemptTimeout, ...] = ()
    metrics_port: int
    """Shared with Prometheus, which is no member and may read metrics there, and nothing else."""


class MeshDestination(ClosedModel):
    """A host that a workload calls, with those policies of the calls that the mesh is the one to enforce."""

    host: str
    http: bool
    """True if the mesh sees single requests, as for gRPC and HTTP. Otherwise it sees connections alone."""
    circuit_breaker: CircuitBreaker | None = None
    bulkhead: Bulkhead | None = None

    @override
    def conflicts(self) -> Iterator[str]:
        if self.circuit_breaker and self.circuit_breaker.consecutive_failures is None:
            yield f"{self.host} has a breaker without consecutive_failures: the mesh counts nothing else"
        if self.bulkhead and self.bulkhead.max_queue:
            yield f"{self.host} has a bulkhead with a queue: the mesh refuses at once"

    external: bool = False
    """True if the host is outside the cluster. A ServiceEntry makes it known to the mesh."""

    @property
    def namespace(self) -> str:
        """The namespace of the host's Service; any namespace for an external host."""
        return "*" if self.external else self.host.split(".")[1]

    def traffic_policy(self) -> TrafficPolicy:
        """Its policies in Istio's terms; empty where it has none."""
        policy: TrafficPolicy = {}
        if self.circuit_breaker:
            policy["outlierDetection"] = _outlier_detection(self.circuit_breaker)
        if self.bulkhead:
            policy["connectionPool"] = self._connection_pool(self.bulkhead.max_concurrent)
        return policy

    def _connection_pool(self, most: int) -> ConnectionPool:
        return {"http": {"http2MaxRequests": most}} if self.http else {"tcp": {"maxConnections": most}}


def _bounded_route(bound: AttemptTimeout) -> HttpRoute:
    """To the mesh each attempt is a request. One that is cut off is DEADLINE_EXCEEDED to its caller."""
    return {
        "match": [{"uri": {"exact": bound.path}, "sourceLabels": {NAME_LABEL: bound.caller}}],
        "route": [{"destination": {"host": bound.host}}],
        "timeout": protobuf_duration(bound.timeout),
        "retries": {"attempts": 0},
    }


def _outlier_detection(breaker: CircuitBreaker) -> OutlierDetection:
    """Each endpoint is its own breaker. All may be open at once: a caller then fails at once, as the model says."""
    return {
        "consecutive5xxErrors": breaker.consecutive_failures or 0,
        "baseEjectionTime": f"{breaker.break_duration.whole_seconds()}s",
        "maxEjectionPercent": 100,
        "minHealthPercent": 0,
    }


class MeshPolicy(Component):
    """The mesh's part of one workload, which has the component's name."""

    folder: ClassVar[str] = "40-mesh"
    server: MeshServer | None
    """`None` where nothing comes in through the mesh."""
    destinations: tuple[MeshDestination, ...]

    @override
    def resources(self) -> Iterator[Resource]:
        if self.server:
            yield self._peer_authentication(self.server)
            yield self._authorization_policy(self.server)
            yield from (self._virtual_service(host, self.server.attempt_timeouts) for host in self.server.hosts)
        yield self._sidecar()
        for destination in self.destinations:
            if policy := destination.traffic_policy():
                yield self._destination_rule(destination.host, policy)

    def _peer_authentication(self, server: MeshServer) -> PeerAuthentication:
        return {
            "apiVersion": SECURITY_VERSION,
            "kind": "PeerAuthentication",
            "metadata": self.metadata(),
            "spec": {
                "selector": {"matchLabels": self.selector},
                "mtls": {"mode": "STRICT"},
                "portLevelMtls": {str(server.metrics_port): {"mode": "PERMISSIVE"}},
            },
        }

    def _authorization_policy(self, server: MeshServer) -> AuthorizationPolicy:
        principals: dict[int, list[str]] = defaultdict(list)
        for caller in server.callers:
            principals[caller.port].append(f"{TRUST_DOMAIN}/ns/{caller.namespace}/sa/{caller.name}")
        callers: list[AuthorizationRule] = [
            {"from": [{"source": {"principals": sorted(known)}}], "to": [{"operation": {"ports": [str(port)]}}]}
            for port, known in sorted(principals.items())
        ]
        metrics: AuthorizationRule = {
            "to": [{"operation": {"ports": [str(server.metrics_port)], "methods": ["GET"], "paths": [METRICS_PATH]}}]
        }
        return {
            "apiVersion": SECURITY_VERSION,
            "kind": "AuthorizationPolicy",
            "metadata": self.metadata(),
            "spec": {
                "selector": {"matchLabels": self.selector},
                "action": "ALLOW",
                "rules": [*callers, metrics],
            },
        }

    def _virtual_service(self, host: str, timeouts: Iterable[AttemptTimeout]) -> VirtualService:
        """No retries: the mesh makes two unless it is told otherwise, and would multiply those of another layer."""
        bounded = [_bounded_route(timeout) for timeout in timeouts if timeout.host == host]
        return {
            "apiVersion": NETWORKING_VERSION,
            "kind": "VirtualService",
            "metadata": {**self.metadata(), "name": _first_label(host)},
            "spec": {
                "hosts": [host],
                "http": [*bounded, {"route": [{"destination": {"host": host}}], "retries": {"attempts": 0}}],
            },
        }

    def _sidecar(self) -> Sidecar:
        hosts = sorted(f"{destination.namespace}/{destination.host}" for destination in self.destinations)
        return {
            "apiVersion": NETWORKING_VERSION,
            "kind": "Sidecar",
            "metadata": self.metadata(),
            "spec": {
                "workloadSelector": {"labels": self.selector},
                "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
                "egress": [{"hosts": hosts}],
            },
        }

    def _destination_rule(self, host: str, policy: TrafficPolicy) -> DestinationRule:
        return {
            "apiVersion": NETWORKING_VERSION,
            "kind": "DestinationRule",
            "metadata": self.metadata(_first_label(host)),
            "spec": {
                "host": host,
                "exportTo": ["."],
                "workloadSelector": {"matchLabels": self.selector},
                "trafficPolicy": policy,
            },
        }


class ExternalHost(ClosedModel):
    """A host outside the cluster that members connect to without a proxy."""

    name: Name
    host: str
    port: int
    network: Cidr
    """Block of addresses that the host is in. The mesh tells hosts on one port apart by it."""


class MeshDefaults(Component):
    """The defaults for every workload of a namespace."""

    folder: ClassVar[str] = "40-mesh"
    external: tuple[ExternalHost, ...] = ()

    @override
    def resources(self) -> Iterator[Resource]:
        """Mutual TLS, without exception."""
        yield {
            "apiVersion": SECURITY_VERSION,
            "kind": "PeerAuthentication",
            "metadata": self.metadata(),
            "spec": {"mtls": {"mode": "STRICT"}},
        }
        yield from map(self._service_entry, self.external)

    def _service_entry(self, external: ExternalHost) -> ServiceEntry:
        """Members are refused every host that the mesh does not know. The address is the one that the caller found."""
        return {
            "apiVersion": NETWORKING_VERSION,
            "kind": "ServiceEntry",
            "metadata": self.metadata(external.name),
            "spec": {
                "hosts": [external.host],
                "addresses": [external.network],
                "location": "MESH_EXTERNAL",
                "resolution": "NONE",
                "ports": [{"number": external.port, "name": f"tcp-{external.name}", "protocol": "TCP"}],
            },
        }


def _first_label(host: str) -> str:
    return host.partition(".")[0]
