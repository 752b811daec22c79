"""The connections that a set of rendered NetworkPolicies permits, computed as the Kubernetes API defines it.

If a policy names a port, the target's containers declare the port's number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any, Literal, NamedTuple

from components.network_policy import NAMESPACE_LABEL
from stack.model.manifests.resources import Selector

__all__ = ["Connection", "Direction", "Endpoint", "decision", "egress_ports", "is_within", "permitted"]

Direction = Literal["Egress", "Ingress"]
"""The end of a connection that a NetworkPolicy governs: `Egress` at its source, `Ingress` at its target."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of connections: pods with a namespace and labels, or a host outside the cluster with an `ip`."""

    name: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Collection[int] = ()
    port_names: Mapping[str, int] = field(default_factory=dict)
    """Name of a port → its number. NetworkPolicies may use these names."""
    ip: str | None = None
    governed: bool = False
    """True if the endpoint's own NetworkPolicies are among the resources. Otherwise only the other end's policies
    decide."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One permitted connection: source, target and TCP port."""

    source: str
    target: str
    port: int


class _Candidates:
    """Endpoints by label, so that a selector checks only a few. Checking all of them would take quadratic time."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self.all = tuple(endpoints)
        self.outside = tuple(endpoint for endpoint in self.all if endpoint.ip is not None)
        self._by_label: dict[tuple[str, str], list[Endpoint]] = defaultdict(list)
        for endpoint in self.all:
            for label in endpoint.labels.items():
                self._by_label[label].append(endpoint)

    def of(self, selector: Mapping[str, Any]) -> Sequence[Endpoint]:
        """Every endpoint that a label selector matches, and perhaps endpoints that it does not match."""
        label = next(iter(selector.get("matchLabels", {}).items()), None)
        return self.all if label is None else self._by_label.get(label, ())


Ends = set[tuple[str, int]]
"""Pairs of a peer's name and a port of the connection's target."""


def permitted(resources: Iterable[Mapping[str, Any]], endpoints: Iterable[Endpoint]) -> Iterator[Connection]:
    """Every connection that the policies of both ends permit.

    An endpoint of pods stands for all its pods, so it may be source and target of the same connection.
    """
    policies = [resource for resource in resources if resource["kind"] == "NetworkPolicy"]
    candidates = _Candidates(endpoints)
    outward = _admitted(policies, "Egress", candidates)
    inward = _admitted(policies, "Ingress", candidates)
    for source in candidates.all:
        if source.name in outward:
            yield from (
                Connection(source.name, target, port)
                for target, port in outward[source.name]
                if target not in inward or (source.name, port) in inward[target]
            )
    free = {source.name for source in candidates.all if source.name not in outward}
    for target in candidates.all:
        ends = inward.get(target.name, ((name, port) for name in free for port in target.ports))
        yield from (Connection(name, target.name, port) for name, port in ends if name in free)


class Decision(NamedTuple):
    """The NetworkPolicies that decide about a connection at one of its ends, as `namespace/name`."""

    governing: tuple[str, ...]
    """Policies that govern this end. If there are none, every connection is permitted."""
    admitting: tuple[str, ...]
    """The governing policies that admit the connection."""

    @property
    def permits(self) -> bool:
        """True if the policies of this end permit the connection."""
        return not self.governing or bool(self.admitting)


def decision(
    policies: Iterable[Mapping[str, Any]], direction: Direction, source: Endpoint, target: Endpoint, port: int
) -> Decision:
    """The policies that govern one end of a connection, and the policies among them that admit the connection."""
    own, peer = (source, target) if direction == "Egress" else (target, source)
    candidates = _Candidates([own, peer])
    governing = [policy for policy in policies if _governs(policy, own, direction)]
    admitting = [
        policy for policy in governing if (peer.name, port) in _ends(policy["spec"], direction, own, candidates)
    ]
    return Decision(
        *(
            tuple(f"{p['metadata']['namespace']}/{p['metadata']['name']}" for p in found)
            for found in (governing, admitting)
        )
    )


def _admitted(policies: Iterable[Mapping[str, Any]], direction: str, candidates: _Candidates) -> dict[str, Ends]:
    """Endpoint → the peers and ports that its policies admit.

    An endpoint without a policy is missing, because it admits everything.
    """
    admitted: dict[str, Ends] = defaultdict(set)
    for policy in policies:
        for own in candidates.of(policy["spec"]["podSelector"]):
            if _governs(policy, own, direction):
                admitted[own.name].update(_ends(policy["spec"], direction, own, candidates))
    return admitted


def _governs(policy: Mapping[str, Any], endpoint: Endpoint, direction: str) -> bool:
    spec = policy["spec"]
    return (
        endpoint.governed
        and policy["metadata"]["namespace"] == endpoint.namespace
        and direction in spec.get("policyTypes", ("Ingress", *(("Egress",) if spec.get("egress") else ())))
        and _matches(spec["podSelector"], endpoint.labels)
    )


def _ends(spec: Mapping[str, Any], direction: str, own: Endpoint, candidates: _Candidates) -> Iterator[tuple[str, int]]:
    side = "from" if direction == "Ingress" else "to"
    for rule in spec.get(direction.lower(), ()):
        for peer in _peers(rule.get(side), own, candidates):
            target = own if direction == "Ingress" else peer
            for port in _open_ports(rule, target):
                yield peer.name, port


def _peers(selectors: Iterable[Mapping[str, Any]] | None, own: Endpoint, candidates: _Candidates) -> Iterator[Endpoint]:
    """The endpoints that any of the selectors selects. Without selectors, all endpoints."""
    if not selectors:
        yield from candidates.all
        return
    for selector in selectors:
        near = candidates.outside if "ipBlock" in selector else candidates.of(selector.get("podSelector", {}))
        for peer in near:
            if _is_peer(selector, own, peer):
                yield peer


def _is_peer(selector: Mapping[str, Any], own: Endpoint, peer: Endpoint) -> bool:
    if "ipBlock" in selector:
        return peer.ip is not None and is_within(selector["ipBlock"], peer.ip)
    if peer.ip is not None:
        return False
    if "namespaceSelector" in selector:
        in_namespace = _matches(selector["namespaceSelector"], {NAMESPACE_LABEL: peer.namespace})
    else:
        in_namespace = peer.namespace == own.namespace
    return in_namespace and _matches(selector.get("podSelector", {}), peer.labels)


def egress_ports(policies: Iterable[Mapping[str, Any]]) -> Iterator[int]:
    """The port numbers in egress rules. A range yields only its first port."""
    for policy in policies:
        for rule in policy["spec"].get("egress", ()):
            yield from (port for allowed in rule.get("ports", ()) if isinstance(port := allowed.get("port"), int))


def is_within(block: Mapping[str, Any], ip: str) -> bool:
    """True if an `ipBlock` contains the address."""
    return _is_within(block["cidr"], tuple(block.get("except", ())), ip)


@cache
def _is_within(cidr: str, excepted: tuple[str, ...], ip: str) -> bool:
    return ip_address(ip) in ip_network(cidr) and not any(ip_address(ip) in ip_network(each) for each in excepted)


def _open_ports(rule: Mapping[str, Any], target: Endpoint) -> Iterator[int]:
    """The target's TCP ports that a rule admits. A rule without ports admits all."""
    everything: Sequence[Mapping[str, Any]] = ({},)
    for allowed in rule.get("ports") or everything:
        if allowed.get("protocol", "TCP") != "TCP":
            continue
        if (first := allowed.get("port")) is None:
            yield from target.ports
        elif (last := allowed.get("endPort")) is not None:
            yield from (port for port in target.ports if first <= port <= last)
        elif (number := target.port_names.get(first, first)) in target.ports:
            yield number


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """True if a label selector matches. `Selector` is slow, so it reads only selectors with `matchExpressions`."""
    if "matchExpressions" in selector:
        return Selector.model_validate(selector).matches({**labels})
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
