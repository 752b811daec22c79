"""N01, N02: the network permits exactly the declared calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from ipaddress import ip_network

from components.edge.apisix import PORTS
from components.network_policy import DNS_PORT, NAME_LABEL, AddressBlock, NetworkEnd, Peer
from components.node import Dependency, Gateway, Host, InCluster, Service
from stack.audit.finding import Finding, Rule
from stack.audit.rendered import rendered
from stack.model.egress import allow_lists, egress_port
from stack.model.network_reach import Endpoint, Reach, egress_ports, is_within, permitted
from stack.model.platform import Platform
from stack.model.site import Site

DNS = "kube-dns"
INTERNET = "the internet"
PEERED_NETWORK = "the peered network"


@lru_cache(maxsize=4)
def endpoints(platform: Platform) -> dict[str, Endpoint]:
    """Everything that is declared, and strangers that nobody declared, which must reach nothing."""
    found = list(_others(platform))
    # With every port that some policy opens, so that one that is open to anywhere is seen, whatever it was meant for.
    outside = tuple(sorted({80, *_host_ports(platform), *egress_ports(rendered(platform).network_policies)}))
    found += [
        Endpoint(
            service.name,
            service.namespace,
            {NAME_LABEL: service.name},
            tuple(sorted({service.grpc_port, service.http_port})),
            governed=True,
        )
        for service in platform.graph.services
    ]
    namespaces = {service.namespace for service in platform.graph.services}
    found.append(Endpoint(DNS, "kube-system", {"k8s-app": "kube-dns"}, (DNS_PORT,)))
    found += [
        *(Endpoint(f"stranger in {namespace}", namespace, {}, (8080, 9000)) for namespace in sorted(namespaces)),
        Endpoint("stranger in another namespace", "default", {}, (8080, 9000)),
        Endpoint("stranger in the cluster's network", ip="10.0.0.1", ports=outside),
        Endpoint("the cloud's metadata service", ip="169.254.169.254", ports=outside),
        Endpoint(INTERNET, ip="203.0.113.1", ports=outside),
        # Its last address: the object store's block, which has a name of its own, lies in it too.
        Endpoint(PEERED_NETWORK, ip=str(ip_network(platform.site.peered_network)[-2]), ports=outside),
    ]
    return {endpoint.name: endpoint for endpoint in found}


def _others(platform: Platform) -> Iterator[Endpoint]:
    """Everything declared that is not a service of ours, each once; governed where a component of ours deploys it."""
    deployed = {(component.namespace, *pods.items()) for component in platform.components for pods in component.pods}
    ports: dict[Peer, set[int]] = defaultdict(set)
    for peer in _peers(platform):
        ports[peer.model_copy(update={"ports": (), "datagrams": ()})].update(peer.ports)
    for peer, used in ports.items():
        labels = {peer.label: peer.name}
        governed = (peer.namespace, *labels.items()) in deployed
        yield Endpoint(peer.name, peer.namespace, labels, frozenset(used), governed=governed)
    for block in _blocks(platform):
        yield Endpoint(block.name, ip=str(ip_network(block.cidr)[0]), ports=block.ports)


def _blocks(platform: Platform) -> Iterator[AddressBlock]:
    targeted = (link.target for link in platform.links if isinstance(link.target, AddressBlock))
    yield from {block.name: block for block in targeted}.values()


def _peers(platform: Platform) -> Iterator[Peer]:
    for namespace, name, ports in _places(platform):
        yield Peer(namespace=namespace, name=name, ports=ports)
    for node in platform.graph.nodes.values():
        if isinstance(node, Dependency):
            for address in node.addresses:
                if isinstance(address, InCluster):
                    yield Peer(
                        namespace=address.namespace, name=address.service, ports=(address.port,), label=address.label
                    )
    for link in platform.links:
        yield from (end for end in (link.source, link.target) if isinstance(end, Peer))


def _places(platform: Platform) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Namespace, name and ports of what the platform's services rely on beside their dependencies."""
    site = platform.site
    for peer in (site.collector, site.prometheus):
        yield peer.namespace, peer.name, peer.ports
    for proxy, allowed in allow_lists(platform.graph).items():
        yield site.egress, proxy, tuple(each.port for each in allowed)
    for node in platform.graph.nodes.values():
        if isinstance(node, Gateway):
            yield node.namespace, node.name, tuple(PORTS.model_dump().values())


def _host_ports(platform: Platform) -> Iterator[int]:
    for allowed in allow_lists(platform.graph).values():
        yield from (host.port for each in allowed for host in each.hosts)


def declared(platform: Platform) -> set[Reach]:
    """The ways that declared calls take, with telemetry, scraping and DNS."""
    ways: set[Reach] = set()
    everyone, site = endpoints(platform), platform.site
    # A few of them: to look at all for each call would grow with the square.
    outside = {found.name: found for found in everyone.values() if found.ip}
    for edge in platform.graph.edges:
        if isinstance(edge.callee, Service):
            port = edge.callee.http_port if isinstance(edge.caller, Gateway) else edge.callee.grpc_port
            ways.add(Reach(edge.caller.name, edge.callee.name, port))
        elif isinstance(edge.callee, Dependency):
            for address in edge.callee.addresses:
                if isinstance(address, Host):
                    ways.add(Reach(edge.caller.name, address.egress, egress_port(edge.caller.name)))
                    ways |= set(_towards(address, site, outside))
                else:
                    ways.add(Reach(edge.caller.name, address.service, address.port))
    ways |= set(_linked(platform, everyone))
    for service in platform.graph.services:
        ways |= {Reach(service.name, site.collector.name, port) for port in site.collector.ports}
        ways.add(Reach(site.prometheus.name, service.name, service.http_port))
        ways.add(Reach(service.name, DNS, DNS_PORT))
    governed = {found.name for found in everyone.values() if found.governed}
    ways |= {Reach(name, DNS, DNS_PORT) for name in governed}
    # Where neither end is deployed by us, no policy of ours speaks about the way.
    return {way for way in ways if way.source in governed or way.target in governed}


def _towards(host: Host, site: Site, outside: Mapping[str, Endpoint]) -> Iterator[Reach]:
    """From a host's proxy to all that stands in the host's network: a policy tells no more of them apart."""
    for name in _names(site.network_of(host), outside):
        if host.port in outside[name].ports:
            yield Reach(host.egress, name, host.port)


def _linked(platform: Platform, everyone: Mapping[str, Endpoint]) -> Iterator[Reach]:
    for link in platform.links:
        for source in _names(link.source, everyone):
            for target in _names(link.target, everyone):
                open_ports = set(link.target.ports) & set(everyone[target].ports)
                yield from (Reach(source, target, port) for port in open_ports if source != target)


def _names(end: NetworkEnd, everyone: Mapping[str, Endpoint]) -> list[str]:
    """A peer is one endpoint; a block is each of those outside whose address it holds."""
    if isinstance(end, Peer):
        return [end.name]
    block = end.selectors()["ipBlock"]
    return [found.name for found in everyone.values() if found.ip and is_within(block, found.ip)]


@lru_cache(maxsize=4)
def reached(platform: Platform) -> frozenset[Reach]:
    """The ways that the rendered policies permit and in which a pod of ours takes part."""
    everyone = endpoints(platform)
    ways = permitted(rendered(platform).network_policies, everyone.values())
    return frozenset(way for way in ways if everyone[way.source].governed or everyone[way.target].governed)


def declared_is_permitted(platform: Platform) -> Iterator[Finding | None]:
    """No declared way is closed."""
    open_ways = reached(platform)
    for way in sorted(declared(platform), key=_text):
        yield (
            None
            if way in open_ways
            else Finding(
                "N01", "error", _text(way), "declared, and the NetworkPolicies of its ends deny it", "NetworkPolicy"
            )
        )


def permitted_is_declared(platform: Platform) -> Iterator[Finding | None]:
    """No undeclared way is open."""
    known = declared(platform)
    for way in sorted(reached(platform), key=_text):
        yield (
            None
            if way in known
            else Finding(
                "N02", "error", _text(way), "permitted by the NetworkPolicies, and nobody declared it", "NetworkPolicy"
            )
        )


def _text(way: Reach) -> str:
    return f"{way.source} → {way.target}:{way.port}"


RULES = (
    Rule("N01", "every declared call is permitted", "the rendered NetworkPolicies", declared_is_permitted),
    Rule("N02", "every permitted call is declared", "the rendered NetworkPolicies", permitted_is_declared),
)
