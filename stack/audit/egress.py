"""N05: NetworkPolicies and the proxies' allow-lists together open exactly the declared connections to each host."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from components.edge.egress_proxy import EgressProxy
from components.edge.envoy import CLUSTERS, FILE_NAME, LISTENERS
from components.network_policy import DNS_PORT, AddressBlock, Peer
from components.node import Dependency, Host
from stack.audit.finding import Breach, Rule
from stack.audit.network import INTERNET, PEERED_NETWORK, endpoints, permitted_by_policies, resolvers, title
from stack.model.network_connections import Connection
from stack.model.platform import Platform

if TYPE_CHECKING:
    from components.component import Resource

__all__ = ["EgressConnection", "permitted_egress"]

ANY_HOST = "any host"
NO_PROXY = "no proxy"


class EgressConnection(NamedTuple):
    """A connection out of the cluster: from a caller through a proxy to a host, or directly to an address block."""

    caller: str
    proxy: str
    host: str
    port: int


class EnvoyResources(NamedTuple):
    """The listeners and clusters of an egress proxy, from all of its files."""

    listeners: list[dict[str, Any]]
    clusters: list[dict[str, Any]]


def declared_egress(platform: Platform) -> set[EgressConnection]:
    """The connections out of the cluster that the declared calls and the declared links to address blocks need."""
    called = {
        EgressConnection(
            title(platform, edge.caller.namespace, edge.caller.name),
            title(platform, platform.site.egress, address.egress),
            address.host,
            address.port,
        )
        for edge in platform.graph.edges
        if isinstance(edge.callee, Dependency)
        for address in edge.callee.addresses
        if isinstance(address, Host)
    }
    direct = {
        EgressConnection(title(platform, link.source.namespace, link.source.name), NO_PROXY, link.target.name, port)
        for link in platform.links
        if isinstance(link.source, Peer) and isinstance(link.target, AddressBlock)
        for port in link.target.ports
    }
    return called | direct


def permitted_egress(platform: Platform) -> set[EgressConnection]:
    """The connections out of the cluster that the rendered resources permit."""
    connections, everyone, site = permitted_by_policies(platform), endpoints(platform), platform.site
    proxies = {
        title(platform, component.namespace, component.name): resources
        for component, resources in platform.resources
        if isinstance(component, EgressProxy)
    }
    listeners = {
        (name, listener["address"]["socket_address"]["port_value"]): dict(_hosts(read, listener))
        for name, resources in proxies.items()
        for read in [envoy_resources(resources)]
        for listener in read.listeners
    }
    through = {
        EgressConnection(each.source, each.target, name, host.port)
        for each in connections
        for name, host in listeners.get((each.target, each.port), {}).items()
        if Connection(each.target, PEERED_NETWORK if site.is_private(host) else INTERNET, host.port) in connections
    }
    dns = {(resolver.name, DNS_PORT) for resolver in resolvers(platform)}
    outside = (
        each
        for each in connections
        if everyone[each.target].ip and each.source not in proxies and (each.target, each.port) not in dns
    )
    return through | {EgressConnection(each.source, NO_PROXY, each.target, each.port) for each in outside}


def envoy_resources(resources: Iterable[Resource]) -> EnvoyResources:
    """Envoy's listeners and clusters, read back from an egress proxy's rendered ConfigMaps."""
    maps = (resource["data"] for resource in resources if resource["kind"] == "ConfigMap")
    files = {name: json.loads(text) for data in maps for name, text in data.items()}
    static = files[FILE_NAME]["static_resources"]
    return EnvoyResources(
        listeners=[*static["listeners"], *files[LISTENERS]["resources"]],
        clusters=[*static["clusters"], *files[CLUSTERS]["resources"]],
    )


def _hosts(read: EnvoyResources, listener: Mapping[str, Any]) -> Iterator[tuple[str, Host]]:
    """Each name that a listener admits, with the host behind the name. A filter chain without names admits any name."""
    addresses = {
        cluster["name"]: cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
        for cluster in read.clusters
    }
    for chain in listener["filter_chains"]:
        cluster = chain["filters"][-1]["typed_config"].get("cluster")
        if cluster is not None:
            place = addresses[cluster]["socket_address"]
            host = Host(host=place["address"], port=place["port_value"], egress="read-back")
            names = chain.get("filter_chain_match", {}).get("server_names") or [ANY_HOST]
            yield from ((name if name == host.host else f"{name} as {host.host}", host) for name in names)


def egress_breaches(platform: Platform) -> Iterator[Breach | None]:
    """Check that the rendered resources permit exactly the declared connections out of the cluster."""
    declared, opened = declared_egress(platform), permitted_egress(platform)
    for connection in sorted(declared | opened):
        path = f"{connection.caller} → {connection.proxy} → {connection.host}:{connection.port}"
        if connection not in opened:
            yield Breach(path, "declared, but a NetworkPolicy or the allow-list denies it", "allow_lists")
        elif connection not in declared:
            yield Breach(path, "open, but not declared", "allow_lists")
        else:
            yield None


RULES = (
    Rule(
        id="N05",
        title="each caller reaches exactly the hosts outside the cluster that it declares",
        severity="error",
        rationale="a compromised process sends data to any host that it can reach",
        source="the platform's rules",
        violates="the proxy's allow-list admits a service to a host that none of the service's calls declares",
        holds="the allow-list admits each caller to exactly its declared hosts",
        check=egress_breaches,
    ),
)
