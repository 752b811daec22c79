"""What a set of NetworkPolicies permits, computed as the API defines it from the resources alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from components.network_policy import NAMESPACE_LABEL


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Something with an address: a pod by namespace and labels, or (with `ip`) a host outside the cluster."""

    name: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[int, ...] = ()
    ip: str | None = None
    governed: bool = False
    """Whether its own policies are among the resources: where they are not, only the other end speaks."""


@dataclass(frozen=True, slots=True)
class Reach:
    """One permitted way: who reaches whom on which TCP port."""

    source: str
    target: str
    port: int


def permitted(resources: Iterable[Mapping[str, Any]], endpoints: Iterable[Endpoint]) -> Iterator[Reach]:
    """Every way between two of the endpoints that both ends permit."""
    policies = [resource for resource in resources if resource["kind"] == "NetworkPolicy"]
    everyone = list(endpoints)
    governing = {
        (endpoint.name, direction): [policy for policy in policies if _governs(policy, endpoint, direction)]
        for endpoint in everyone
        for direction in ("Ingress", "Egress")
    }
    for source in everyone:
        for target in everyone:
            for port in target.ports:
                if source is not target and (
                    _admits(governing[source.name, "Egress"], "egress", source, target, port)
                    and _admits(governing[target.name, "Ingress"], "ingress", target, source, port)
                ):
                    yield Reach(source.name, target.name, port)


def _governs(policy: Mapping[str, Any], endpoint: Endpoint, direction: str) -> bool:
    spec = policy["spec"]
    return (
        endpoint.governed
        and policy["metadata"]["namespace"] == endpoint.namespace
        and direction in spec["policyTypes"]
        and _matches(spec["podSelector"], endpoint.labels)
    )


def _admits(policies: list[Mapping[str, Any]], direction: str, own: Endpoint, peer: Endpoint, port: int) -> bool:
    """Policies add up; where none governs a pod, everything is permitted."""
    side = "from" if direction == "ingress" else "to"
    rules = [rule for policy in policies for rule in policy["spec"].get(direction, [])]
    return not policies or any(
        (not rule.get(side) or any(_is_peer(selector, own, peer) for selector in rule[side]))
        and (not rule.get("ports") or any(_is_port(allowed, port) for allowed in rule["ports"]))
        for rule in rules
    )


def _is_peer(selector: Mapping[str, Any], own: Endpoint, peer: Endpoint) -> bool:
    if "ipBlock" in selector:
        return peer.ip is not None and _is_within(selector["ipBlock"], peer.ip)
    if peer.ip is not None:
        return False
    if "namespaceSelector" in selector:
        in_namespace = _matches(selector["namespaceSelector"], {NAMESPACE_LABEL: peer.namespace})
    else:
        in_namespace = peer.namespace == own.namespace
    return in_namespace and _matches(selector.get("podSelector", {}), peer.labels)


def _is_within(block: Mapping[str, Any], ip: str) -> bool:
    excepted = any(ip_address(ip) in ip_network(cidr) for cidr in block.get("except", ()))
    return not excepted and ip_address(ip) in ip_network(block["cidr"])


def _is_port(allowed: Mapping[str, Any], port: int) -> bool:
    number = allowed.get("port", port)
    return bool(allowed.get("protocol", "TCP") == "TCP" and number <= port <= allowed.get("endPort", number))


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
