"""The steps of a connection: DNS, name, NetworkPolicies, mesh and egress proxy, each from the rendered resources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from components.network_policy import DNS_PODS, DNS_PORT
from components.node import Caller, Dependency, External, Gateway, Host, Service
from stack.audit.connectivity import served_ports
from stack.audit.egress import EgressConnection, permitted_egress
from stack.audit.network import endpoints, title
from stack.audit.rendered import rendered
from stack.model.call_graph import Edge
from stack.model.egress import egress_port
from stack.model.links import external_block
from stack.model.network_connections import Direction, Endpoint, decision
from stack.model.platform import Platform


class Step(NamedTuple):
    """One step from a declared call to an open connection."""

    title: str
    text: str
    holds: bool


class Destination(NamedTuple):
    """One address to which a caller connects."""

    end: str
    """Name of the pods or of the address block, as the audit's network rules use it."""
    host: str
    port: int
    namespace: str = ""
    """Namespace of the Service at this address. Empty for an address outside the cluster."""
    beyond: Host | None = None
    """The host behind the egress proxy at this address. `None` if the address is not an egress proxy."""


def connection(platform: Platform, edge: Edge) -> Iterator[Step]:
    """Every step from the caller of an edge to each address of its callee."""
    caller = title(platform, edge.caller.namespace, edge.caller.name)
    resolver = Destination(DNS_PODS[0], DNS_PODS[0], DNS_PORT)
    yield _policies(platform, "Egress", "DNS", caller, resolver)
    for place in _destinations(platform, edge):
        yield _served(platform, place)
        yield _policies(platform, "Egress", "egress", caller, place)
        if place.namespace:
            yield _policies(platform, "Ingress", "ingress", caller, place)
        if platform.environment.settings.mesh:
            yield from _mesh(platform, edge.caller, place)
        if place.beyond:
            yield _proxy(platform, caller, place, place.beyond)


def _destinations(platform: Platform, edge: Edge) -> Iterator[Destination]:
    site, callee = platform.site, edge.callee
    if isinstance(callee, Service):
        end = title(platform, callee.namespace, callee.name)
        over_http = isinstance(edge.caller, Gateway)
        host = site.http_host(callee) if over_http else site.grpc_host(callee)
        yield Destination(end, host, callee.http_port if over_http else callee.grpc_port, callee.namespace)
    if not isinstance(callee, Dependency):
        return
    for address in callee.addresses:
        if isinstance(address, Host):
            end, host = title(platform, site.egress, address.egress), site.host(address.egress, site.egress)
            yield Destination(end, host, egress_port(edge.caller.name), site.egress, address)
        elif isinstance(address, External):
            yield Destination(external_block(callee, address).name, address.host, address.port)
        else:
            end, host = (
                title(platform, address.namespace, address.service),
                site.host(address.service, address.namespace),
            )
            yield Destination(end, host, address.port, address.namespace)


def _served(platform: Platform, place: Destination) -> Step:
    at = f"{place.host}:{place.port}"
    if not place.namespace:
        return Step("name", f"{at} is outside the cluster", holds=True)
    name = place.host.removesuffix(f".{platform.site.cluster_domain}")
    ports = served_ports(platform).get(name)
    if ports is None:
        return Step("name", f"{at}: no Service has this name", holds=False)
    if place.port not in ports:
        return Step("name", f"{at}: the Service has only the ports {', '.join(map(str, sorted(ports)))}", holds=False)
    return Step("name", f"{at} is a port of Service {place.namespace}/{name.partition('.')[0]}", holds=True)


def _policies(platform: Platform, direction: Direction, step: str, caller: str, place: Destination) -> Step:
    everyone = endpoints(platform)
    source, target = (everyone.get(name, Endpoint(name)) for name in (caller, place.end))
    decided = decision(rendered(platform).network_policies, direction, source, target, place.port)
    own = caller if direction == "Egress" else place.end
    ends = f"{caller} → {place.end}:{place.port}"
    if decided.admitting:
        return Step(step, f"NetworkPolicy {', '.join(decided.admitting)} admits {ends}", holds=True)
    if decided.governing:
        return Step(step, f"no NetworkPolicy admits {ends}; {', '.join(decided.governing)} govern {own}", holds=False)
    return Step(step, f"no NetworkPolicy of the platform governs {own}", holds=True)


def _mesh(platform: Platform, caller: Caller, place: Destination) -> Iterator[Step]:
    """The hosts that the caller's proxy knows, and the callers that the callee's proxy admits."""
    found = rendered(platform)
    sidecars = [each for each in found.of_kind("Sidecar") if _has_name(each, caller.namespace, caller.name)]
    known = {host for each in sidecars for rule in each["spec"]["egress"] for host in rule["hosts"]}
    wanted = f"{place.namespace or '*'}/{place.host}"
    knows = "knows" if wanted in known else "does not know"
    yield Step("mesh", f"Sidecar {caller.namespace}/{caller.name} {knows} {wanted}", holds=wanted in known)
    for policy in found.of_kind("AuthorizationPolicy"):
        if place.beyond is None and _has_name(policy, place.namespace, place.end.rpartition("/")[2]):
            name = f"{policy['metadata']['namespace']}/{policy['metadata']['name']}"
            identity = f"ns/{caller.namespace}/sa/{caller.name}"
            admits = any(_admits(rule, identity, place.port) for rule in policy["spec"]["rules"])
            verb = "admits" if admits else "does not admit"
            yield Step("mesh", f"AuthorizationPolicy {name} {verb} {identity} on port {place.port}", holds=admits)


def _has_name(resource: Mapping[str, Any], namespace: str, name: str) -> bool:
    metadata = resource["metadata"]
    return bool(metadata["namespace"] == namespace and metadata["name"] == name)


def _admits(rule: Mapping[str, Any], identity: str, port: int) -> bool:
    principals = [each for source in rule.get("from", ()) for each in source["source"].get("principals", ())]
    ports = [each for operation in rule.get("to", ()) for each in operation["operation"].get("ports", ())]
    return str(port) in ports and any(each.endswith(f"/{identity}") for each in principals)


def _proxy(platform: Platform, caller: str, place: Destination, host: Host) -> Step:
    opens = EgressConnection(caller, place.end, host.host, host.port) in permitted_egress(platform)
    verb = "lets" if opens else "does not let"
    return Step("egress proxy", f"{place.end} {verb} {caller} reach {host.host}:{host.port}", holds=opens)
