"""The connections between pods that the NetworkPolicies of a system deny for certain.

A policy may speak of namespaces by labels, or of blocks of addresses, that no manifest tells. Then nothing is certain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import ValidationError

from components.declaration import Location
from components.network_policy import NAMESPACE_LABEL
from stack.model.manifests.resources import NetworkPolicySpec, Selector
from stack.model.manifests.system import Item, System, Workload

__all__ = ["denying", "governing", "own_namespace_peers"]

Direction = Literal["Ingress", "Egress"]
Certainty = bool | None
"""`None` where the manifests do not tell."""
Selectors = Sequence[Mapping[str, Any]]
ANYWHERE = "0.0.0.0/0"


def governing(system: System, workload: Workload, direction: Direction) -> tuple[Item[NetworkPolicySpec], ...]:
    """The policies that govern a workload's pods in a direction; none where they use the node's network."""
    if workload.template.spec.host_network:
        return ()
    return tuple(
        policy
        for policy in system.network_policies
        if policy.namespace == workload.namespace
        and direction in policy.spec.directions
        and policy.spec.pod_selector.matches(workload.labels)
    )


def own_namespace_peers(policy: Item[NetworkPolicySpec]) -> Iterator[tuple[Selector, Location]]:
    """The peers of a policy's own namespace that its rules name by labels."""
    for direction, rules, side in (("ingress", policy.spec.ingress, "from"), ("egress", policy.spec.egress, "to")):
        for number, rule in enumerate(rules):
            for index, peer in enumerate(rule.get(side) or ()):
                selector = _selector(peer.get("podSelector")) if "namespaceSelector" not in peer else None
                if selector and selector.match_labels:
                    yield selector, policy.at(direction, number, side, index)


def denying(
    system: System, source: Workload, target: Workload, port: int
) -> tuple[Direction, tuple[Item[NetworkPolicySpec], ...]] | None:
    """The direction in which a connection to a pod's port is denied, with the policies that govern it."""
    ends: tuple[tuple[Direction, Workload, Workload], ...] = (("Egress", source, target), ("Ingress", target, source))
    for direction, own, peer in ends:
        policies = governing(system, own, direction)
        answers = {
            _both(_admits_peer(system, peers, own, peer), _admits_port(ports, target, port))
            for peers, ports in _rules(policies, direction)
        }
        if policies and answers <= {False}:
            return direction, policies
    return None


def _rules(policies: Iterable[Item[NetworkPolicySpec]], direction: Direction) -> Iterator[tuple[Selectors, Selectors]]:
    """Peers and ports of every rule."""
    for policy in policies:
        rules, side = (policy.spec.ingress, "from") if direction == "Ingress" else (policy.spec.egress, "to")
        yield from ((rule.get(side) or (), rule.get("ports") or ()) for rule in rules)


def _admits_peer(system: System, peers: Selectors, own: Workload, peer: Workload) -> Certainty:
    """A rule that names no peer admits all."""
    return _any(_is_peer(system, selector, own, peer) for selector in peers) if peers else True


def _admits_port(ports: Selectors, target: Workload, port: int) -> Certainty:
    """A rule that names no port admits all."""
    return _any(_is_port(allowed, target, port) for allowed in ports) if ports else True


def _both(one: Certainty, other: Certainty) -> Certainty:
    return False if False in (one, other) else None if None in (one, other) else True


def _any(answers: Iterable[Certainty]) -> Certainty:
    found = set(answers)
    return True if True in found else None if None in found else False


def _is_peer(system: System, selector: Mapping[str, Any], own: Workload, peer: Workload) -> Certainty:
    if "ipBlock" in selector:
        block = selector["ipBlock"] or {}
        return True if block.get("cidr") == ANYWHERE and not block.get("except") else None
    if "namespaceSelector" in selector:
        in_namespace = _in_namespace(system, selector["namespaceSelector"], peer.namespace)
    else:
        in_namespace = peer.namespace == own.namespace
    pods = _selector(selector.get("podSelector"))
    picked = None if pods is None else pods.matches(peer.labels)
    return _both(in_namespace, picked)


def _in_namespace(system: System, content: Any, namespace: str) -> Certainty:
    """A namespace whose manifest is not there has labels that nobody knows, its name apart."""
    selector = _selector(content)
    declared = [
        each.content["metadata"].get("labels") or {} for each in system.kinds("Namespace") if each.name == namespace
    ]
    if selector is None:
        return None
    if not declared and (selector.match_expressions or selector.match_labels.keys() - {NAMESPACE_LABEL}):
        return None
    labels = declared[0] if declared else {}
    return selector.matches({**labels, NAMESPACE_LABEL: namespace})


def _selector(content: Any) -> Selector | None:
    """A selector as it stands in a rule; `None` where it is malformed."""
    try:
        return Selector.model_validate(content or {})
    except ValidationError:
        return None


def _is_port(allowed: Mapping[str, Any], target: Workload, port: int) -> Certainty:
    """A protocol other than TCP says nothing of a port that a client names without one."""
    first, last = allowed.get("port"), allowed.get("endPort")
    if first is None:
        matches = True
    elif isinstance(first, str):
        matches = target.ports.get(first) == port
    else:
        matches = first <= port <= (last or first)
    return (None if allowed.get("protocol", "TCP") != "TCP" else True) if matches else False
