"""Who talks to whom, as peers of a network policy: derived from the declared calls, for both ends of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache

from voice_policies import ClosedModel

from components.edge.envoy import AllowList
from components.network_policy import NAME_LABEL, AddressBlock, NetworkEnd, Peer
from components.node import Caller, Dependency, Gateway, Host, InCluster, Service
from stack.model.call_graph import CallGraph
from stack.model.egress import egress_port
from stack.model.site import PUBLIC_NETWORK, Site


class Link(ClosedModel):
    """A way that a tier needs for itself, such as replication: who reaches what."""

    source: NetworkEnd
    """Without ports of its own."""
    target: NetworkEnd


class _Peers:
    """Peers merged by component, ports sorted, in the order they were first met."""

    def __init__(self) -> None:
        self._ports: dict[tuple[str, str, str], set[int]] = defaultdict(set)

    def add(self, namespace: str, name: str, port: int, label: str = NAME_LABEL) -> None:
        self._ports[namespace, name, label].add(port)

    def __iter__(self) -> Iterator[Peer]:
        for (namespace, name, label), ports in sorted(self._ports.items()):
            yield _peer(namespace, name, tuple(sorted(ports)), label)


@cache
def _peer(namespace: str, name: str, ports: tuple[int, ...], label: str) -> Peer:
    """Every service has some of them, such as the Collector, and frozen models may be shared."""
    return Peer(namespace=namespace, name=name, ports=ports, label=label)


def service_ingress(graph: CallGraph, service: Service) -> Iterator[Peer]:
    """Callers on the port of their protocol, and Prometheus on the one that serves `/metrics`."""
    peers = _Peers()
    for edge in graph.edges_to(service):
        port = service.http_port if isinstance(edge.caller, Gateway) else service.grpc_port
        peers.add(edge.caller.namespace, edge.caller.name, port)
    prometheus = graph.site.prometheus
    peers.add(prometheus.namespace, prometheus.name, service.http_port)
    yield from peers


def service_egress(graph: CallGraph, service: Service) -> Iterator[Peer]:
    """Callees on their ports, the egress proxies of external hosts, and the Collector."""
    peers = _Peers()
    for edge in graph.edges_from(service):
        if isinstance(edge.callee, Service):
            peers.add(edge.callee.namespace, edge.callee.name, edge.callee.grpc_port)
        elif isinstance(edge.callee, Dependency):
            for address in edge.callee.addresses:
                _add_address(peers, address, service, graph.site)
    collector = graph.site.collector
    for port in collector.ports:
        peers.add(collector.namespace, collector.name, port)
    yield from peers


def datastore_ingress(graph: CallGraph, dependency: Dependency, port: int) -> Iterator[Peer]:
    """Every caller of a datastore, on the one port that it answers on."""
    peers = _Peers()
    for edge in graph.edges_to(dependency):
        peers.add(edge.caller.namespace, edge.caller.name, port)
    yield from peers


def link_ingress(links: Iterable[Link], name: str) -> Iterator[NetworkEnd]:
    """Who reaches the pods of that name, on which ports."""
    for link in links:
        if isinstance(link.target, Peer) and link.target.name == name:
            ports = {"ports": link.target.ports}
            datagrams = {"datagrams": link.target.datagrams} if isinstance(link.source, Peer) else {}
            yield link.source.model_copy(update=ports | datagrams)


def link_egress(links: Iterable[Link], name: str) -> Iterator[NetworkEnd]:
    """What the pods of that name reach."""
    return (link.target for link in links if link.source.name == name)


def gateway_egress(graph: CallGraph, gateway: Gateway) -> Iterator[Peer]:
    """The services of its routes on their HTTP ports, and its stores."""
    peers = _Peers()
    for edge in graph.edges_from(gateway):
        if isinstance(edge.callee, Service):
            peers.add(edge.callee.namespace, edge.callee.name, edge.callee.http_port)
        elif isinstance(edge.callee, Dependency):
            for address in edge.callee.addresses:
                _add_address(peers, address, gateway, graph.site)
    yield from peers


def egress_proxy_ingress(graph: CallGraph, allow_lists: Iterable[AllowList]) -> Iterator[Peer]:
    """Each caller on its own port alone."""
    peers = _Peers()
    namespaces = {edge.caller.name: edge.caller.namespace for edge in graph.edges}
    for allowed in allow_lists:
        peers.add(namespaces[allowed.caller], allowed.caller, allowed.port)
    yield from peers


def egress_proxy_egress(site: Site, allow_lists: Iterable[AllowList]) -> Iterator[AddressBlock]:
    """The ports of public hosts anywhere but inside, and those of private ones in the peered network."""
    hosts = {host for allowed in allow_lists for host in allowed.hosts}
    for network in (site.private_network, PUBLIC_NETWORK):
        if ports := {host.port for host in hosts if site.network_of(host) == network}:
            yield network.model_copy(update={"ports": tuple(sorted(ports))})


def _add_address(peers: _Peers, address: Host | InCluster, caller: Caller, site: Site) -> None:
    if isinstance(address, Host):
        peers.add(site.egress, address.egress, egress_port(caller.name))
    else:
        peers.add(address.namespace, address.service, address.port, address.label)
