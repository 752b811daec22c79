"""The connections between pods that the NetworkPolicies of a system deny for certain.

A policy may speak of namespaces by labels, or of blocks of addresses, that no manifest tells. Then nothing is certain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from components.declaration import Location
from components.network_policy import NAMESPACE_LABEL
from stack.model.manifests.policies import NetworkPolicySpec, PolicyPeer, PolicyPort, PolicyRule
from stack.model.manifests.resources import Selector
from stack.model.manifests.system import Item, System, Workload

__all__ = ["denying", "governing", "own_namespace_peers"]

Direction = Literal["Ingress", "Egress"]
Certainty = bool | None
"""`None` where the manifests do not tell."""
ANYWHERE = "0.0.0.0/0"


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
        answers = {_both(_admits_peer(system, rule, own, peer), _admits_port(rule, target, port)) for rule in rules}
        if policies and answers <= {False}:
            return direction, policies
    return None


def _admits_peer(system: System, rule: PolicyRule, own: Workload, peer: Workload) -> Certainty:
    return _any(_is_peer(system, each, own, peer) for each in rule.peers) if rule.peers else True


def _admits_port(rule: PolicyRule, target: Workload, port: int) -> Certainty:
    return _any(_is_port(each, target, port) for each in rule.ports) if rule.ports else True


def _both(one: Certainty, other: Certainty) -> Certainty:
    return False if False in (one, other) else None if None in (one, other) else True


def _any(answers: Iterable[Certainty]) -> Certainty:
    found = set(answers)
    return True if True in found else None if None in found else False


def _is_peer(system: System, admitted: PolicyPeer, own: Workload, peer: Workload) -> Certainty:
    if admitted.ip_block:
        return True if admitted.ip_block.cidr == ANYWHERE and not admitted.ip_block.excepted else None
    namespaces = admitted.namespace_selector
    in_namespace = (
        peer.namespace == own.namespace if namespaces is None else _in_namespace(system, namespaces, peer.namespace)
    )
    return _both(in_namespace, admitted.pod_selector is None or admitted.pod_selector.matches(peer.labels))


def _in_namespace(system: System, selector: Selector, namespace: str) -> Certainty:
    """A namespace whose manifest is not there has labels that nobody knows, its name apart."""
    labels = system.namespace_labels.get(namespace)
    if labels is None and (selector.match_expressions or selector.match_labels.keys() - {NAMESPACE_LABEL}):
        return None
    return selector.matches({**(labels or {}), NAMESPACE_LABEL: namespace})


def _is_port(allowed: PolicyPort, target: Workload, port: int) -> Certainty:
    """A protocol other than TCP says nothing of a port that a client names without one."""
    if isinstance(allowed.port, int):
        matches = allowed.port <= port <= (allowed.end_port or allowed.port)
    else:
        matches = allowed.port is None or target.ports.get(allowed.port) == port
    return (None if allowed.protocol != "TCP" else True) if matches else False
