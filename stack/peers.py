"""Who talks to whom, as peers of a network policy: derived from the declared calls, for both ends of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from components.edge.apisix import GatewayPorts
from components.edge.envoy import STATUS_PORT, AllowList
from components.network_policy import Block, Peer
from components.node import Dependency, Gateway, Host, InCluster, Node, Service
from stack.call_graph import CallGraph
from stack.catalog import targets
from stack.egress import egress_port, is_private
from stack.policy_bundles import APPS


class _Peers:
    """Peers merged by component, ports sorted, in the order they were first met."""

    def __init__(self) -> None:
        self._ports: dict[tuple[str, str], set[int]] = defaultdict(set)

    def add(self, namespace: str, name: str, port: int) -> None:
        self._ports[namespace, name].add(port)

    def __iter__(self) -> Iterator[Peer]:
        for (namespace, name), ports in sorted(self._ports.items()):
            yield Peer(namespace=namespace, name=name, ports=tuple(sorted(ports)))


def service_ingress(graph: CallGraph, service: Service) -> Iterator[Peer]:
    """Callers on the port of their protocol, and Prometheus on the one that serves `/metrics`."""
    peers = _Peers()
    for edge in graph.edges_to(service):
        if isinstance(edge.caller, Gateway):
            peers.add(edge.caller.namespace, edge.caller.name, service.http_port)
        else:
            peers.add(APPS, edge.caller.name, service.grpc_port)
    peers.add(targets.OBSERVABILITY, targets.PROMETHEUS, service.http_port)
    yield from peers


def service_egress(graph: CallGraph, service: Service) -> Iterator[Peer]:
    """Callees on their ports, the egress proxies of external hosts, and the Collector."""
    peers = _Peers()
    for edge in graph.edges_from(service):
        if isinstance(edge.callee, Service):
            peers.add(APPS, edge.callee.name, edge.callee.grpc_port)
        elif isinstance(edge.callee, Dependency):
            for address in edge.callee.addresses:
                _add_address(peers, address, service)
    peers.add(targets.OBSERVABILITY, targets.COLLECTOR, targets.COLLECTOR_PORT)
    yield from peers


def gateway_ingress(ports: GatewayPorts) -> Iterator[Peer | Block]:
    """Every address on the ports of the entrance, and Prometheus on the one that tells metrics."""
    yield Block(cidr=targets.INTERNET, ports=(ports.http, ports.https))
    yield Peer(namespace=targets.OBSERVABILITY, name=targets.PROMETHEUS, ports=(ports.metrics,))


def gateway_egress(graph: CallGraph, gateway: Gateway) -> Iterator[Peer]:
    """The services of its routes on their HTTP ports, its stores, and the Collector."""
    peers = _Peers()
    for edge in graph.edges_from(gateway):
        if isinstance(edge.callee, Service):
            peers.add(APPS, edge.callee.name, edge.callee.http_port)
        elif isinstance(edge.callee, Dependency):
            for address in edge.callee.addresses:
                _add_address(peers, address, gateway)
    peers.add(targets.OBSERVABILITY, targets.COLLECTOR, targets.COLLECTOR_HTTP_PORT)
    yield from peers


def egress_proxy_ingress(allow_lists: Iterable[AllowList]) -> Iterator[Peer]:
    """Each caller on its own port alone, and Prometheus on the one that tells metrics."""
    peers = _Peers()
    for allowed in allow_lists:
        peers.add(APPS, allowed.caller, allowed.port)
    peers.add(targets.OBSERVABILITY, targets.PROMETHEUS, STATUS_PORT)
    yield from peers


def egress_proxy_egress(allow_lists: Iterable[AllowList]) -> Iterator[Block]:
    """The ports of public hosts anywhere but inside, and those of private ones in the peered network."""
    hosts = {host for allowed in allow_lists for host in allowed.hosts}
    private = {host for host in hosts if is_private(host)}
    if private:
        yield Block(cidr=targets.PEERED_NETWORK, ports=_ports(private))
    if hosts - private:
        yield Block(cidr=targets.INTERNET, excepted=targets.RESERVED_NETWORKS, ports=_ports(hosts - private))


def _ports(hosts: set[Host]) -> tuple[int, ...]:
    return tuple(sorted({host.port for host in hosts}))


def _add_address(peers: _Peers, address: Host | InCluster, caller: Node) -> None:
    if isinstance(address, Host):
        peers.add(targets.EGRESS, address.egress, egress_port(caller.name))
    else:
        peers.add(address.namespace, address.service, address.port)
