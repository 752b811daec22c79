"""The mesh's resources for one workload: its callers, its callees, and the policies of its calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override
from voice_policies import IDLE_TIMEOUT, Bulkhead, CircuitBreaker, ClosedModel, Duration

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
        SidecarSpec,
        TrafficPolicy,
        VirtualService,
    )

__all__ = [
    "METRICS_PATH",
    "TRUST_DOMAIN",
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
    """A member of the mesh that calls the workload, identified by its service account."""

    namespace: Name
    name: Name
    port: int


class AttemptTimeout(ClosedModel):
    """Timeout for each attempt of one caller. The layer that retries the call limits only the call's total time."""

    host: str
    caller: Name
    path: str
    """Path of the gRPC method: `/SERVICE/METHOD`."""
    timeout: Duration


class MeshServer(ClosedModel):
    """A workload that members of the mesh call: its host names, its callers, and timeouts for their attempts."""

    hosts: tuple[str, ...]
    callers: tuple[MeshCaller, ...]
    attempt_timeouts: tuple[AttemptTimeout, ...] = ()
    metrics_port: int
    """Port that Prometheus reads. Prometheus is not a member of the mesh and may read metrics on that port only."""


class MeshDestination(ClosedModel):
    """A host that a workload calls, with the policies that the mesh enforces on those calls."""

    host: str
    http: bool
    """True if the mesh sees single requests, as for gRPC and HTTP. Otherwise it sees only connections."""
    circuit_breaker: CircuitBreaker | None = None
    bulkhead: Bulkhead | None = None

    @override
    def conflicts(self) -> Iterator[str]:
        if self.circuit_breaker and self.circuit_breaker.consecutive_failures is None:
            yield (
                f"{self.host} has a breaker without consecutive_failures: set it,"
                " because the mesh supports no other condition"
            )
        if self.bulkhead and self.bulkhead.max_queue:
            yield f"{self.host} has a bulkhead with a queue, and the mesh has no queue: set max_queue to 0"

    external: Name | None = None
    """Name of a store outside the cluster, and of the ServiceEntry that makes its host known to the mesh."""

    @property
    def name(self) -> str:
        """The name of the Service, or of the store outside the cluster.

        Two hosts outside the cluster may have the same first label, so the first label does not name a store.
        """
        return self.external or _first_label(self.host)

    @property
    def namespace(self) -> str:
        """The namespace of the host's Service; any namespace for an external host."""
        return "*" if self.external else self.host.split(".")[1]

    def traffic_policy(self) -> TrafficPolicy:
        """The policies as Istio's `trafficPolicy`. Empty without policies."""
        policy: TrafficPolicy = {}
        if self.circuit_breaker:
            policy["outlierDetection"] = _outlier_detection(self.circuit_breaker)
        if self.bulkhead:
            policy["connectionPool"] = self._connection_pool(self.bulkhead.max_concurrent)
        return policy

    def _connection_pool(self, most: int) -> ConnectionPool:
        return {"http": {"http2MaxRequests": most}} if self.http else {"tcp": {"maxConnections": most}}


def _bounded_route(bound: AttemptTimeout) -> HttpRoute:
    """A route with a timeout for each attempt. The mesh sees an attempt as a request.

    The caller of a late attempt gets DEADLINE_EXCEEDED.
    """
    return {
        "match": [{"uri": {"exact": bound.path}, "sourceLabels": {NAME_LABEL: bound.caller}}],
        "route": [{"destination": {"host": bound.host}}],
        "timeout": protobuf_duration(bound.timeout),
        "retries": {"attempts": 0},
    }


def _outlier_detection(breaker: CircuitBreaker) -> OutlierDetection:
    """Each endpoint has its own breaker.

    The percentages permit that all breakers are open at the same time. Then calls fail immediately.
    """
    return {
        "consecutive5xxErrors": breaker.consecutive_failures or 0,
        "baseEjectionTime": f"{breaker.break_duration.whole_seconds()}s",
        "maxEjectionPercent": 100,
        "minHealthPercent": 0,
    }


class MeshPolicy(Component):
    """The mesh's resources for one workload. The component has the name of the workload."""

    folder: ClassVar[str] = "40-mesh"
    server: MeshServer | None
    """`None` if nothing calls the workload through the mesh."""
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
                yield self._destination_rule(destination, policy)

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
        """Routes without retries. The mesh's default of two retries would multiply the retries of another layer."""
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
        """The hosts that the workload may call, and the idle timeout of connections to the workload.

        With this timeout the proxy closes an idle connection before the server closes it. Envoy's default is 1 h.
        """
        hosts = sorted(f"{destination.namespace}/{destination.host}" for destination in self.destinations)
        spec: SidecarSpec = {
            "workloadSelector": {"labels": self.selector},
            "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
            "egress": [{"hosts": hosts}],
        }
        if self.server:
            spec["inboundConnectionPool"] = {"http": {"idleTimeout": protobuf_duration(IDLE_TIMEOUT)}}
        return {"apiVersion": NETWORKING_VERSION, "kind": "Sidecar", "metadata": self.metadata(), "spec": spec}

    def _destination_rule(self, destination: MeshDestination, policy: TrafficPolicy) -> DestinationRule:
        return {
            "apiVersion": NETWORKING_VERSION,
            "kind": "DestinationRule",
            "metadata": self.metadata(destination.name),
            "spec": {
                "host": destination.host,
                "exportTo": ["."],
                "workloadSelector": {"matchLabels": self.selector},
                "trafficPolicy": policy,
            },
        }


class ExternalHost(ClosedModel):
    """A host outside the cluster to which members connect without an egress proxy."""

    name: Name
    host: str
    port: int
    network: Cidr
    """Address block of the host. The mesh needs it to distinguish hosts that use the same port."""


class MeshDefaults(Component):
    """The defaults for every workload of a namespace."""

    folder: ClassVar[str] = "40-mesh"
    external: tuple[ExternalHost, ...] = ()

    @override
    def resources(self) -> Iterator[Resource]:
        """Mutual TLS in strict mode for every workload, and a ServiceEntry for each external host."""
        yield {
            "apiVersion": SECURITY_VERSION,
            "kind": "PeerAuthentication",
            "metadata": self.metadata(),
            "spec": {"mtls": {"mode": "STRICT"}},
        }
        yield from map(self._service_entry, self.external)

    def _service_entry(self, external: ExternalHost) -> ServiceEntry:
        """A ServiceEntry for the host: members cannot reach a host that the mesh does not know.

        The caller resolves the address.
        """
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
