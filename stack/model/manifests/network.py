"""The connections between pods that the NetworkPolicies of a system deny for certain.

A policy may speak of namespaces by labels, or of blocks of addresses, that no manifest tells. Such a rule may admit.
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
    """The policies that govern a workload's pods in a direction; none where they use the node's network."""
    if workload.template.spec.host_network:
        return ()
    return tuple(policy for policy in system.policies_of(workload) if direction in policy.spec.directions)


def own_namespace_peers(policy: Item[NetworkPolicySpec]) -> Iterator[tuple[Selector, Location]]:
    """The peers of a policy's own namespace that its rules name by labels."""
    for direction, rules, side in (("ingress", policy.spec.ingress, "from"), ("egress", policy.spec.egress, "to")):
        for number, rule in enumerate(rules):
            for index, peer in enumerate(rule.peers):
                if peer.pod_selector and peer.pod_selector.match_labels and peer.namespace_selector is None:
                    yield peer.pod_selector, policy.at(direction, number, side, index)


def denying(
    system: System, source: Workload, target: Workload, port: int
) -> tuple[Direction, tuple[Item[NetworkPolicySpec], ...]] | None:
    """The direction in which a connection to a pod's port is denied, with the policies that govern it."""
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
    """A rule that names no peer admits all."""
    return not rule.peers or any(_may_be_peer(system, each, own, peer) for each in rule.peers)


def _may_admit_port(rule: PolicyRule, target: Workload, port: int) -> bool:
    """A rule that names no port admits all."""
    return not rule.ports or any(_is_port(each, target, port) for each in rule.ports)


def _may_be_peer(system: System, admitted: PolicyPeer, own: Workload, peer: Workload) -> bool:
    """A block of addresses may hold the pod's: no manifest tells it."""
    if admitted.ip_block:
        return True
    namespaces = admitted.namespace_selector
    in_namespace = (
        peer.namespace == own.namespace if namespaces is None else _may_pick(system, namespaces, peer.namespace)
    )
    return in_namespace and (admitted.pod_selector is None or admitted.pod_selector.matches(peer.labels))


def _may_pick(system: System, selector: Selector, namespace: str) -> bool:
    """A namespace without a manifest may have any label, its name apart."""
    labels = system.namespace_labels.get(namespace)
    if labels is None and (selector.match_expressions or selector.match_labels.keys() - {NAMESPACE_LABEL}):
        return True
    return selector.matches({**(labels or {}), NAMESPACE_LABEL: namespace})


def _is_port(allowed: PolicyPort, target: Workload, port: int) -> bool:
    """The protocol is not compared: an address does not tell the client's."""
    if isinstance(allowed.port, int):
        return allowed.port <= port <= (allowed.end_port or allowed.port)
    return allowed.port is None or target.ports.get(allowed.port) == port
