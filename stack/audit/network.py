"""N01, N02: the network permits exactly the declared calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from components.edge.apisix import PORTS
from components.edge.envoy import STATUS_PORT
from components.network_policy import DNS_PORT, NAME_LABEL
from components.node import Dependency, Gateway, Host, Service
from stack.audit.finding import Finding, Rule
from stack.catalog import targets
from stack.egress import allow_lists, egress_port, is_private
from stack.network_reach import Endpoint, Reach, permitted
from stack.policy_bundles import APPS
from stack.topology import Platform

DNS = "kube-dns"
INTERNET = "the internet"
PEERED_NETWORK = "the peered network"


def endpoints(platform: Platform) -> dict[str, Endpoint]:
    """Everything that is declared, and strangers that nobody declared, which must reach nothing."""
    found = [
        Endpoint(
            service.name,
            APPS,
            {NAME_LABEL: service.name},
            tuple(sorted({service.grpc_port, service.http_port})),
            governed=True,
        )
        for service in platform.graph.services
    ]
    guarded = platform.environment.quotas
    found += [_pod(*place, governed=place[0] in guarded) for place in sorted(_places(platform))]
    found.append(Endpoint(DNS, "kube-system", {"k8s-app": "kube-dns"}, (DNS_PORT,)))
    found += [
        Endpoint("stranger in the services' namespace", APPS, {}, (8080, 9000)),
        Endpoint("stranger in another namespace", "default", {}, (8080, 9000)),
        Endpoint("stranger in the cluster's network", ip="10.0.0.1", ports=(443, 10250)),
        Endpoint("the cloud's metadata service", ip="169.254.169.254", ports=(80, 443)),
        Endpoint(INTERNET, ip="203.0.113.1", ports=(80, *_host_ports(platform))),
        Endpoint(PEERED_NETWORK, ip="10.200.0.1", ports=(80, *_host_ports(platform))),
    ]
    return {endpoint.name: endpoint for endpoint in found}


def _places(platform: Platform) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Namespace, name and ports of everything declared that is not a service of ours."""
    yield targets.OBSERVABILITY, targets.COLLECTOR, (targets.COLLECTOR_PORT, targets.COLLECTOR_HTTP_PORT)
    yield targets.OBSERVABILITY, targets.PROMETHEUS, (9090,)
    for proxy, allowed in allow_lists(platform.graph).items():
        yield targets.EGRESS, proxy, (STATUS_PORT, *(each.port for each in allowed))
    for node in platform.graph.nodes.values():
        if isinstance(node, Gateway):
            yield node.namespace, node.name, (PORTS.http, PORTS.https, PORTS.metrics, PORTS.status)
        elif isinstance(node, Dependency):
            for address in node.addresses:
                if not isinstance(address, Host):
                    yield address.namespace, address.service, (address.port,)


def _host_ports(platform: Platform) -> tuple[int, ...]:
    lists = (each for allowed in allow_lists(platform.graph).values() for each in allowed)
    return tuple(sorted({host.port for each in lists for host in each.hosts}))


def network_of(host: Host) -> str:
    """The endpoint that a host outside stands for: what its address block tells apart, and no more."""
    return PEERED_NETWORK if is_private(host) else INTERNET


def _pod(namespace: str, name: str, ports: tuple[int, ...], *, governed: bool) -> Endpoint:
    return Endpoint(name, namespace, {NAME_LABEL: name}, ports, governed=governed)


def declared(platform: Platform) -> set[Reach]:
    """The ways that declared calls take, with telemetry, scraping and DNS."""
    ways: set[Reach] = set()
    for edge in platform.graph.edges:
        if isinstance(edge.callee, Service):
            port = edge.callee.http_port if isinstance(edge.caller, Gateway) else edge.callee.grpc_port
            ways.add(Reach(edge.caller.name, edge.callee.name, port))
        elif isinstance(edge.callee, Dependency):
            for address in edge.callee.addresses:
                if isinstance(address, Host):
                    ways.add(Reach(edge.caller.name, address.egress, egress_port(edge.caller.name)))
                    ways.add(Reach(address.egress, network_of(address), address.port))
                else:
                    ways.add(Reach(edge.caller.name, address.service, address.port))
    for service in platform.graph.services:
        ways.add(Reach(service.name, targets.COLLECTOR, targets.COLLECTOR_PORT))
        ways.add(Reach(targets.PROMETHEUS, service.name, service.http_port))
        ways.add(Reach(service.name, DNS, DNS_PORT))
    for proxy in allow_lists(platform.graph):
        ways.add(Reach(targets.PROMETHEUS, proxy, STATUS_PORT))
        ways.add(Reach(proxy, DNS, DNS_PORT))
    if gateway := platform.graph.gateway:
        ways |= _entrance(gateway, endpoints(platform))
    return ways


def _entrance(gateway: Gateway, everyone: Mapping[str, Endpoint]) -> set[Reach]:
    """Every address may come in; what goes out beside the calls is traces, names and nothing else."""
    addresses = [endpoint.name for endpoint in everyone.values() if endpoint.ip]
    return {
        *(Reach(name, gateway.name, port) for name in addresses for port in (PORTS.http, PORTS.https)),
        Reach(targets.PROMETHEUS, gateway.name, PORTS.metrics),
        Reach(gateway.name, targets.COLLECTOR, targets.COLLECTOR_HTTP_PORT),
        Reach(gateway.name, DNS, DNS_PORT),
    }


@lru_cache(maxsize=4)
def reached(platform: Platform) -> frozenset[Reach]:
    """The ways that the rendered policies permit and in which a pod of ours takes part."""
    everyone = endpoints(platform)
    resources = [resource for component in platform.components for resource in component.resources()]
    ways = permitted(resources, everyone.values())
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
