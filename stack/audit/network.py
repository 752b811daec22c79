"""N01, N02: the network permits exactly the declared calls."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from ipaddress import ip_network

from components.edge.apisix import PORTS
from components.links import peer
from components.network_policy import (
    DNS_LABEL,
    DNS_NAMESPACE,
    DNS_PODS,
    DNS_PORT,
    NODE_LOCAL_DNS,
    AddressBlock,
    NetworkEnd,
    Peer,
)
from components.node import Gateway, Host, Service
from stack.audit.finding import Breach, Rule
from stack.audit.rendered import rendered
from stack.model.egress import allow_lists
from stack.model.network_connections import Connection, Endpoint, egress_ports, is_within, permitted
from stack.model.platform import Platform
from stack.model.site import Site

__all__ = ["endpoints", "title"]

INTERNET = "the internet"
INTERNET_V6 = "the internet over IPv6"
PEERED_NETWORK = "the peered network"
Place = tuple[str, str]
"""Namespace and name of pods."""


@lru_cache(maxsize=4)
def titles(platform: Platform) -> dict[Place, str]:
    """Place of pods → their name. The name includes the namespace if another namespace has pods of the same name."""
    places = {(end.namespace, end.name) for end in _peers(platform)}
    count = Counter(name for _, name in places)
    return {(namespace, name): name if count[name] == 1 else f"{namespace}/{name}" for namespace, name in places}


@lru_cache(maxsize=4)
def endpoints(platform: Platform) -> dict[str, Endpoint]:
    """Every declared endpoint, and endpoints that represent the rest of the cluster and the networks outside."""
    # The audit tests every declared port, every port in a policy, and the number after each of these ports. So it also
    # finds a range that opens undeclared ports. Example: only 8000 is declared. A policy for 7999 to 8100 opens 7999,
    # and 7999 is a port in a policy. A policy for 8000 to 8100 opens 8001, and 8001 is the number after 8000.
    named = {80, *_declared_ports(platform), *egress_ports(rendered(platform).network_policies)}
    outside = tuple(sorted(named | {port + 1 for port in named}))
    namespaces = sorted({service.namespace for service in platform.graph.services})
    ours = sorted(found["metadata"]["name"] for found in rendered(platform).of_kind("Namespace"))
    found = [
        *_pods(platform),
        *_blocks(platform),
        *resolvers(platform),
        *(Endpoint(f"stranger in {namespace}", namespace, {}, (8080, 9000)) for namespace in namespaces),
        # If no policy selects the new pod by its labels, only the policies for all pods of the namespace govern it.
        *(Endpoint(f"a new pod in {namespace}", namespace, {}, (8080,), governed=True) for namespace in ours),
        Endpoint("stranger in another namespace", "default", {}, (8080, 9000)),
        Endpoint("stranger in the cluster's network", ip="10.0.0.1", ports=outside),
        Endpoint("the cloud's metadata service", ip="169.254.169.254", ports=outside),
        Endpoint(INTERNET, ip="203.0.113.1", ports=outside),
        Endpoint(INTERNET_V6, ip="2001:db8::1", ports=outside),
        # The last host address represents the peered network. The object store's block is a separate endpoint.
        Endpoint(PEERED_NETWORK, ip=str(ip_network(platform.site.peered_network)[-2]), ports=outside),
    ]
    return {endpoint.name: endpoint for endpoint in found}


def resolvers(platform: Platform) -> Iterator[Endpoint]:
    """The DNS resolvers that pods query, with and without the node-local cache."""
    for name in DNS_PODS:
        yield Endpoint(name, DNS_NAMESPACE, {DNS_LABEL: name}, (DNS_PORT,))
    for cidr in (NODE_LOCAL_DNS, *platform.environment.settings.cluster_dns):
        yield Endpoint(f"DNS at {cidr}", ip=str(ip_network(cidr).network_address), ports=(DNS_PORT,))


@lru_cache(maxsize=4)
def _deployed(platform: Platform) -> frozenset[Peer]:
    """The pods of every component, without ports. Cached: to name its pods, a component must build its workloads."""
    return frozenset(
        peer(component.namespace, name, label)
        for component in platform.components
        for pods in component.pods
        for label, name in pods.items()
    )


def _peers(platform: Platform) -> Iterator[Peer]:
    yield from _deployed(platform)
    yield from (end for link in platform.links for end in (link.source, link.target) if isinstance(end, Peer))


def _pods(platform: Platform) -> Iterator[Endpoint]:
    """The pods of every component and link. They are governed if one of our components deploys them."""
    ports, names, labels = _listening(platform), _port_names(platform), {}
    for end in _peers(platform):
        place = end.namespace, end.name
        labels[place] = end.label
        ports[place].update(end.ports)
    for place, title in titles(platform).items():
        namespace, name = place
        governed = peer(namespace, name, labels[place]) in _deployed(platform)
        yield Endpoint(
            title,
            namespace,
            {labels[place]: name},
            frozenset(ports[place]),
            names[namespace, labels[place], name],
            governed=governed,
        )


def _port_names(platform: Platform) -> defaultdict[tuple[str, str, str], dict[str, int]]:
    """Namespace, label and its value → the named container ports of the pods that have the label."""
    names: defaultdict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    for workload in rendered(platform).pods:
        ports = [port for container in workload.pod["containers"] for port in container.get("ports", ())]
        for label in workload.labels.items():
            names[workload.namespace, *label].update(
                (port["name"], port["containerPort"]) for port in ports if "name" in port
            )
    return names


def _listening(platform: Platform) -> defaultdict[Place, set[int]]:
    """The ports of the services and the gateway, including ports that no link uses."""
    ports: defaultdict[Place, set[int]] = defaultdict(set)
    for node in platform.graph.nodes.values():
        if isinstance(node, Service):
            ports[node.namespace, node.name] = {node.grpc_port, node.http_port}
        elif isinstance(node, Gateway):
            ports[node.namespace, node.name] = set(PORTS.model_dump().values())
    return ports


def _targeted(platform: Platform) -> Iterator[AddressBlock]:
    """The networks outside the cluster that a link targets."""
    return (link.target for link in platform.links if isinstance(link.target, AddressBlock))


def _blocks(platform: Platform) -> Iterator[Endpoint]:
    for block in {block.name: block for block in _targeted(platform)}.values():
        yield Endpoint(block.name, ip=str(ip_network(block.cidr).network_address), ports=block.ports)


def _declared_ports(platform: Platform) -> Iterator[int]:
    """The declared ports of hosts and networks outside the cluster."""
    yield from (port for block in _targeted(platform) for port in block.ports)
    for allowed in allow_lists(platform.graph).values():
        yield from (host.port for each in allowed for host in each.hosts)


def declared(platform: Platform) -> set[Connection]:
    """The declared connections: of every link, from proxies to declared hosts, and from our pods to DNS resolvers."""
    everyone = endpoints(platform)
    # Blocks match only the few endpoints outside. To search all endpoints for each link would take quadratic time.
    outside = {found.name: found for found in everyone.values() if found.ip}
    governed = {found.name for found in everyone.values() if found.governed}
    connections = {Connection(name, resolver.name, DNS_PORT) for name in governed for resolver in resolvers(platform)}
    connections.update(_linked(platform, everyone, outside))
    for proxy, allowed in allow_lists(platform.graph).items():
        for host in {host for each in allowed for host in each.hosts}:
            connections.update(
                _proxy_connections(title(platform, platform.site.egress, proxy), host, platform.site, outside)
            )
    # If we deploy neither end, no policy of ours governs the connection.
    return {each for each in connections if each.source in governed or each.target in governed}


def _proxy_connections(proxy: str, host: Host, site: Site, outside: Mapping[str, Endpoint]) -> Iterator[Connection]:
    """Connections from a proxy to each endpoint in a host's network. A NetworkPolicy selects a network, not a host."""
    block = site.network_of(host).selectors()["ipBlock"]
    for found in outside.values():
        if found.ip and is_within(block, found.ip) and host.port in found.ports:
            yield Connection(proxy, found.name, host.port)


def _linked(
    platform: Platform, everyone: Mapping[str, Endpoint], outside: Mapping[str, Endpoint]
) -> Iterator[Connection]:
    for link in platform.links:
        for source in _names(platform, link.source, outside):
            for target in _names(platform, link.target, outside):
                open_ports = set(link.target.ports) & set(everyone[target].ports)
                yield from (Connection(source, target, port) for port in open_ports)


def _names(platform: Platform, end: NetworkEnd, outside: Mapping[str, Endpoint]) -> list[str]:
    """The endpoints of one end of a link: the peer itself, or every outside endpoint within the block."""
    if isinstance(end, Peer):
        return [title(platform, end.namespace, end.name)]
    block = end.selectors()["ipBlock"]
    return [found.name for found in outside.values() if found.ip and is_within(block, found.ip)]


def title(platform: Platform, namespace: str, name: str) -> str:
    """The name that findings give to the pods."""
    return titles(platform).get((namespace, name), name)


@lru_cache(maxsize=4)
def permitted_by_policies(platform: Platform) -> frozenset[Connection]:
    """The connections that the rendered policies permit and that begin or end at one of our pods."""
    everyone = endpoints(platform)
    connections = permitted(rendered(platform).network_policies, everyone.values())
    return frozenset(each for each in connections if everyone[each.source].governed or everyone[each.target].governed)


def declared_is_permitted(platform: Platform) -> Iterator[Breach | None]:
    """Check that the policies permit every declared connection."""
    permitted_connections = permitted_by_policies(platform)
    for connection in sorted(declared(platform), key=_text):
        yield (
            None
            if connection in permitted_connections
            else Breach(
                _text(connection),
                "declared, but a NetworkPolicy of the caller or the callee denies it",
                "NetworkPolicy",
            )
        )


def permitted_is_declared(platform: Platform) -> Iterator[Breach | None]:
    """Check that the policies permit no undeclared connection."""
    known = declared(platform)
    for connection in sorted(permitted_by_policies(platform), key=_text):
        yield (
            None
            if connection in known
            else Breach(_text(connection), "permitted by the NetworkPolicies, but not declared", "NetworkPolicy")
        )


def _text(connection: Connection) -> str:
    return f"{connection.source} → {connection.target}:{connection.port}"


RULES = (
    Rule(
        id="N01",
        title="every declared call is permitted",
        severity="error",
        rationale="if a NetworkPolicy drops a call, the call times out in production, and no review shows the fault",
        source="the rendered NetworkPolicies",
        violates="service orders calls service stock, but the NetworkPolicy of service stock admits no caller",
        holds="the NetworkPolicy of service stock admits service orders on the port of the call",
        check=declared_is_permitted,
    ),
    Rule(
        id="N02",
        title="every permitted call is declared",
        severity="error",
        rationale="if nobody needs an open connection, only an intruder uses it, to reach further services",
        source="the rendered NetworkPolicies",
        violates="the NetworkPolicy of service prices admits service orders on port 8080, but no call uses that port",
        holds="the NetworkPolicy of service prices admits service orders only on the port of the calls",
        check=permitted_is_declared,
    ),
)
