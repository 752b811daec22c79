"""The egress tier: the egress proxies of all declared hosts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from components import images
from components.edge.egress_proxy import EgressProxy
from components.edge.envoy import AllowList
from components.links import Link, Links
from components.network_policy import Peer
from components.node import Dependency, Host
from stack.model.call_graph import CallGraph, Edge
from stack.model.egress import allow_lists, outward
from stack.model.environments import Environment
from stack.model.links import scrape_link
from stack.model.tenant import Builder
from stack.voiceassistant import site


def components(graph: CallGraph, environment: Environment, links: Links) -> Iterator[Builder]:
    """Every proxy, in order of name."""
    for proxy, allowed in allow_lists(graph).items():
        yield partial(_proxy, graph, environment, links, proxy, allowed)


def _proxy(
    graph: CallGraph, environment: Environment, links: Links, proxy: str, allowed: tuple[AllowList, ...]
) -> EgressProxy:
    size = environment.server(site.EGRESS_PROXY)
    return EgressProxy(
        name=proxy,
        namespace=site.EGRESS,
        image=environment.third_party_image(images.ENVOY),
        sizing=size.sizing,
        replicas=size.scale,
        allow_lists=allowed,
        links=links,
        outward=tuple(outward(graph.site, allowed)),
        longest_request=max(edge.attempt_timeout for edge in graph.edges if _leaves_through(edge, proxy)),
    )


def links(graph: CallGraph, _: Environment) -> Iterator[Link]:
    """Prometheus scrapes each proxy."""
    for proxy in allow_lists(graph):
        yield scrape_link(graph.site, Peer(namespace=site.EGRESS, name=proxy, ports=()), EgressProxy.scrape)


def _leaves_through(edge: Edge, proxy: str) -> bool:
    return isinstance(edge.callee, Dependency) and any(
        isinstance(address, Host) and address.egress == proxy for address in edge.callee.addresses
    )
