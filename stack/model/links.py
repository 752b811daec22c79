"""Links: the permitted connections. NetworkPolicies, scraping and the audit's network rules are computed from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cache

from components.links import Link, peer
from components.network_policy import NAME_LABEL, AddressBlock, Peer
from components.node import Dependency, External, Gateway, Host, InCluster, Service
from components.scrape import Scrape
from stack.model.call_graph import CallGraph, Edge
from stack.model.egress import egress_port
from stack.model.site import Site

__all__ = ["external_block", "external_stores", "scrape_link"]

Pods = tuple[str, str, str]
"""Namespace, name, and the label that carries the name."""


def scrape_link(site: Site, pods: Peer, scrape: Scrape) -> Link:
    """The link from Prometheus to a server's pods. For a server without metrics: the link from the prober."""
    watcher = site.prometheus if scrape.module is None else site.prober
    return Link(_pods(watcher), pods.model_copy(update={"ports": (scrape.port,)}), scrape)


def call_links(graph: CallGraph) -> Iterator[Link]:
    """The links of the declared calls.

    A call to a `Host` yields a link to the host's egress proxy. A call to an `External` host yields a link to the
    host's network.
    """
    ports: dict[tuple[Pods, Pods], set[int]] = defaultdict(set)
    for edge in graph.edges:
        source = edge.caller.namespace, edge.caller.name, NAME_LABEL
        for target, port in _targets(edge, graph.site):
            ports[source, target].add(port)
    for (source, target), used in sorted(ports.items()):
        yield Link(peer(*source), peer(*target, tuple(sorted(used))))
    for dependency, address in external_stores(graph):
        for caller in {edge.caller.name: edge.caller for edge in graph.edges_to(dependency)}.values():
            yield Link(peer(caller.namespace, caller.name), external_block(dependency, address))


def external_stores(graph: CallGraph) -> Iterator[tuple[Dependency, External]]:
    """The external stores to which callers connect directly."""
    dependencies = (node for node in graph.nodes.values() if isinstance(node, Dependency))
    for dependency in dependencies:
        yield from ((dependency, address) for address in dependency.addresses if isinstance(address, External))


def external_block(dependency: Dependency, address: External) -> AddressBlock:
    """An external store as the target of a link."""
    return AddressBlock(name=f"external-{dependency.name}", cidr=address.network, ports=(address.port,))


def telemetry_links(graph: CallGraph) -> Iterator[Link]:
    """The links that every service has besides its calls: from Prometheus, and to the Collector."""
    for service in graph.services:
        pods = peer(service.namespace, service.name, NAME_LABEL)
        yield scrape_link(graph.site, pods, _service_scrape(service.http_port))
        yield Link(pods, graph.site.collector)


def _targets(edge: Edge, site: Site) -> Iterator[tuple[Pods, int]]:
    """The pods that an edge connects to, and the port of each. An external store has no pods."""
    callee = edge.callee
    if isinstance(callee, Service):
        port = callee.http_port if isinstance(edge.caller, Gateway) else callee.grpc_port
        yield (callee.namespace, callee.name, NAME_LABEL), port
    elif isinstance(callee, Dependency):
        for address in callee.addresses:
            if isinstance(address, Host):
                yield (site.egress, address.egress, NAME_LABEL), egress_port(edge.caller.name)
            elif isinstance(address, InCluster):
                yield (address.namespace, address.service, address.label), address.port


def _pods(end: Peer) -> Peer:
    return peer(end.namespace, end.name, end.label)


@cache
def _service_scrape(port: int) -> Scrape:
    return Scrape(port=port)
