"""Egress: the hosts outside the cluster that each caller may reach, each with its proxy and port.

The declared calls determine these hosts. Each caller has its own port on a proxy, and the proxy's NetworkPolicy admits
only that caller's pods to the port. So the port tells the proxy who calls. Certificates and a mesh are not needed.
No caller can pretend to be another caller. The port is computed from the caller's name. So it stays the same when other
callers change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from zlib import crc32

from voice_policies import Fault, InvalidInputError

from components.edge.envoy import AllowList
from components.network_policy import AddressBlock
from components.node import Caller, Dependency, Host
from stack.model.call_graph import CallGraph
from stack.model.site import PUBLIC_NETWORK, Site

__all__ = ["allow_lists", "egress_port", "outward"]

PORTS = range(20_000, 30_000)
"""Ports of the callers, below the node ports (30000) and the ports of outgoing connections (32768)."""


def egress_port(caller: str) -> int:
    """The port of this caller on every egress proxy."""
    return PORTS[crc32(caller.encode()) % len(PORTS)]


def proxy_address(site: Site, host: Host, caller: Caller) -> str:
    """The `host:port` of the egress proxy through which a caller reaches a host."""
    return f"{site.host(host.egress, site.egress)}:{egress_port(caller.name)}"


def allow_lists(graph: CallGraph) -> dict[str, tuple[AllowList, ...]]:
    """The hosts that each caller may reach through each proxy.

    Raises `InvalidInputError` if two callers have the same port, or if a caller connects to one host name on two ports.
    """
    hosts: dict[str, dict[str, set[Host]]] = defaultdict(lambda: defaultdict(set))
    for caller, host in _external_hosts(graph):
        hosts[host.egress][caller].add(host)
    callers = {caller for reached in hosts.values() for caller in reached}
    faults = [*_shared_ports(graph, callers), *_shared_names(graph, hosts)]
    if faults:
        raise InvalidInputError(graph.source, faults)
    return {
        proxy: tuple(
            AllowList(
                caller=caller,
                port=egress_port(caller),
                hosts=tuple(sorted(callers[caller], key=lambda host: (host.host, host.port))),
            )
            for caller in sorted(callers)
        )
        for proxy, callers in sorted(hosts.items())
    }


def outward(site: Site, lists: Iterable[AllowList]) -> Iterator[AddressBlock]:
    """The networks of the hosts in a proxy's lists. A NetworkPolicy contains networks, never host names."""
    hosts = {host for allowed in lists for host in allowed.hosts}
    for network in (site.private_network, PUBLIC_NETWORK):
        if ports := {host.port for host in hosts if site.network_of(host) == network}:
            yield network.model_copy(update={"ports": tuple(sorted(ports))})


def _external_hosts(graph: CallGraph) -> Iterator[tuple[str, Host]]:
    for edge in graph.edges:
        if isinstance(edge.callee, Dependency):
            yield from ((edge.caller.name, host) for host in edge.callee.addresses if isinstance(host, Host))


def _shared_ports(graph: CallGraph, callers: set[str]) -> Iterator[Fault]:
    by_port: dict[int, list[str]] = defaultdict(list)
    for caller in sorted(callers):
        by_port[egress_port(caller)].append(caller)
    for port, sharing in by_port.items():
        if len(sharing) > 1:
            lines = " and ".join(str(graph.nodes[caller].location) for caller in sharing)
            yield Fault(" and ".join(sharing), f"have the same egress port, {port}", "rename one of them", lines)


def _shared_names(graph: CallGraph, hosts: dict[str, dict[str, set[Host]]]) -> Iterator[Fault]:
    """TLS sends the name of a host but not its port, so a proxy could not distinguish two ports of one name."""
    for proxy, callers in sorted(hosts.items()):
        for caller, reached in sorted(callers.items()):
            names = [host.host for host in reached]
            for name in sorted({name for name in names if names.count(name) > 1}):
                ports = " and ".join(str(port) for port in sorted(host.port for host in reached if host.host == name))
                path, value = f"{caller} → {name}", f"has ports {ports} through {proxy}"
                yield Fault(path, value, "expected one port for each host name", str(graph.nodes[caller].location))
