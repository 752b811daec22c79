"""N01, N04, N06 on manifests: each host and port that a container names exists and is reachable."""

from __future__ import annotations

from collections.abc import Iterator

from stack.audit.finding import Breach
from stack.audit.manifests.known import on_manifests
from stack.model.manifests.network import denying, governing
from stack.model.manifests.policies import PolicyPort
from stack.model.manifests.resources import Selector, ServiceSpec
from stack.model.manifests.system import Item, Reference, System

DNS_PORT = 53
DNS_PORT_NAMES = frozenset({"dns", "dns-tcp"})
"""Names of the DNS port in rules of NetworkPolicies."""


def ports_agree(system: System) -> Iterator[Breach | None]:
    """Compare addresses with Services, Services with pods, and probes with containers."""
    for reference in system.references:
        if reference.service is None:
            yield from _missing(system, reference)
        else:
            yield _port_of_service(reference, reference.service)
    for service in system.services:
        yield from _pods_of_service(system, service)
    yield from _probe_ports(system)


def _path(reference: Reference) -> str:
    port = f":{reference.address.port}" if reference.address.port else ""
    return f"{reference.workload.title} → {reference.address.host}{port}"


def _missing(system: System, reference: Reference) -> Iterator[Breach]:
    """The breach of an address that names a missing Service. Skips names that may exist outside the manifests."""
    address, workload = reference.address, reference.workload
    name, _, rest = address.host.partition(".")
    namespace = rest.removesuffix(".cluster.local").removesuffix(".svc") or workload.namespace
    aliases = {host for alias in workload.template.spec.host_aliases for host in alias.hostnames}
    if namespace not in system.namespaces or not system.is_complete(namespace):
        return
    if address.host in aliases or (rest and not address.port):
        return
    others = sorted(service.namespace for service in system.services if service.name == name)
    elsewhere = f"; a Service with that name is in {', '.join(others)}" if others else ""
    yield Breach(
        _path(reference),
        f"{address.named_by} names {address.host}, but no Service of namespace {namespace} has that name{elsewhere}",
        address.named_by,
        where=address.where,
        severity="warning",
    )


def _port_of_service(reference: Reference, service: Item[ServiceSpec]) -> Breach | None:
    """Compare the port with the Service's ports. Headless and ExternalName Services do not limit the ports."""
    ports = sorted(port.port for port in service.spec.ports)
    port = reference.address.port
    if port is None or port in ports or service.spec.headless or service.spec.type == "ExternalName":
        return None
    return Breach(
        _path(reference),
        f"{reference.address.named_by} names port {port}, but {service.title} offers {', '.join(map(str, ports))}",
        reference.address.named_by,
        str(ports[0]) if len(ports) == 1 else "",
        reference.address.where,
    )


def _pods_of_service(system: System, service: Item[ServiceSpec]) -> Iterator[Breach | None]:
    if not service.spec.selector:
        return
    pods = system.pods_of(service)
    if not pods and not system.is_complete(service.namespace):
        return
    if not pods:
        text = f"selector {Selector(match_labels=service.spec.selector).text} selects no pod of these manifests"
        yield Breach(service.title, text, "spec.selector", where=service.at("selector"), severity="warning")
        return
    for number, port in enumerate(service.spec.ports):
        named = isinstance(port.target, str) and all(port.target not in workload.ports for workload in pods)
        text = f"targetPort {port.target} is not the name of a port in {', '.join(pod.title for pod in pods)}"
        yield Breach(service.title, text, "targetPort", where=service.at("ports", number)) if named else None


def _probe_ports(system: System) -> Iterator[Breach | None]:
    for workload in system.workloads:
        for place, index, container in workload.containers:
            names = {port.name for port in container.ports}
            for name, probe in container.probes.items():
                wrong = isinstance(probe.port, str) and not probe.port.isdecimal() and probe.port not in names
                path = f"{workload.title} → {container.name}.{name}"
                text = f"the probe connects to port {probe.port}, but the container has no port with that name"
                yield Breach(path, text, "port", where=workload.at(place, index, name)) if wrong else None


def calls_are_permitted(system: System) -> Iterator[Breach | None]:
    """Check that the policies of the caller and of the pods behind each address permit the connection."""
    for reference in system.references:
        service = reference.service
        if service is None or not system.network_policies:
            continue
        for port in service.spec.ports:
            if port.port == reference.address.port:
                yield from _denials(system, reference, service, port.target)


def _denials(
    system: System, reference: Reference, service: Item[ServiceSpec], target: int | str
) -> Iterator[Breach | None]:
    for pods in system.pods_of(service):
        port = pods.ports.get(target, target)
        if not isinstance(port, int):
            continue
        denied = denying(system, reference.workload, pods, port)
        if denied is None:
            yield None
            continue
        direction, policies = denied
        names = ", ".join(policy.manifest.title for policy in policies)
        text = f"NetworkPolicies {names} apply, but none admits {direction.lower()} to port {port} of {pods.title}"
        yield Breach(_path(reference), text, "NetworkPolicy", where=policies[0].at())


def names_resolve(system: System) -> Iterator[Breach | None]:
    """Check that a workload's policies admit DNS if the workload connects to a Service by name."""
    named = {reference.workload.manifest.identity: reference for reference in system.references if reference.service}
    for reference in named.values():
        policies = governing(system, reference.workload, "Egress")
        rules = [rule for policy in policies for rule in policy.spec.egress]
        if not policies:
            continue
        admitted = any(not rule.ports or any(map(_is_dns, rule.ports)) for rule in rules)
        names = ", ".join(policy.manifest.title for policy in policies)
        text = (
            f"the pods connect to {reference.address.host} by name, but NetworkPolicies {names} admit no egress to"
            f" port {DNS_PORT} over UDP (DNS)"
        )
        where = policies[0].at("egress")
        yield None if admitted else Breach(reference.workload.title, text, "egress", where=where)


def _is_dns(allowed: PolicyPort) -> bool:
    """True if the port, or the range of ports, admits DNS. Resolvers ask over UDP first."""
    if isinstance(allowed.port, int):
        within = allowed.port <= DNS_PORT <= (allowed.end_port or allowed.port)
    else:
        within = allowed.port is None or allowed.port in DNS_PORT_NAMES
    return within and allowed.protocol == "UDP"


RULES = (
    on_manifests("N01", calls_are_permitted),
    on_manifests("N04", ports_agree),
    on_manifests("N06", names_resolve),
)
