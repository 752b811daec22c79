"""Links: who talks to whom. NetworkPolicies, scraping and the audit's rules on the network are projections of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from components.network_policy import NAME_LABEL, NetworkEnd, Peer
from components.node import Dependency, Gateway, Host, InCluster, Service
from components.scrape import Scrape
from stack.model.call_graph import CallGraph, Edge
from stack.model.egress import egress_port
from stack.model.site import Site

Pods = tuple[str, str, str]
"""Namespace, name, and the label that carries the name."""


@dataclass(frozen=True, slots=True)
class Link:
    """A connection that both of its ends permit."""

    source: NetworkEnd
    """The end that connects, without ports."""
    target: NetworkEnd
    """The end that listens, and its ports."""
    scrape: Scrape | None = None
    """The metrics or the probe that the link is for."""


class Links:
    """Every link of a platform, found by namespace and name of the pods at either end."""

    def __init__(self, links: Iterable[Link]) -> None:
        """Sort `links` by their ends; each end keeps their order."""
        self._all = tuple(links)
        self._ingress: dict[tuple[str, str], list[NetworkEnd]] = defaultdict(list)
        self._egress: dict[tuple[str, str], list[NetworkEnd]] = defaultdict(list)
        for link in self._all:
            if isinstance(link.target, Peer):
                self._ingress[link.target.namespace, link.target.name].append(_source(link.source, link.target))
            if isinstance(link.source, Peer):
                self._egress[link.source.namespace, link.source.name].append(link.target)

    def __iter__(self) -> Iterator[Link]:
        return iter(self._all)

    def ingress(self, namespace: str, name: str) -> tuple[NetworkEnd, ...]:
        """The sources that connect to these pods, each with the ports of the pods that it connects to."""
        return tuple(self._ingress.get((namespace, name), ()))

    def egress(self, namespace: str, name: str) -> tuple[NetworkEnd, ...]:
        """The targets that these pods connect to."""
        return tuple(self._egress.get((namespace, name), ()))


def scrape_link(site: Site, pods: Peer, scrape: Scrape) -> Link:
    """The link over which Prometheus, or the prober in its place, reads a server's pods."""
    watcher = site.prometheus if scrape.module is None else site.prober
    return Link(_pods(watcher), pods.model_copy(update={"ports": (scrape.port,)}), scrape)


def call_links(graph: CallGraph) -> Iterator[Link]:
    """The links of the declared calls, by source and target; a host outside is reached through its egress proxy."""
    ports: dict[tuple[Pods, Pods], set[int]] = defaultdict(set)
    for edge in graph.edges:
        source = edge.caller.namespace, edge.caller.name, NAME_LABEL
        for target, port in _targets(edge, graph.site):
            ports[source, target].add(port)
    for (source, target), used in sorted(ports.items()):
        yield Link(_peer(*source), _peer(*target, tuple(sorted(used))))


def telemetry_links(graph: CallGraph) -> Iterator[Link]:
    """The links that every service has beside its calls: Prometheus scrapes it, and it pushes to the Collector."""
    for service in graph.services:
        pods = _peer(service.namespace, service.name, NAME_LABEL)
        yield scrape_link(graph.site, pods, _service_scrape(service.http_port))
        yield Link(pods, graph.site.collector)


def _targets(edge: Edge, site: Site) -> Iterator[tuple[Pods, int]]:
    """The pods that an edge connects to, and the port of each."""
    callee = edge.callee
    if isinstance(callee, Service):
        port = callee.http_port if isinstance(edge.caller, Gateway) else callee.grpc_port
        yield (callee.namespace, callee.name, NAME_LABEL), port
    elif isinstance(callee, Dependency):
        for address in callee.addresses:
            yield _address(address, edge.caller.name, site)


def _address(address: Host | InCluster, caller: str, site: Site) -> tuple[Pods, int]:
    if isinstance(address, Host):
        return (site.egress, address.egress, NAME_LABEL), egress_port(caller)
    return (address.namespace, address.service, address.label), address.port


def _source(source: NetworkEnd, target: Peer) -> NetworkEnd:
    """A source as the target's ingress names it: with the target's ports."""
    if not isinstance(source, Peer):
        return source.model_copy(update={"ports": target.ports})
    return _peer(source.namespace, source.name, source.label, target.ports, target.datagrams)


def _pods(peer: Peer) -> Peer:
    return _peer(peer.namespace, peer.name, peer.label)


@cache
def _peer(namespace: str, name: str, label: str, ports: tuple[int, ...] = (), datagrams: tuple[int, ...] = ()) -> Peer:
    """Pods on some of their ports. Frozen models are shared: every service has the Collector among its targets."""
    return Peer(namespace=namespace, name=name, label=label, ports=ports, datagrams=datagrams)


@cache
def _service_scrape(port: int) -> Scrape:
    return Scrape(port=port)
