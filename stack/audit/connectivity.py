"""N03, N04, N06: callees that refuse a caller, names and ports without a server, and unreachable DNS."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from components.node import Dependency, Gateway, Host, Service
from stack.audit.finding import Breach, Rule
from stack.audit.network import permitted_by_policies, title
from stack.audit.rendered import PROBES, Workload, rendered
from stack.model.egress import egress_port
from stack.model.network_connections import Connection, is_within
from stack.model.platform import Platform

__all__ = ["served_ports"]

NODE_LOCAL_DNS = "169.254.20.10/32"
"""Address of the DNS cache on each node (kubernetes.io, NodeLocal DNSCache)."""
POD_NAME = "statefulset.kubernetes.io/pod-name"
"""Label that the StatefulSet controller gives to each pod. No pod template contains it."""
DNS_PORT = 53
POSTGRESQL_PORT = 5432


def entrances_open(platform: Platform) -> Iterator[Breach | None]:
    """Check that services admit the gateway, and that egress proxies admit the callers of external hosts."""
    permitted_connections, site = permitted_by_policies(platform), platform.site
    for edge in platform.graph.edges:
        source = title(platform, edge.caller.namespace, edge.caller.name)
        if isinstance(edge.caller, Gateway) and isinstance(edge.callee, Service):
            target = title(platform, edge.callee.namespace, edge.callee.name)
            text = f"{edge.callee.name} does not admit the namespace {edge.caller.namespace} on its HTTP port"
            found = Breach(edge.path, text, "NetworkPolicy: ingress", "", edge.call.location)
            yield None if Connection(source, target, edge.callee.http_port) in permitted_connections else found
        for address in edge.callee.addresses if isinstance(edge.callee, Dependency) else ():
            if isinstance(address, Host):
                proxy = title(platform, site.egress, address.egress)
                connection = Connection(source, proxy, egress_port(edge.caller.name))
                text = f"{address.egress} does not admit {edge.caller.name}, which calls {address.host}"
                found = Breach(edge.path, text, "NetworkPolicy: egress", "", edge.call.location)
                yield None if connection in permitted_connections else found


def names_are_served(platform: Platform) -> Iterator[Breach | None]:
    """Check that every cluster address in a bundle or a route names a Service that has the address's port."""
    served, domain = served_ports(platform), f".{platform.site.cluster_domain}"
    for caller, host, port in sorted(set(_used(platform))):
        if host.endswith(domain):
            name = host.removesuffix(domain)
            ports = ", ".join(map(str, sorted(served.get(name, ()))))
            why = f"the Service has only the ports {ports}" if ports else "no such Service"
            found = Breach(f"{caller} → {name}:{port}", f"{why}: the call fails", "the callee's address or port")
            yield None if port in served.get(name, ()) else found


def routes_lead_to_services(platform: Platform) -> Iterator[Breach | None]:
    """Check that each cluster address in a route of the mesh names a Service."""
    served, domain = served_ports(platform), f".{platform.site.cluster_domain}"
    for routed in rendered(platform).of_kind("VirtualService"):
        hosts = {to["destination"]["host"] for http in routed["spec"].get("http", ()) for to in http.get("route", ())}
        for host in sorted(host for host in hosts if host.endswith(domain)):
            name, field = host.removesuffix(domain), "spec.http[].route[].destination.host"
            found = Breach(f"VirtualService {_path(routed)} → {name}", "no such Service: the call fails", field)
            yield None if name in served else found


def services_reach_pods(platform: Platform) -> Iterator[Breach | None]:
    """Check that every Service with a selector selects pods, and that its target ports are ports of their containers.

    A container may listen on an undeclared port. So a target port equal to the Service's port is accepted, too.
    """
    found, behind = rendered(platform), defaultdict[str, list[Workload]](list)
    for workload in found.workloads:
        for service in found.selecting("Service", workload):
            behind[_path(service)].append(workload)
    members = {(each.namespace, pod): each for each in found.workloads for pod in _members(each)}
    for service in found.of_kind("Service"):
        path, selector = _path(service), service["spec"].get("selector") or {}
        member = members.get((service["metadata"].get("namespace", "default"), selector.get(POD_NAME, "")))
        pods = [member] if member else behind[path]
        if selector and not pods:
            yield Breach(f"Service {path}", "its selector matches no pod: calls fail", "spec.selector")
        for workload in pods:
            lost = ", ".join(map(str, _undeclared(service, workload)))
            text = f"{workload.path} has no container port {lost}: calls fail"
            yield Breach(f"Service {path}", text, "spec.ports[].targetPort") if lost else None


def _members(workload: Workload) -> Iterator[str]:
    """The names of the pods of a StatefulSet. Pods of other workloads have random names."""
    if workload.kind == "StatefulSet":
        yield from (f"{workload.name}-{ordinal}" for ordinal in range(workload.spec.get("replicas", 1)))


def probes_reach_containers(platform: Platform) -> Iterator[Breach | None]:
    """Check that each port name in a probe is the name of a port of the probe's container."""
    for workload in rendered(platform).workloads:
        for container in workload.pod["containers"]:
            names = {port.get("name") for port in container.get("ports", ())}
            for name in PROBES:
                for action in ("httpGet", "tcpSocket"):
                    port = container.get(name, {}).get(action, {}).get("port")
                    path = f"{workload.path}: {container['name']}.{name}"
                    text = f"the container has no port named {port}: the probe always fails"
                    lost = isinstance(port, str) and port not in names
                    yield Breach(path, text, f"{name}.{action}.port") if lost else None


def _path(service: Mapping[str, Any]) -> str:
    return f"{service['metadata'].get('namespace')}/{service['metadata']['name']}"


def _undeclared(service: Mapping[str, Any], workload: Workload) -> Iterator[str | int]:
    """The target ports that no container of the workload declares and that differ from the Service's port."""
    ports = [port for container in workload.pod["containers"] for port in container.get("ports", ())]
    known = {port["containerPort"] for port in ports} | {port.get("name") for port in ports}
    for port in service["spec"]["ports"]:
        if (target := port.get("targetPort", port["port"])) not in known | {port["port"]}:
            yield target


def served_ports(platform: Platform) -> dict[str, set[int]]:
    """`name.namespace` of every Service → its ports. The Services that CloudNativePG creates are included."""
    found, ports = rendered(platform), defaultdict[str, set[int]](set)
    for service in found.of_kind("Service"):
        metadata = service["metadata"]
        ports[f"{metadata['name']}.{metadata['namespace']}"] = {port["port"] for port in service["spec"]["ports"]}
    for kind, endings in (("Pooler", ("",)), ("Cluster", ("-rw", "-ro", "-r"))):
        for made in found.of_kind(kind):
            for ending in endings:
                ports[f"{made['metadata']['name']}{ending}.{made['metadata']['namespace']}"].add(POSTGRESQL_PORT)
    return ports


def _used(platform: Platform) -> Iterator[tuple[str, str, int]]:
    """Caller, host and port of every address in a bundle or a route."""
    for service in platform.microservices:
        for call in service.bundle.outbound:
            yield from ((service.name, each.host, each.port) for each in service.bundle.addresses_of(call))
    for route in rendered(platform).gateway_routes:
        yield from (("gateway", node["host"], node["port"]) for node in route["upstream"]["nodes"])


def names_resolve(platform: Platform) -> Iterator[Breach | None]:
    """Check that policies permit all pods to reach the DNS pods, the node-local cache and the DNS Service's address.

    Resolvers ask over UDP first. N01 also checks TCP, for answers that are too long for UDP.
    """
    found, wanted = rendered(platform), {NODE_LOCAL_DNS, *platform.environment.settings.cluster_dns}
    for namespace in sorted({workload.namespace for workload in found.workloads}):
        blocks: list[Mapping[str, Any]] = []
        selected = False
        for policy in found.of_kind("NetworkPolicy"):
            if policy["metadata"].get("namespace") == namespace and not policy["spec"].get("podSelector"):
                for rule in policy["spec"].get("egress", ()):
                    if _permits_dns(rule):
                        peers = rule.get("to") or [{"ipBlock": {"cidr": each}, "podSelector": {}} for each in wanted]
                        blocks += [peer["ipBlock"] for peer in peers if "ipBlock" in peer]
                        selected |= any("podSelector" in peer for peer in peers)
        closed = [each for each in sorted(wanted) if not any(_contains(block, each) for block in blocks)]
        closed += [] if selected else ["the DNS pods"]
        text = (
            f"no NetworkPolicy permits DNS over UDP from all pods of the namespace to {', '.join(closed)}:"
            " if the cluster's DNS answers there, names do not resolve"
        )
        yield Breach(namespace, text, "NetworkPolicy allow-dns") if closed else None


def _permits_dns(rule: Mapping[str, Any]) -> bool:
    """True if an egress rule permits UDP to the DNS port. A rule without ports permits every port."""
    for port in rule.get("ports") or [{"protocol": "UDP"}]:
        first = port.get("port", DNS_PORT)
        if port.get("protocol") == "UDP" and isinstance(first, int) and first <= DNS_PORT <= port.get("endPort", first):
            return True
    return False


def _contains(block: Mapping[str, Any], cidr: str) -> bool:
    """True if an `ipBlock` contains the whole network `cidr`."""
    network = ip_network(cidr)
    return all(is_within(block, str(end)) for end in (network.network_address, network.broadcast_address))


RULES = (
    Rule(
        id="N03",
        title="services admit the gateway, and egress proxies admit their callers",
        severity="error",
        rationale="if a service refuses the gateway's namespace, all requests from the gateway to it time out",
        source="the rendered NetworkPolicies",
        violates="the NetworkPolicy of service orders admits only services, and the gateway calls service orders",
        holds="the NetworkPolicy admits the gateway's namespace on the HTTP port of service orders",
        check=entrances_open,
    ),
    Rule(
        id="N04",
        title="every called name and port is served",
        severity="error",
        rationale="a call to a name without a Service, or to a port that nothing serves, fails only at run time",
        source="the rendered Services",
        violates="a bundle calls the Service prices-grpc on port 9001, and the Service has port 9000",
        holds="the bundle calls port 9000",
        check=lambda platform: (
            *names_are_served(platform),
            *routes_lead_to_services(platform),
            *services_reach_pods(platform),
            *probes_reach_containers(platform),
        ),
    ),
    Rule(
        id="N06",
        title="names resolve in every usual mode of cluster DNS",
        severity="error",
        rationale="with a node-local DNS cache, pods query an address that a rule for kube-dns pods does not permit",
        source="kubernetes#70555; NodeLocal DNSCache",
        violates="a policy that permits DNS only to the pods of kube-dns",
        holds="a policy that also permits 169.254.20.10 and the address of the DNS Service",
        check=names_resolve,
    ),
)
