"""The connections between pods that the NetworkPolicies of a system certainly deny.

A rule may select namespaces by labels, or pods by an address block. If no manifest shows these labels or addresses, the
rule may admit the connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from components.declaration import Location
from components.network_policy import NAMESPACE_LABEL
from stack.model.manifests.policies import NetworkPolicySpec, PolicyPeer, PolicyPort, PolicyRule
from stack.model.manifests.resources import Selector
from stack.model.manifests.system import Item, System, Workload

__all__ = ["denying", "governing", "own_namespace_peers"]

Direction = Literal["Ingress", "Egress"]


def governing(system: System, workload: Workload, direction: Direction) -> tuple[Item[NetworkPolicySpec], ...]:
    """The policies that govern a workload's pods in a direction. Empty if the pods use the node's network."""
    if workload.template.spec.host_network:
        return ()
    return tuple(policy for policy in system.policies_of(workload) if direction in policy.spec.directions)


def own_namespace_peers(policy: Item[NetworkPolicySpec]) -> Iterator[tuple[Selector, Location]]:
    """Each `podSelector` in a policy's rules that has `matchLabels` and no `namespaceSelector`, with the line."""
    for direction, rules, side in (("ingress", policy.spec.ingress, "from"), ("egress", policy.spec.egress, "to")):
        for number, rule in enumerate(rules):
            for index, peer in enumerate(rule.peers):
                if peer.pod_selector and peer.pod_selector.match_labels and peer.namespace_selector is None:
                    yield peer.pod_selector, policy.at(direction, number, side, index)


def denying(
    system: System, source: Workload, target: Workload, port: int
) -> tuple[Direction, tuple[Item[NetworkPolicySpec], ...]] | None:
    """The direction in which policies deny a connection to a pod's port, with these policies.

    `None` if no direction denies it: no policy governs the pods, or a rule may admit the connection.
    """
    ends: tuple[tuple[Direction, Workload, Workload], ...] = (("Egress", source, target), ("Ingress", target, source))
    for direction, own, peer in ends:
        policies = governing(system, own, direction)
        rules = [
            rule
            for policy in policies
            for rule in (policy.spec.ingress if direction == "Ingress" else policy.spec.egress)
        ]
        if policies and not any(
            _may_admit_peer(system, rule, own, peer) and _may_admit_port(rule, target, port) for rule in rules
        ):
            return direction, policies
    return None


def _may_admit_peer(system: System, rule: PolicyRule, own: Workload, peer: Workload) -> bool:
    """True if the rule may admit the peer. A rule without peers admits every peer."""
    return not rule.peers or any(_may_be_peer(system, each, own, peer) for each in rule.peers)


def _may_admit_port(rule: PolicyRule, target: Workload, port: int) -> bool:
    """True if the rule may admit the port. A rule without ports admits every port."""
    return not rule.ports or any(_is_port(each, target, port) for each in rule.ports)


def _may_be_peer(system: System, admitted: PolicyPeer, own: Workload, peer: Workload) -> bool:
    """True if the rule's peer `admitted` may select the pods of `peer`.

    Any address block may contain these pods, because manifests show no pod addresses.
    """
    if admitted.ip_block:
        return True
    namespaces = admitted.namespace_selector
    in_namespace = (
        peer.namespace == own.namespace if namespaces is None else _may_pick(system, namespaces, peer.namespace)
    )
    return in_namespace and (admitted.pod_selector is None or admitted.pod_selector.matches(peer.labels))


def _may_pick(system: System, selector: Selector, namespace: str) -> bool:
    """True if the selector may select the namespace. If a namespace has no manifest, only its name label is known."""
    labels = system.namespace_labels.get(namespace)
    if labels is None and (selector.match_expressions or selector.match_labels.keys() - {NAMESPACE_LABEL}):
        return True
    return selector.matches({**(labels or {}), NAMESPACE_LABEL: namespace})


def _is_port(allowed: PolicyPort, target: Workload, port: int) -> bool:
    """True if the rule's port is this port. The protocol is not compared, because `host:port` has no protocol."""
    if isinstance(allowed.port, int):
        return allowed.port <= port <= (allowed.end_port or allowed.port)
    return allowed.port is None or target.ports.get(allowed.port) == port
