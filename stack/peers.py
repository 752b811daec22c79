"""Who talks to whom, as peers of a network policy: derived from the declared calls, for both ends of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from voice_policies import ClosedModel

from components.network_policy import NAME_LABEL, AddressBlock, Peer
from components.node import Dependency, Gateway, Host, InCluster, Service
from stack.call_graph import CallGraph
from stack.catalog import targets
from stack.policy_bundles import APPS


class Link(ClosedModel):
    """A way that a tier needs for itself, such as replication: who reaches what."""

    source: Peer
    """Without ports of its own."""
    target: Peer | AddressBlock


class _Peers:
    """Peers merged by component, ports sorted, in the order they were first met."""

    def __init__(self) -> None:
        self._ports: dict[tuple[str, str, str], set[int]] = defaultdict(set)

    def add(self, namespace: str, name: str, port: int, label: str = NAME_LABEL) -> None:
        self._ports[namespace, name, label].add(port)

    def __iter__(self) -> Iterator[Peer]:
        for (namespace, name, label), ports in sorted(self._ports.items()):
            yield Peer(namespace=namespace, name=name, ports=tuple(sorted(ports)), label=label)


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
                _add_address(peers, address)
    peers.add(targets.OBSERVABILITY, targets.COLLECTOR, targets.COLLECTOR_PORT)
    yield from peers


def datastore_ingress(graph: CallGraph, dependency: Dependency, port: int) -> Iterator[Peer]:
    """Every caller of a datastore, on the one port that it answers on."""
    peers = _Peers()
    for edge in graph.edges_to(dependency):
        namespace = edge.caller.namespace if isinstance(edge.caller, Gateway) else APPS
        peers.add(namespace, edge.caller.name, port)
    yield from peers


def link_ingress(links: Iterable[Link], name: str) -> Iterator[Peer]:
    """Who reaches the pods of that name, on which ports."""
    for link in links:
        if isinstance(link.target, Peer) and link.target.name == name:
            yield link.source.model_copy(update={"ports": link.target.ports, "datagrams": link.target.datagrams})


def link_egress(links: Iterable[Link], name: str) -> Iterator[Peer | AddressBlock]:
    """What the pods of that name reach."""
    return (link.target for link in links if link.source.name == name)


def _add_address(peers: _Peers, address: Host | InCluster) -> None:
    if isinstance(address, Host):
        peers.add(targets.EGRESS, address.egress, targets.EGRESS_PORT)
    else:
        peers.add(address.namespace, address.service, address.port, address.label)
